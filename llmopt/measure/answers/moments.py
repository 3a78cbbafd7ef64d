"""Dates and times of day, however they are written: 3월 14일, 2025-03-14, 오후 3시 5분, 15:05."""

from __future__ import annotations

import re
from typing import NamedTuple

from llmopt.workload.korean.words import numerals_at

__all__ = ["Day", "parse_clock", "parse_date", "same_moment"]


class Day(NamedTuple):
    """A calendar date; the year may be left open."""

    year: int | None
    month: int
    day: int


_WEEKDAY = r"(?:\s*\([월화수목금토일](?:요일)?\)|\s*[월화수목금토일]요일)?"
_END = rf"\s*(?:일)?{_WEEKDAY}(?:입니다|이에요|예요|이다|까지|부터|에)*[\s.!]*"
_DATES = (
    re.compile(rf"(?:(\d{{4}})\s*년\s*)?(\d{{1,2}})\s*월\s*(\d{{1,2}})\s*일{_END}"),
    re.compile(rf"(?:(\d{{4}})\s*[-./]\s*)(\d{{1,2}})\s*[-./]\s*(\d{{1,2}}){_END}"),
    re.compile(rf"()(\d{{1,2}})\s*[/·]\s*(\d{{1,2}}){_END}"),
)
_CLOCK = re.compile(
    r"(?:(오전|오후|낮|밤|새벽|아침|저녁|정오|자정|[ap]\.?m\.?(?=\s*\d))\s*)?"
    r"(\d{1,2})\s*(?::\s*(\d{2})(?::00)?|시(?:\s*(\d{1,2})\s*분|\s*(반))?)"
    r"(?:\s*(am|pm|a\.m\.|p\.m\.))?\s*(?:정각)?(?:입니다|이에요|예요|이다|에|까지|부터)*[\s.!]*",
    re.IGNORECASE,
)
_SINO = "일이삼사오육칠팔구십"
_IN_WORDS = re.compile(
    rf"(?:(?<![가-힣])|(?<=[월시전후]))(?:[유시](?=월)|[{_SINO}]{{1,4}}(?=\s?[월일분])"
    rf"|(?:열[한두]?|한|두|세|네|다섯|여섯|일곱|여덟|아홉|[{_SINO}]{{1,3}})(?=\s?시))"
)
_IRREGULAR = {"유": 6, "시": 10}
"""유월 and 시월, whose numbers are shortened."""
_NOON = re.compile(r"(?:낮\s*)?정오(?:입니다|이에요|예요|이다|에|까지|부터)*[\s.!]*")
_AFTERNOON = ("오후", "저녁")
_MONTHS, _DAYS, _HOURS, _MINUTES = 12, 31, 24, 60


def parse_date(text: str) -> Day | None:
    """The date a text consists of, with or without its year and weekday; else None."""
    written = _with_digits(text.strip())
    for pattern in _DATES:
        match = pattern.fullmatch(written)
        if match:
            year, month, day = (int(part) if part else None for part in match.groups()[:3])
            if month and day and month <= _MONTHS and day <= _DAYS:
                return Day(year, month, day)
    return None


def parse_clock(text: str) -> int | None:
    """The minute of the day a text consists of; a time without 오전 or 오후 is read on the 24-hour clock."""
    if _NOON.fullmatch(text.strip()):
        return _HOURS // 2 * _MINUTES
    match = _CLOCK.fullmatch(_with_digits(text.strip()))
    if match is None:
        return None
    part, hour, colon, minute, half, latin = match.groups()
    if part and part.isascii():
        part, latin = None, part
    hours, minutes = int(hour), int(colon or minute or (30 if half else 0))
    latin = (latin or "").replace(".", "").lower()
    noon = _HOURS // 2
    if (part in _AFTERNOON or latin == "pm" or (part in {"낮", "밤"} and hours < noon and hours != 0)) and hours < noon:
        hours += noon if part != "낮" or hours < 6 else 0  # noqa: PLR2004 - 낮 11시 is before noon, 낮 1시 after
    elif (part in {"오전", "새벽", "아침", "밤"} or latin == "am") and hours == noon:
        hours = 0
    if hours >= _HOURS or minutes >= _MINUTES:
        return None
    return hours * _MINUTES + minutes


def _with_digits(text: str) -> str:
    """``오후 세 시 오 분`` with its numerals as digits."""

    def digits(match: re.Match[str]) -> str:
        word = match.group()
        unit = text[match.end() :].lstrip()[:1]
        if unit == "월" and word in _IRREGULAR:
            return str(_IRREGULAR[word])
        read = [one for one in numerals_at(word, 0) if one.end == len(word)]
        return str(read[0].value) if read else word

    return _IN_WORDS.sub(digits, text) if text[:1] and not text.isascii() else text


def same_moment(said: str, gold: str) -> bool:
    """Whether both are the same date (a year left open fits any) or the same time of day."""
    left, right = parse_date(said), parse_date(gold)
    if left and right:
        return left[1:] == right[1:] and (left.year == right.year or None in (left.year, right.year))
    one, two = parse_clock(said), parse_clock(gold)
    return one is not None and one == two
