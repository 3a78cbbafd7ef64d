"""Numbers in Korean words: Sino-Korean (삼만 오천), native (서른다섯), and digits with 만 and 천 (3만 5천)."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["MAN", "NATIVE_LIMIT", "comma", "man_form", "native", "native_modifier", "sino"]

MAN = 10_000
"""만, the base of Korean number groups."""
NATIVE_LIMIT = 99
"""The largest number native words reach; beyond it hundreds are Sino-Korean (백스물셋)."""

_HUNDREDS_END = 999
_DIGITS = ("", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구")
_PLACES = ("", "십", "백", "천")
_GROUPS = ("", "만", "억", "조", "경")
_NATIVE_ONES = ("", "하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉")
_NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
_MODIFIER_OF = {"하나": "한", "둘": "두", "셋": "세", "넷": "네", "스물": "스무"}


def sino(number: int) -> str:
    """Sino-Korean words, spaced by groups of four digits as the orthography asks: 12000 → 만 이천.

    Raises ValueError below 0 and from 10^20 on.
    """
    if not 0 <= number < 10 ** (4 * len(_GROUPS)):
        raise ValueError(f"no Sino-Korean words for {number}")
    if number == 0:
        return "영"
    words: list[str] = []
    for power in reversed(range(len(_GROUPS))):
        group = number // 10 ** (4 * power) % 10_000
        if group == 0:
            continue
        # 10,000 is 만, never 일만; but 1억 is 일억
        silent_one = group == 1 and power == 1 and not words
        words.append(("" if silent_one else _four_digits(group)) + _GROUPS[power])
    return " ".join(words)


def _four_digits(group: int) -> str:
    text = ""
    for place in (3, 2, 1, 0):
        digit = group // 10**place % 10
        if digit == 1 and place:
            text += _PLACES[place]
        elif digit:
            text += _DIGITS[digit] + _PLACES[place]
    return text


def native(number: int) -> str:
    """Native words as they stand alone: 3 → 셋, 20 → 스물, 123 → 백스물셋. Raises ValueError outside 1..999."""
    if not 0 < number <= _HUNDREDS_END:
        raise ValueError(f"no native words for {number}")
    hundreds, rest = divmod(number, 100)
    head = _four_digits(hundreds * 100) if hundreds else ""
    return head + _NATIVE_TENS[rest // 10] + _NATIVE_ONES[rest % 10]


def native_modifier(number: int) -> str:
    """Native words as they stand before a counter: 3 → 세, 20 → 스무, 21 → 스물한."""
    word = native(number)
    for alone, before_counter in _MODIFIER_OF.items():
        if word.endswith(alone):
            return word[: -len(alone)] + before_counter
    return word


def man_form(number: int) -> str:
    """Digits with 만 and, where it comes out even, 천: 12000 → 1만 2천, 12500 → 1만 2,500, 9000 → 9천."""
    man, rest = divmod(number, MAN)
    parts = []
    if man:
        parts.append(f"{man:,}만")
    if rest and rest % 1000 == 0:
        parts.append(f"{rest // 1000}천")
    elif rest or not man:
        parts.append(f"{rest:,}")
    return " ".join(parts)


def comma(number: int | Fraction) -> str:
    """Digits with thousands separators; terminating decimals are written out, other fractions as a/b."""
    if isinstance(number, int) or number.denominator == 1:
        return f"{int(number):,}"
    denominator = number.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    if denominator != 1:
        return f"{number.numerator}/{number.denominator}"
    whole, rest = divmod(abs(number), 1)
    digits = ""
    while rest:
        digit, rest = divmod(rest * 10, 1)
        digits += str(int(digit))
    return f"{'-' if number < 0 else ''}{int(whole):,}.{digits}"
