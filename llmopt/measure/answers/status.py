"""How an answer ended, apart from whether it is right."""

from __future__ import annotations

import re

from llmopt.measure.answers.reply import Reading, Reply
from llmopt.records import AnswerStatus, Item, Sample

__all__ = ["AGREEMENT", "COUNTED_CUT_OFF", "STATED", "early_status", "hangul_share", "is_korean", "late_status"]

STATED = ("marker", "boxed")
"""Rules that read an answer the model stated as such."""
AGREEMENT = "agreement"
COUNTED_CUT_OFF = (*STATED, AGREEMENT)
"""Rules that mean something for a reply the length limit cut off; the reference was asked under the same limit."""
_LETTERS_NEEDED = 20
_HANGUL_NEEDED = 0.7
_NOT_PROSE = re.compile(
    r"```.*?(?:```|$)|`[^`\n]*`|\\\(.*?\\\)|\\\[.*?\\\]|\$\$.*?\$\$|\$[^$\n]*\$|\\[a-zA-Z]+|https?://\S+", re.DOTALL
)
_REFUSAL = re.compile(
    r"(?:죄송|미안)\S{0,6}[^.!?\n]{0,40}(?:답변|도움|대답|제공|도와)[^.!?\n]{0,20}(?:수\s?(?:는\s?)?없|어렵|않|못)"
    r"|(?:답변|대답|도움)\S{0,6}\s?(?:드리기|해\s?드리기|하기|제공하기)\S{0,3}\s?(?:어렵|곤란|힘들)"
    r"|(?:AI|인공지능|언어\s?모델)\S{0,8}\s?(?:로서|이므로|이기\s?때문에|이라서)[^.!?\n]{0,60}(?:수\s?없|않|못)"
    r"|\bI(?:'m| am) (?:sorry|unable|not able)\b[^.!?\n]{0,80}(?:can(?:'|’)?t|cannot|unable|not able|won(?:'|’)t)"
    r"|\bI (?:can(?:'|’)?t|cannot|won(?:'|’)t) (?:help|assist|answer|provide|comply)"
    r"|\bAs an AI\b[^.!?\n]{0,80}(?:can(?:'|’)?t|cannot|unable|don(?:'|’)t)",
    re.IGNORECASE,
)


def early_status(sample: Sample, reply: Reply) -> AnswerStatus | None:
    """The status that needs no answer to be read: failed, cut off or empty; None where there is more to see."""
    if not sample.ok:
        return AnswerStatus.REQUEST_ERROR
    if sample.finish_reason == "length" or reply.unclosed:
        return AnswerStatus.TRUNCATED
    return None if reply.text else AnswerStatus.EMPTY


def late_status(item: Item, reply: Reply, reading: Reading, *, language: str) -> AnswerStatus:
    """The status of a complete answer whose extraction was tried."""
    if not reading.value and reading.rule not in STATED and _REFUSAL.search(reply.text):
        return AnswerStatus.REFUSED
    if reading.extracted is None:
        return AnswerStatus.NO_ANSWER
    if language == "ko" and not is_korean(reply.text, beside=item):
        return AnswerStatus.WRONG_LANGUAGE
    return AnswerStatus.OK


def is_korean(text: str, *, beside: Item | None = None) -> bool:
    """Whether at least 0.7 of the letters are Hangul; the item's own foreign words, and short texts, do not count."""
    share, letters = hangul_share(text, ignoring=_foreign_words(beside) if beside else frozenset())
    return letters < _LETTERS_NEEDED or share >= _HANGUL_NEEDED


def hangul_share(text: str, *, ignoring: frozenset[str] = frozenset()) -> tuple[float, int]:
    """Share of Hangul among the letters outside code, LaTeX and ``ignoring`` words, and their count."""
    prose = _NOT_PROSE.sub(" ", text)
    if ignoring:
        prose = re.sub(r"[A-Za-z]+", lambda m: "" if m[0].casefold() in ignoring else m[0], prose)
    letters = [c for c in prose if c.isalpha()]
    hangul = sum("가" <= c <= "힣" or "ㄱ" <= c <= "ㅣ" for c in letters)
    return (hangul / len(letters) if letters else 1.0), len(letters)


def _foreign_words(item: Item) -> frozenset[str]:
    text = " ".join((item.question, str(item.meta.get("context", "")), *item.answers, *item.options))
    return frozenset(word.casefold() for word in re.findall(r"[A-Za-z]+", text))
