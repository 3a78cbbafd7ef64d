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

from llmopt.measure.answers.reply import boxed, marked

__all__ = ["UNKNOWN", "em", "f1_char", "plain", "read_answer", "same_answer", "says_unknown"]

UNKNOWN = "알 수 없음"
"""The gold answer of a question that the text does not answer."""

_QUOTES_TO_BLANK = re.compile(r"['\"《》〈〉<>()‘’“”]")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PUNCTUATION = re.compile(r"[\s·ㆍ・•「」『』《》〈〉“”‘’\"'`()\[\]{}<>,.!?~:;*_…/\\|\-–—−]+")
_CURLY = str.maketrans({"℃": "도", "％": "%"})
_NOT_SAID = re.compile(
    r"알\s?수(?:가|는)?\s?없|알려(?:져|지지|지)\s?(?:있지\s?)?않|모르|모릅|불명|미상"
    r"|(?:나와|적혀|언급되어|제시되어|설명되어|나타나|명시되어|포함되어|주어져)\s?있지\s?(?:는\s?)?않"
    r"|(?:언급|제시|명시|서술|기재|포함|제공)(?:이|은|는|되지|하지|된\s?바)?\s?(?:되지\s?)?(?:없|않)"
    r"|(?:찾을|확인할|판단할|답할|파악할)\s?수\s?없|(?:정보|내용|언급|설명|기록)[가이은는도]?\s?(?:전혀\s?)?(?:없|부족)"
    r"|\bunknown\b|\bnot (?:stated|given|mentioned|known|specified|provided|available)\b|\bcannot be (?:known|determined)\b"
    r"|\bno information\b|\bunanswerable\b",
    re.IGNORECASE,
)

# Particles and endings by what they may follow: a final consonant, none, either (ㄹ counts as none before 로).
_AFTER_CONSONANT = "은 이 을 과 이랑 으로 으로서 으로써 이라고 이라는 이라 이란 이며 이고 이나 이에요 이어요 이었다 이었습니다 이었어요 이에서 이여"
_AFTER_VOWEL = "는 가 를 와 랑 라고 라는 라 란 며 고 나 예요 여요 였다 였습니다 였어요"
_AFTER_EITHER = (
    "의 에 에서 에게 에게서 께 께서 한테 한테서 도 만 까지 부터 마다 보다 처럼 뿐 밖에 조차 마저 에는 에서는 에도 에서의 까지의 에서부터 까지는"
    " 이다 입니다 임 인 이죠 이지요 이군요 이네요 이지 요 이라고요 일 다 이었던 인데 이기 이므로 이었음 였음 이랍니다 랍니다 된다 됩니다 되었다 되었습니다"
    " 이라고합니다 라고합니다 이라고한다 라고한다 이라고할수있습니다 라고할수있습니다 이라고불립니다 라고불립니다"
)
_ENDINGS: dict[str, str] = {
    **dict.fromkeys(_AFTER_EITHER.split(), "either"),
    **dict.fromkeys(_AFTER_CONSONANT.split(), "consonant"),
    **dict.fromkeys(_AFTER_VOWEL.split(), "vowel"),
    "로": "vowel_or_rieul",
    "로서": "vowel_or_rieul",
    "로써": "vowel_or_rieul",
}
_LONGEST_CHAIN = 3

