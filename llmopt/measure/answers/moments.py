"""Dates and times of day, however they are written: 3월 14일, 2025-03-14, 오후 3시 5분, 15:05."""

from __future__ import annotations

import re
from typing import NamedTuple

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
    r"(?:(오전|오후|낮|밤|새벽|아침|저녁|정오|자정)\s*)?(\d{1,2})\s*(?::\s*(\d{2})|시(?:\s*(\d{1,2})\s*분|\s*(반))?)"
    r"(?:\s*(am|pm|a\.m\.|p\.m\.))?\s*(?:정각)?(?:입니다|이에요|예요|이다|에|까지|부터)*[\s.!]*",
    re.IGNORECASE,
)
_AFTERNOON = ("오후", "저녁")
_MONTHS, _DAYS, _HOURS, _MINUTES = 12, 31, 24, 60


def parse_date(text: str) -> Day | None:
    """The date a text consists of, with or without its year and weekday; else None."""
    for pattern in _DATES:
        match = pattern.fullmatch(text.strip())
        if match:
            year, month, day = (int(part) if part else None for part in match.groups()[:3])
            if month and day and month <= _MONTHS and day <= _DAYS:
                return Day(year, month, day)
    return None


def parse_clock(text: str) -> int | None:
    """The minute of the day a text consists of; a time without 오전 or 오후 is read on the 24-hour clock."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    part, hour, colon, minute, half, latin = match.groups()
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


def same_moment(said: str, gold: str) -> bool:
    """Whether both are the same date (a year left open fits any) or the same time of day."""
    left, right = parse_date(said), parse_date(gold)
    if left and right:
        return left[1:] == right[1:] and (left.year == right.year or None in (left.year, right.year))
    one, two = parse_clock(said), parse_clock(gold)
    return one is not None and one == two
