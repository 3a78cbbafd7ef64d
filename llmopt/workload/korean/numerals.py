"""Numbers as Korean writes them: 3만 5천, 삼만 오천, 서른다섯, 3분의 2, 5시간 30분, 영하 4도 → exact values with units.

``parse_quantity`` reads a whole text or nothing, so that 사과, 만두 or 천안 stay words; ``find_quantities`` finds
quantities in running text and believes fewer words to be numerals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TypeAlias

from llmopt.workload.korean.notation import plain
from llmopt.workload.korean.units import ASCII_UNITS, HANGUL_UNITS, convert, dimension
from llmopt.workload.korean.words import ARABIC, Numeral, arabic_value, numerals_at

__all__ = ["Found", "Quantity", "find_quantities", "parse_number", "parse_quantity"]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """An exact number and the unit it was given with (the smallest of several, as in 5시간 30분)."""

    value: Fraction
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A quantity and where it stands in the text that was searched."""

    quantity: Quantity
    start: int
    end: int


Reading: TypeAlias = tuple[Quantity, int]
"""A quantity and where its text ends."""

_NOON = 12 * 60
_PARTICLES = (
    "은|는|이|가|을|를|의|에|로|으로|와|과|도|만|씩|이나|나|이고|고|이며|며|입니다|이에요|예요|이다|이므로|므로|이니까|이어서|이라|라|이었|였|인|"
    "반(?:(?![가-힣])|(?=입니다|이|을|만|에|동안|정도|쯤|짜리|으로))|짜리|까지|부터|보다|마다|이상|이하|정도|쯤|동안|가량|간|이됩|이된|가됩|가된|임|다|째|남|더|뿐"
)
_UNIT = re.compile(
    rf"(?:여(?=\s*[가-힣]))?(\s*)(?:({'|'.join(HANGUL_UNITS)})(?:(?![가-힣])|(?={_PARTICLES}))"
    rf"|({'|'.join(map(re.escape, ASCII_UNITS))})(?![A-Za-z^-]))",
    re.IGNORECASE,
)
_BOUNDARY = re.compile(rf"(?![가-힣])|(?={_PARTICLES})")
_SIGN = re.compile(r"(?P<minus>-\s*|마이너스\s*|영하\s*)?(?:\+|플러스\s*|영상\s*)?(?:[₩$€£¥]\s*)?(?P<late>-(?=[\d.]))?")
_PREFIX = re.compile(r"(?:(?:약|대략|총|모두|전부|합계|섭씨|화씨|시속|분속|초속|매시|매분|각각)\s*)+")
_ENDING = re.compile(
    r"\s*(?:정도|쯤|가량|씩)?\s*(?:\([^()\d]*\)?\s*)?(?:입니다|이었습니다|였습니다|이었다|였다|이랍니다|랍니다|이에요|에요|예요|이예요|이야|야|이다|임|다|요|이라고\s*합니다"
    r"|[이가]\s*(?:됩니다|된다|돼요|되었습니다|남습니다|남는다|필요합니다))?[\s.!]*"
)
_SHORT_ENDING = re.compile(r"\s*(?:입니다|이에요|예요)?[\s.!]*")
_COPULA = re.compile(r"(?:입니다|이에요|예요|이다)(?![가-힣])")
_UNKNOWN_UNIT = re.compile(r"\s?[가-힣]{1,4}?(?=입니다|이에요|예요|이다|[\s.!]*$)")
_QUOTIENT = re.compile(rf"({ARABIC})\s*/\s*({ARABIC})(?!\s*/)")
_WHOLE_AND = re.compile(r"(\d+)(?:\s*[과와]\s*|\s+)(?=\d)")
_PARTED = re.compile(r"\s*분의\s*")
_CLOCK = re.compile(r"([01]?\d|2[0-4]):([0-5]\d)(?![\d:])")
_HALF_OF_DAY = re.compile(r"(오전|오후)\s*")
_POWER = re.compile(r"\s*[×x*]\s*10\s*\^\s*(-?\d{1,2})|[eE]([+-]?\d{1,2})(?![\dA-Za-z])")
_HALF_MORE = re.compile(r"\s*반(?![가-힣])|\s*반(?=입니다|이다|이에요|이|을|만|에|동안|정도|쯤|짜리|으로)")
_START = re.compile(r"\d|(?<![가-힣])[가-힣]")
_DIGITS = re.compile(r"[\d.,]*\d")
_OPERAND = re.compile(r"[\d)\]%]\s*$|\w$")
_SIGN_REACH = 12
"""How far before a number its sign may stand; looking further would make long answers quadratic."""
_MINUS_WORD = re.compile(r"(?<![가-힣])(?:영하|마이너스)\s*$")

