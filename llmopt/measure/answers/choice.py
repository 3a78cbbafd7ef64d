"""Reading the letter of a multiple-choice answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmopt.measure.answers.qa import same_answer
from llmopt.measure.answers.reply import boxed, marked

__all__ = ["read_choice"]

_LETTERS = "ABCDEFGHIJ"
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩"
_FULL_WIDTH = str.maketrans("ＡＢＣＤＥＦＧＨＩＪ１２３４５６７８９", "ABCDEFGHIJ123456789")
_SIGN = r"[\s*_`\"'“‘(\[{<「『]*([A-J]|[①-⑩]|\d{1,2}(?=\s*번|\s*[).\]]|\s*$))"
_COPULA = r"번?\s*(?:입니다|이다|이에요|예요|이고|이며|[가이]\s*(?:정답|답|맞))"
_STATED = re.compile(rf"{_SIGN}(?:{_COPULA}|번|(?![0-9A-Za-z가-힣]))", re.IGNORECASE)
_ALONE = re.compile(rf"{_SIGN}(?:\s*{_COPULA}|\s*번|[)\].:：*_`\"'”’」』]|\s*$)", re.IGNORECASE)
_ANYWHERE = re.compile(r"(?<![A-Za-z가-힣])[(\[]?([A-J])[)\].:]?(?![A-Za-z])|([①-⑩])")


def read_choice(text: str, options: Sequence[str]) -> tuple[str | None, str]:
    """The chosen letter and the rule that found it: marker, boxed, first or last line, or the only letter named."""
    for rule, part in (("marker", marked(text)), ("boxed", boxed(text))):
        if part is not None and (letter := _letter(part, options, _STATED)):
            return letter, rule
    lines = [line for line in text.splitlines() if line.strip()]
    for rule, line in (("first_line", lines[0] if lines else ""), ("last_line", lines[-1] if lines else "")):
        if (letter := _letter(line, options, _ALONE)) is not None:
            return letter, rule
    named = {(m[1] or _LETTERS[_CIRCLED.index(m[2])]).upper() for m in _ANYWHERE.finditer(text.translate(_FULL_WIDTH))}
    known = {letter for letter in named if letter in _LETTERS[: len(options)]}
    return (known.pop(), "only_letter") if len(known) == 1 else (None, "")


def _letter(part: str, options: Sequence[str], leading: re.Pattern[str]) -> str | None:
    """The letter a line begins with, or the letter of the one option whose text the line is."""
    stripped = part.strip()
    said = [n for n, option in enumerate(options) if same_answer(stripped, option)]
    if len(said) == 1:
        return _LETTERS[said[0]]
    match = leading.match(stripped.translate(_FULL_WIDTH))
    if match is None:
        return None
    sign = match[1].upper()
    place = _CIRCLED.find(sign) if sign in _CIRCLED else int(sign) - 1 if sign.isdigit() else _LETTERS.index(sign)
    return _LETTERS[place] if 0 <= place < len(options) else None