# A noun that, with a following syllable that looks like a particle, is another common word: never accepted as the gold.
_OTHER_WORDS = frozenset(
    "고양이 어린이 바나나 회의 종로 가을 마을 나이 아이 오이 사이 차이 놀이 먹이 높이 길이 넓이 깊이 거의 서로 경로 도로 통로 진로 피로 기로 미로 위로"
    " 주의 정의 강의 논의 문의 합의 동의 회고 창고 사고 보고 광고 최고 재고 참고 경고 충고 친구 평가 국가 작가 화가 시가 주가 물가 단가 증가 휴가 허가 대가"
    " 정도 제도 지도 온도 속도 농도 각도 강도 태도 수도 철도 궤도 포도 파도 기도 사과 결과 효과 성과 학과 치과 내과 외과 교과 통과 경과 초과 부과 조화 평화"
    " 시인 주인 노인 군인 상인 거인 범인 여인 부인 애인 개인 본인 원인 요인 확인 승인 할인 디자인 와인 라인 온라인 생일 휴일 내일 매일 과일 요일 파일 스타일"
    " 이만 불만 오만 자만 방만 대만 교만 낭만 반도 한라 나라 신라 소라 파라 커피 문에 은은 고은 가나 하나 누나 언니".split()
)


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
    return _PUNCTUATION.sub("", unicodedata.normalize("NFKC", text.translate(_CURLY)).casefold())


def same_answer(predicted: str, gold: str, *, others: Sequence[str] = ()) -> bool:
    """Whether the prediction is the gold, or the gold followed by a particle and copula that fit it.

    ``others`` are known wrong answers (distractors): a prediction that is one of them is never the gold.
    """
    said, wanted = plain(predicted), plain(gold)
    if said == wanted:
        return bool(wanted)
    if not wanted or not said.startswith(wanted) or said in _OTHER_WORDS or said in {plain(o) for o in others}:
        return False
    if len(wanted) == 1 and len(said) == 2 and "가" <= wanted <= "힣":  # noqa: PLR2004 - one syllable plus one: another word
        return False
    return _is_chain(said[len(wanted) :], wanted[-1], _LONGEST_CHAIN)


def _is_chain(rest: str, last: str, links: int) -> bool:
    if not rest:
        return True
    if not links:
        return False
    return any(
        rest.startswith(ending) and _follows(last, need) and _is_chain(rest[len(ending) :], ending[-1], links - 1)
        for ending, need in _ENDINGS.items()
    )


def _follows(last: str, need: str) -> bool:
    """Whether an ending with this need may follow; after digits and Latin letters any may."""
    if need == "either" or not "가" <= last <= "힣":
        return True
    final = (ord(last) - 0xAC00) % 28
    if need == "consonant":
        return final != 0
    return final == 0 or (need == "vowel_or_rieul" and final == 8)  # noqa: PLR2004 - the code of ㄹ


def says_unknown(text: str) -> bool:
    """Whether a reply says that the answer is not given."""
    return bool(_NOT_SAID.search(text))


_PREDICATE = re.compile(r"^.{1,60}?(?:은|는|이|가)\s+(\S.*)$")
_BRACKETED = re.compile(r"\s*[(（\[][^()（）\[\]]*[)）\]]\s*")


def read_answer(text: str) -> tuple[list[tuple[str, str]], str | None]:
    """Candidates in order of trust, each with its rule, and the one to show.

    A marked or boxed answer is the only one looked at; without one, the first and last lines are, and what follows
    the subject of the last sentence (``회의 장소는 3층입니다``).
    """
    for rule, part in (("marker", marked(text)), ("boxed", boxed(text))):
        if part:
            return [(part, rule)], part
    lines = [line.strip(" \t*_`#>-•") for line in text.splitlines() if line.strip()]
    if not lines:
        return [], None
    candidates = [(lines[0], "whole")] if len(lines) == 1 else [(lines[-1], "last_line"), (lines[0], "first_line")]
    sentence = re.split(r"(?<=[.!?。])\s+", lines[-1])[-1]
    if match := _PREDICATE.match(sentence):
        candidates.append((match[1], "predicate"))
    return candidates, candidates[0][0]


def variants(candidate: str) -> Iterable[str]:
    """The candidate itself, without a bracketed addition, and its first sentence."""
    yield candidate
    without = _BRACKETED.sub(" ", candidate).strip()
    if without and without != candidate:
        yield without
    first = re.split(r"(?<=[.!?。])\s+", candidate)[0]
    if first != candidate:
        yield first