_LOOKS_LIKE_A_NUMERAL = re.compile(r"[가-힣][조경]|[백천만억][일이삼사오육칠팔구]")
"""백조 is a swan, 구경 sightseeing, 천사 an angel, 만일 means if: such words need a unit to be numbers."""
_DAYS = ("하루", "이틀", "사흘", "나흘", "닷새", "엿새", "이레", "여드레", "아흐레", "열흘")
_WORD_VALUES = {word: (Fraction(days), "일") for days, word in enumerate(_DAYS, 1)} | {
    "보름": (Fraction(15), "일"),
    "일주일": (Fraction(7), "일"),
    "절반": (Fraction(1, 2), ""),
    "반": (Fraction(1, 2), ""),
    "반년": (Fraction(6), "개월"),
    "반 시간": (Fraction(1, 2), "시간"),
    "반시간": (Fraction(1, 2), "시간"),
}
_AFTER_ONE_SINO_SIGN = frozenset({"원", "퍼센트", "프로"})
"""What may stand right after 만, 이, 사 … without a blank: 만원, but not 사장 (boss), 이번 (this time), 조개 (clam)."""
_AFTER_ONE_SINO_SIGN_IN_TEXT = _AFTER_ONE_SINO_SIGN | frozenset(
    {"킬로미터", "미터", "센티미터", "밀리미터", "킬로그램", "그램", "리터", "밀리리터", "개월", "인분"}
)
"""What makes a single sign a number in running text, even after a blank: 이 문제 is *this problem*."""
_AFTER_ONE_NATIVE_SIGN = frozenset(
    {
        "개",
        "명",
        "살",
        "마리",
        "권",
        "자루",
        "시간",
        "개월",
        "상자",
        "봉지",
        "송이",
        "그루",
        "켤레",
        "바퀴",
        "달",
        "사람",
        "시",
    }
)
"""What may stand right after 두, 세, 열 … without a blank: 두개, but not 세대 (generation), 열병 (fever)."""
_NATIVE_SIGNS = frozenset("한두세네열쉰둘셋넷석넉")


def parse_number(text: str) -> Fraction | None:
    """The value of a text that is a number and nothing else but a unit, a sign or a copula; else None."""
    quantity = parse_quantity(text)
    return quantity.value if quantity else None


def parse_quantity(text: str) -> Quantity | None:
    """The quantity a text consists of, with its unit; None where anything else is in it."""
    line = plain(text).strip(" \t\n\"'“”‘’()[]<>{}*,;:。=→≈~").rstrip(".")
    if not line or "\n" in line:
        return None
    prefix = _PREFIX.match(line)
    for begin in dict.fromkeys((prefix.end() if prefix else 0, 0)):
        sign = _SIGN.match(line, begin)
        negative = bool(sign and (sign["minus"] or sign["late"]))
        for quantity, _ in _readings(line, sign.end() if sign else begin, whole=True):
            return Quantity(value=-quantity.value, unit=quantity.unit) if negative else quantity
    return None


def find_quantities(text: str) -> list[Found]:
    """Every quantity in running text that went through ``plain``, in order, none overlapping another."""
    found: list[Found] = []
    position = 0
    while match := _START.search(text, position):
        begin = match.start()
        reading = None if _inside_a_name(text, begin) else next(_readings(text, begin, whole=False), None)
        if reading is None:
            digits = _DIGITS.match(text, begin)
            position = digits.end() if digits else begin + 1
            continue
        quantity, position = reading
        if _is_negative(text, begin):
            quantity = Quantity(value=-quantity.value, unit=quantity.unit)
        found.append(Found(quantity=quantity, start=begin, end=position))
    return found


