"""Korean numerals read one sign at a time: digits, 십·백·천, 만·억·조·경 and native words, in any usual mixture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["ARABIC", "Numeral", "arabic_value", "numerals_at"]

ARABIC = r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"

_DIGITS = {c: n for n, c in enumerate("일이삼사오육칠팔구", 1)} | {"륙": 6, "영": 0, "공": 0}
_PLACES = {"십": 10, "백": 100, "천": 1000}
_GROUPS = {"만": 10**4, "억": 10**8, "조": 10**12, "경": 10**16}
_TENS = {w: n * 10 for n, w in enumerate(("열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔"), 1)}
_ONES = {w: n for n, w in enumerate(("하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉"), 1)}
_MODIFIERS = {"한": 1, "두": 2, "세": 3, "네": 4, "서": 3, "석": 3, "너": 4, "넉": 4}
_TENS_MODIFIER = {"스무": 20}

_ATOM = re.compile(
    r"(\s*)(?:("
    + ARABIC
    + r")|("
    + "|".join(sorted((*_TENS, *_ONES, *_MODIFIERS, *_TENS_MODIFIER), key=len, reverse=True))
    + r")(?!제곱)|([일이삼사오육륙칠팔구영공])|([십백천])|([만억조경]))"
)
_DECIMAL_WORDS = re.compile(r"\s*점\s*([일이삼사오육륙칠팔구영공]+)(?![가-힣])")
_GROUP_END = 10_000


@dataclass(frozen=True, kw_only=True)
class Numeral:
    """A numeral read at some place.

    ``syllables`` counts its Hangul signs (0 where digits take part), ``bare`` says it cannot stand without a counter.
    """

    value: Fraction
    end: int
    syllables: int
    bare: bool = False

    @property
    def in_words(self) -> bool:
        """Whether no Arabic digit was used."""
        return self.syllables > 0


class _Reader:
    """Adds signs up from left to right; ``accept`` is False where a sign cannot follow the ones before."""

    def __init__(self) -> None:
        self.total: Fraction | int = 0
        self.group: Fraction | int = 0
        self.pending: Fraction | int | None = None
        self.smallest_place = _GROUP_END
        self.smallest_group = 10**20
        self.closed = False
        self.native_tens = False
        self.bare = False
        self.fresh_group = False

    def accept(self, match: re.Match[str]) -> bool:
        gap, arabic, native, digit, place, group = match.groups()
        if self.closed:
            return False
        if arabic or digit:
            value = _small(arabic) if arabic else _DIGITS[digit]
            if digit == "일" and gap and self.smallest_place < _GROUP_END:  # 백삼십 일 is 130 days
                return False
            return self._number(value, digit=bool(digit))
        if native:
            return self._native(native, gap)
        return self._place(_PLACES[place]) if place else self._group(_GROUPS[group])

    def value(self) -> Fraction:
        return Fraction(self.total + self.group + (self.pending or 0))

    def _number(self, value: Fraction | int, *, digit: bool) -> bool:
        empty = not (self.total or self.group)
        if self.pending is not None or self.native_tens or (digit and value == 0 and not empty):
            return False
        if not empty and value >= self.smallest_place:
            return False
        self.pending = value
        return True

    def _place(self, place: int) -> bool:
        if place >= self.smallest_place or self.native_tens:
            return False
        if self.pending is not None and not 0 < self.pending < _PLACES["십"]:
            return False
        self.group += (self.pending or 1) * place
        self.pending, self.smallest_place, self.fresh_group = None, place, False
        return True

    def _group(self, group: int) -> bool:
        if group >= self.smallest_group or self.native_tens:
            return False
        if self.pending is None and not self.group and self.total:
            return False
        self.total += (self.group + (self.pending or 0) or 1) * group
        self.group, self.pending = 0, None
        self.smallest_place, self.smallest_group, self.fresh_group = _GROUP_END, group, True
        return True

    def _native(self, word: str, gap: str) -> bool:
        if self.pending is not None or self.smallest_place <= _PLACES["십"] or (self.fresh_group and not gap):
            return False
        if word in _TENS or word in _TENS_MODIFIER:
            if self.native_tens:
                return False
            self.group += _TENS.get(word) or _TENS_MODIFIER[word]
            self.native_tens = True
        else:
            self.group += _ONES.get(word) or _MODIFIERS[word]
            self.closed = True
        self.bare = word in _MODIFIERS or word in _TENS_MODIFIER
        self.closed = self.closed or word in _TENS_MODIFIER
        self.fresh_group = False
        return True


def arabic_value(digits: str) -> Fraction:
    """The value of Arabic digits with thousands separators and a decimal point."""
    text = digits.replace(",", "")
    return Fraction(f"0{text}" if text.startswith(".") else text)


def _small(digits: str) -> Fraction | int:
    return int(digits) if digits.isdigit() else arabic_value(digits)


def numerals_at(text: str, position: int) -> list[Numeral]:
    """Every numeral that begins at ``position``, the longest first: ``3조각`` may begin with 3 조 or with 3."""
    return list(_prefixes(text, position))[::-1]


def _prefixes(text: str, position: int) -> Iterator[Numeral]:
    reader, syllables, has_arabic = _Reader(), 0, False
    while (match := _ATOM.match(text, position)) and not (match.group(1) and not syllables and not has_arabic):
        if not reader.accept(match):
            return
        position = match.end()
        has_arabic = has_arabic or match.group(2) is not None
        syllables += 0 if match.group(2) else len(match.group().strip())
        words = 0 if has_arabic else syllables
        yield Numeral(value=reader.value(), end=position, syllables=words, bare=reader.bare)
        decimals = None if has_arabic else _DECIMAL_WORDS.match(text, position)
        if decimals:
            digits = "".join(str(_DIGITS[c]) for c in decimals.group(1))
            value = reader.value() + Fraction(int(digits), 10 ** len(digits))
            yield Numeral(value=value, end=decimals.end(), syllables=words + 1 + len(digits))
            return
