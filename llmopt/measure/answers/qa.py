"""Reading and comparing short Korean answers: official exact match and character F1, and a Korean-aware match.

``em`` and ``f1_char`` follow the published rules of KorQuAD 1.0 (arXiv 1909.07005), written here from their
description. ``same_answer`` additionally accepts the gold answer followed by a particle or copula: the gold is never
stripped, so that 고양이 stays 고양이.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from llmopt.measure.answers.endings import follows, is_ending, is_other_word
from llmopt.measure.answers.reply import boxed, marked

__all__ = [
    "UNKNOWN",
    "em",
    "f1_char",
    "official",
    "plain",
    "read_answer",
    "same_answer",
    "says_unknown",
    "variants",
    "without_echo",
]

UNKNOWN = "알 수 없음"
"""The gold answer of a question that the text does not answer."""

_LONGEST_ANSWER = 60
"""An unmarked line longer than this is prose, not an answer."""
_QUOTES_TO_BLANK = re.compile(r"['\"《》〈〉<>()‘’“”]")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PUNCTUATION = re.compile(
    r"[\s·ㆍ・•「」『』《》〈〉“”‘’\"'`()\[\]{}<>,.!?~:;*_…/\\|\-–—−\u2600-\u27bf\ufe0f\u200d\U0001f000-\U0001faff]+"
)
_BEFORE_FOLDING = str.maketrans({"℃": "도", "％": "%"})
_NOT_SAID = re.compile(
    r"알\s?수(?:가|는)?\s?없|알기\s?(?:가\s?)?(?:어렵|힘들|곤란)|(?:^|\s)모름(?![가-힣])|알려(?:져|지지|지)\s?(?:있지\s?)?않|모르겠|모릅니다|모른다|불명|미상"
    r"|(?:나와|적혀|언급되어|제시되어|설명되어|나타나|명시되어|포함되어|주어져)\s?있지\s?(?:는\s?)?않"
    r"|(?:언급|제시|명시|서술|기재|포함|제공)(?:이|은|는|되지|하지|된\s?바)?\s?(?:되지\s?)?(?:없|않)"
    r"|(?:찾을|확인할|판단할|답할|파악할|답변할)\s?수(?:가|는)?\s?없"
    r"|(?:정보|내용|언급|설명|기록)[가이은는도]?\s?(?:전혀\s?)?(?:없|부족)"
    r"|\bunknown\b|\bnot (?:stated|given|mentioned|known|specified|provided|available)\b"
    r"|\bcannot be (?:known|determined)\b|\bno information\b|\bunanswerable\b",
    re.IGNORECASE,
)
_SUBJECT = re.compile(r"(?<=\S)(?:은|는|이|가)\s+(?=\S)")
_HONORIFIC = re.compile("(?:선생)?[씨님]")
_SYLLABLES_OF_A_NAME = 3
_CONFIRMED = re.compile(r"(?:이|가)\s+(?:정답|답|맞)\S*$")
"""What follows the answer in 서울이 정답입니다."""
_LEAD_IN = re.compile(
    r"(?:(?:네|예|음)[,.!]?\s+|(?:위|이|주어진|제시된)?\s?(?:글|지문|본문|표|목록|자료|문서|내용)에?\s?(?:따르면|의하면|보면|서는)[,:]?\s+|A\s?[:.]\s+)+"
)
_LABEL = re.compile(r"[^\d:：]{1,20}?\s*(?:[:：]|\s[-–—])\s+(?=\S)")
_BRACKETED = re.compile(r"\s*[(（\[][^()（）\[\]]*[)）\]]\s*")
_SENTENCE_END = re.compile(r"(?<=[.!?。])\s+")
_LINE_MARKUP = " \t*_`#>-•"


def em(predicted: str, golds: Iterable[str]) -> float:
    """1.0 where the prediction equals a gold after KorQuAD's normalisation."""
    wanted = official(predicted)
    return float(any(official(gold) == wanted for gold in golds))


def f1_char(predicted: str, golds: Iterable[str]) -> float:
    """The best F1, over the golds, on the multiset of characters with blanks removed."""
    return max((_overlap(official(predicted), official(gold)) for gold in golds), default=0.0)


