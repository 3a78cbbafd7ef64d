"""Reading the letter of a multiple-choice answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmopt.measure.answers.qa import same_answer
from llmopt.measure.answers.reply import boxed, marked

__all__ = ["read_choice"]

_LETTERS = "ABCDEFGHIJ"
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
_FULL_WIDTH = str.maketrans(
    "ＡＢＣＤＥＦＧＨＩＪⒶⒷⒸⒹⒺⒻⒼⒽⒾⒿⓐⓑⓒⓓⓔⓕⓖⓗⓘⓙ１２３４５６７８９", "ABCDEFGHIJABCDEFGHIJABCDEFGHIJ123456789"
)
_SIGN = (
    r"[\s*_`\"'“‘(\[{<「『]*(?:(?:보기|선택지|옵션|option|choice)\s*)?[(\[]?"
    r"([A-J]|[①-⑩]|\d{1,2}(?=\s*번|\s*[).\]]|\s*$))"
)
_NOT_DENIED = r"(?!\S*\s?(?:아니|않))"
_COPULA = rf"번?\s*(?:입니다|이다|이에요|예요|이고|이며|[가이]\s*(?:정답|답|맞){_NOT_DENIED})"
_STATED = re.compile(rf"{_SIGN}(?:{_COPULA}|번|(?![0-9A-Za-z가-힣]))", re.IGNORECASE)
_ALONE = re.compile(rf"{_SIGN}(?:\s*{_COPULA}|\s*번|[)\].:：*_`\"'”’」』]|\s*$)", re.IGNORECASE)
_AFFIRMED = re.compile(
    r"(?<![A-Za-z가-힣])[(\[]?([A-J](?![A-Za-z])|[①-⑩]|\d{1,2}(?=번))[)\].]?번?[이가]\s*(?:정답|답|맞|옳|올바)"
    + _NOT_DENIED
)
_OR_ANOTHER = re.compile(
    r"[)\].]?번?\s*(?:,|/|·|또는|혹은|이나|나|와|과|및|\bor\b|\band\b|&)\s*[(\[]?(?:[A-J](?![A-Za-z가-힣])|[①-⑩]|\d{1,2}(?=\s*번|\s*$))",
    re.IGNORECASE,
)
"""A second letter right after the first: who names two has chosen none."""
_ANYWHERE = re.compile(r"(?<![A-Za-z가-힣])[(\[]?([A-J])[)\].:]?(?![A-Za-z])|([①-⑩])")


def read_choice(text: str, options: Sequence[str]) -> tuple[str | None, str]:
    """The chosen letter and the rule that found it: marker, boxed, first or last line, or the only letter named."""
    for rule, part in (("marker", marked(text)), ("boxed", boxed(text))):
        if part is None:
            continue
        if _OR_ANOTHER.match(part, _end_of_sign(part)):
            return None, rule
        if letter := _letter(part, options, _STATED) or _named(part, options):
            return letter, rule
    lines = [line for line in text.splitlines() if line.strip()]
    for rule, line in (("first_line", lines[0] if lines else ""), ("last_line", lines[-1] if lines else "")):
        if (letter := _letter(line, options, _ALONE)) is not None:
            return letter, rule
    folded = text.translate(_FULL_WIDTH)
    affirmed = [found for match in _AFFIRMED.finditer(folded) if (found := _of_sign(match[1], options))]
    if affirmed:
        return affirmed[-1], "affirmed"
    named = {_of_sign(match[1] or match[2], options) for match in _ANYWHERE.finditer(folded)} - {None}
    return (named.pop(), "only_letter") if len(named) == 1 else (None, "")


def _letter(part: str, options: Sequence[str], leading: re.Pattern[str]) -> str | None:
    """The letter a line begins with, or the letter of the one option whose text the line is."""
    stripped = part.strip()
    said = [n for n, option in enumerate(options) if same_answer(stripped, option)]
    if len(said) == 1:
        return _LETTERS[said[0]]
    match = leading.match(stripped.translate(_FULL_WIDTH))
    return _of_sign(match[1], options) if match else None


def _of_sign(sign: str, options: Sequence[str]) -> str | None:
    """The letter a sign (B, ②, 2) stands for, where there is such an option."""
    sign = sign.upper()
    place = _CIRCLED.find(sign) if sign in _CIRCLED else int(sign) - 1 if sign.isdigit() else _LETTERS.index(sign)
    return _LETTERS[place] if 0 <= place < len(options) else None


def _end_of_sign(part: str) -> int:
    match = _STATED.match(part.translate(_FULL_WIDTH))
    return match.end(1) if match else len(part)


def _named(part: str, options: Sequence[str]) -> str | None:
    """The letter of the only option among the words of a stated answer: 두 번째 보기인 부산입니다."""
    words = part.split()
    said = [n for n, option in enumerate(options) if any(same_answer(word, option) for word in words)]
    return _LETTERS[said[0]] if len(said) == 1 else None