def _inside_a_name(text: str, begin: int) -> bool:
    before = text[begin - 1] if begin else ""
    return text[begin].isdigit() and before.isascii() and (before.isalpha() or before == "_")


def _is_negative(text: str, begin: int) -> bool:
    before = text[max(0, begin - _SIGN_REACH) : begin].rstrip("₩$€£¥")
    if before.endswith("-"):
        return not _OPERAND.search(before[:-1])
    return _MINUS_WORD.search(before) is not None


def _readings(text: str, begin: int, *, whole: bool) -> Iterator[Reading]:
    """The believable readings of what begins there, the longest first; with ``whole``, those that use all the text."""
    readings = _any_readings(text, begin, whole=whole)
    return (reading for reading in readings if _ends(text, begin, reading[1])) if whole else readings


def _any_readings(text: str, begin: int, *, whole: bool) -> Iterator[Reading]:
    numerals = numerals_at(text, begin)
    yield from _times(text, begin)
    yield from _mixed_numbers(text, begin)
    yield from _fractions(text, begin, numerals)
    if whole:
        yield from _single_words(text, begin)
    for numeral in numerals:
        if whole or not (numeral.in_words and _continues_a_word(text, begin)):
            yield from _with_parts(text, begin, numeral, whole=whole)
    if whole:
        yield from _with_unknown_unit(text, numerals)


def _continues_a_word(text: str, begin: int) -> bool:
    return begin > 0 and "가" <= text[begin - 1] <= "힣"


def _ends(text: str, begin: int, end: int) -> bool:
    one_sign = end == begin + 1 and not text[begin].isdigit()
    return (_SHORT_ENDING if one_sign else _ENDING).fullmatch(text, end) is not None


def _times(text: str, begin: int) -> Iterator[Reading]:
    """Times of day, in minutes from midnight: 15:20, 오후 3시 20분."""
    half = _HALF_OF_DAY.match(text, begin)
    for quantity, end in islice(_readings(text, half.end(), whole=False), 1) if half else ():
        minutes = convert(quantity.value, quantity.unit, "분")
        if half and dimension(quantity.unit) == "time" and minutes is not None:
            later = half.group(1) == "오후" and minutes < _NOON
            yield Quantity(value=minutes + (_NOON if later else 0), unit="분"), end
    clock = _CLOCK.match(text, begin)
    if clock:
        yield Quantity(value=Fraction(int(clock.group(1)) * 60 + int(clock.group(2))), unit="분"), clock.end()


def _mixed_numbers(text: str, begin: int) -> Iterator[Reading]:
    """``3 1/2``, ``3과 1/2``, ``1과 3분의 2``."""
    whole_part = _WHOLE_AND.match(text, begin)
    if whole_part is None:
        return
    for quantity, end in _fractions(text, whole_part.end(), numerals_at(text, whole_part.end())):
        if quantity.value < 1:
            yield Quantity(value=Fraction(whole_part.group(1)) + quantity.value, unit=quantity.unit), end


def _single_words(text: str, begin: int) -> Iterator[Reading]:
    for word, (value, unit) in _WORD_VALUES.items():
        if text.startswith(word, begin):
            yield Quantity(value=value, unit=unit), begin + len(word)


def _fractions(text: str, begin: int, numerals: Sequence[Numeral]) -> Iterator[Reading]:
    """``7/2`` and ``3분의 2``, with a unit if one follows. ``numerals`` are those that begin there."""
    values: list[tuple[Fraction, int]] = []
    quotient = _QUOTIENT.match(text, begin)
    if quotient and arabic_value(quotient.group(2)):
        values.append((arabic_value(quotient.group(1)) / arabic_value(quotient.group(2)), quotient.end()))
    for below in numerals:
        parted = _PARTED.match(text, below.end)
        above = numerals_at(text, parted.end())[:1] if parted else []
        values.extend((numeral.value / below.value, numeral.end) for numeral in above if below.value)
    for value, end in values:
        unit = _UNIT.match(text, end)
        if unit:
            yield Quantity(value=value, unit=_name(unit)), unit.end()
        yield Quantity(value=value), end