def official(text: str) -> str:
    """KorQuAD's normalisation: quotes and brackets to blanks, lower case, ASCII punctuation off, blanks collapsed."""
    bare = _QUOTES_TO_BLANK.sub(" ", text).lower().translate(_ASCII_PUNCTUATION)
    return " ".join(bare.split())


def _overlap(predicted: str, gold: str) -> float:
    left, right = Counter(predicted.replace(" ", "")), Counter(gold.replace(" ", ""))
    common = (left & right).total()
    if not common:
        return float(left == right)
    precision, recall = common / left.total(), common / right.total()
    return 2 * precision * recall / (precision + recall)


def plain(text: str) -> str:
    """Compatibility forms unified, lower case, without blanks and punctuation."""
    return _PUNCTUATION.sub("", unicodedata.normalize("NFKC", text.translate(_BEFORE_FOLDING)).casefold())


def same_answer(predicted: str, gold: str, *, others: Sequence[str] = ()) -> bool:
    """Whether the prediction is the gold, or the gold followed by a particle and copula that fit it.

    ``others`` are known wrong answers (distractors): a prediction that is one of them is never the gold.
    """
    said, wanted = plain(predicted), plain(gold)
    if said == wanted:
        return bool(wanted)
    if not wanted or not said.startswith(wanted) or said in {plain(other) for other in others}:
        return False
    if is_other_word(said, than=wanted):
        return False
    rest = said[len(wanted) :]
    polite = _HONORIFIC.match(rest) if len(wanted) >= _SYLLABLES_OF_A_NAME else None
    if polite:
        wanted, rest = said[: len(wanted) + polite.end()], rest[polite.end() :]
    if len(wanted) == 1 and "가" <= wanted <= "힣" and not is_ending(rest):
        return False  # one syllable and a particle look like another word (회 + 의)
    return follows(wanted, rest)


def says_unknown(text: str) -> bool:
    """Whether a reply says that the answer is not given."""
    return bool(_NOT_SAID.search(text))


def read_answer(text: str) -> tuple[list[tuple[str, str]], str | None]:
    """Candidates in order of trust, each with its rule, and the one to show.

    A marked or boxed answer is the only one looked at; without one, the first and last lines are, and what follows
    a subject of the last sentence (``회의 장소는 3층입니다``). A reply that is all prose has no candidate to show.
    """
    stated = marked(text)
    for rule, part in (("boxed", boxed(text) if stated is None else boxed(stated)), ("marker", stated)):
        if part:
            return [(part, rule)], part
    lines = [stripped for line in text.splitlines() if (stripped := line.strip(_LINE_MARKUP))]
    if not lines:
        return [], None
    candidates = [(lines[0], "whole")] if len(lines) == 1 else [(lines[-1], "last_line"), (lines[0], "first_line")]
    shown = next((text for text, _ in candidates if len(text) <= _LONGEST_ANSWER), None)
    sentence = _SENTENCE_END.split(lines[-1])[-1]
    candidates += [(sentence[match.end() :], "predicate") for match in _SUBJECT.finditer(sentence)]
    if confirmed := _CONFIRMED.search(sentence):
        candidates.append((sentence[: confirmed.start()], "predicate"))
    if len(lines) == 1 and (label := _LABEL.match(lines[0])):
        candidates.append((lines[0][label.end() :], "label"))
    return candidates, shown


def without_echo(candidate: str, question: str, others: Sequence[str]) -> str:
    """The candidate without leading words that only repeat the question (``수간호사 신규아`` to *수간호사는 누구*)."""
    words = candidate.split()
    while len(words) > 1 and words[0] in question and words[0] not in others:
        words.pop(0)
    return " ".join(words)


def variants(candidate: str) -> Iterable[str]:
    """The candidate itself, without words that lead in, without a bracketed addition, and its first sentence."""
    yield candidate
    if lead := _LEAD_IN.match(candidate):
        yield candidate[lead.end() :]
    without = _BRACKETED.sub(" ", candidate).strip()
    if without and without != candidate:
        yield without
    first = _SENTENCE_END.split(candidate)[0]
    if first != candidate:
        yield first