def _with_parts(text: str, begin: int, numeral: Numeral, *, whole: bool) -> Iterator[Reading]:
    """The numeral with its unit, and further parts (5시간 30분, 2시간 반); then, where that may be, without."""
    value, end = numeral.value, numeral.end
    power = None if numeral.in_words else _POWER.match(text, end)
    if power:
        value *= Fraction(10) ** int(power.group(1) or power.group(2))
        end = power.end()
    unit = _UNIT.match(text, end)
    if unit and _believable(text[begin:end], numeral, unit, whole=whole):
        quantity = Quantity(value=value, unit=_name(unit))
        yield from _smaller_parts(text, quantity, unit.end())
        half = _HALF_MORE.match(text, unit.end())
        if half:
            yield Quantity(value=value + Fraction(1, 2), unit=quantity.unit), half.end()
        yield quantity, unit.end()
    if _stands_alone(text, begin, end, numeral, whole=whole):
        yield Quantity(value=value), end


def _with_unknown_unit(text: str, numerals: Sequence[Numeral]) -> Iterator[Reading]:
    """Digits before a short Hangul word the map of units does not have (12꼬치)."""
    for numeral in numerals:
        unknown = None if numeral.in_words else _UNKNOWN_UNIT.match(text, numeral.end)
        if unknown:
            yield Quantity(value=numeral.value, unit=unknown.group().strip()), unknown.end()


def _smaller_parts(text: str, quantity: Quantity, position: int) -> Iterator[Reading]:
    """``quantity`` continued by smaller units of the same dimension."""
    if dimension(quantity.unit) in ("", "count"):
        return
    while text[position : position + 1].isspace():
        position += 1
    for numeral in numerals_at(text, position):
        unit = _UNIT.match(text, numeral.end)
        if unit is None or quantity.unit == _name(unit) or dimension(_name(unit)) != dimension(quantity.unit):
            continue
        small = convert(quantity.value, quantity.unit, _name(unit))
        if small is not None and small >= quantity.value:
            total = Quantity(value=small + numeral.value, unit=_name(unit))
            yield from _smaller_parts(text, total, unit.end())
            yield total, unit.end()
            return


def _believable(written: str, numeral: Numeral, unit: re.Match[str], *, whole: bool) -> bool:
    """Whether a numeral in words and what follows it is a quantity, and not another word."""
    if not numeral.in_words or numeral.syllables > 1:
        return True
    name, gap = _name(unit), unit.group(1)
    if numeral.value == 0:  # 영원 (eternity), 공원 (park)
        return bool(gap)
    if written in _NATIVE_SIGNS or written in ("서", "너"):
        if not whole and written == "한":  # 한 번, 한 사람 are phrases; 한 개입니다 is an answer
            return _COPULA.match(unit.string, unit.end()) is not None
        return bool(gap) or name in _AFTER_ONE_NATIVE_SIGN
    if whole and gap:
        return True
    return name in (_AFTER_ONE_SINO_SIGN if not gap else _AFTER_ONE_SINO_SIGN_IN_TEXT)


def _stands_alone(text: str, begin: int, end: int, numeral: Numeral, *, whole: bool) -> bool:
    """Whether a numeral without a unit is believed."""
    if not numeral.in_words:
        return whole or text[end - 1].isdigit() or _BOUNDARY.match(text, end) is not None
    if numeral.bare or _LOOKS_LIKE_A_NUMERAL.fullmatch(text[begin:end]):
        return False
    return whole or (numeral.syllables > 1 and _COPULA.match(text, end) is not None)


def _name(unit: re.Match[str]) -> str:
    return (unit.group(2) or unit.group(3)).lower()
