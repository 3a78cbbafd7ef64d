"""Invented names and drawn values: nothing here names a real person, company or event.

Names with and without a final consonant are mixed, and no stem contains another, so that a search for one never
finds a second. Every value ends in a Hangul syllable.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

__all__ = [
    "STEMS",
    "Draw",
    "Value",
    "clock",
    "clock_text",
    "combined",
    "date_text",
    "day",
    "money",
    "number",
    "one_of",
    "person",
    "plain_number",
]


class Value(NamedTuple):
    """A cell of a world: its text, and the number behind it (0 for names)."""

    text: str
    number: int


Draw = Callable[[Random, int, set[str]], list[Value]]
"""Draws ``n`` values; names avoid, and then join, the set of names already used in the passage."""

_SURNAMES = "김이박최정강조윤장임한오서신권황안송류전홍고문양손배백허남심"
_FIRST = "가건경규기나다도동라명미민보새서선세소수승시아연영예온우유윤은재주지진찬채태하해현혜효희"
_SECOND = "겸경광규담라람령록린민범빈석선섭성솔수식아안연영오옥완욱운원율은인일재정준중진찬채철혁호환훈희"

STEMS = (
    "가람 두솔 여울 소담 해올 너울 새미 온솔 다온 은재 푸름 윤슬 달샘 별하 늘봄 초아 아라 산들 모루 도담 구름재 안골 서령 남촌 "
    "한결 미르 시내 보람 노을 물빛 단비 새론 하람 벼리 차오름 고운 누리 한별 바우 솔찬 예나래 큰골 흰내 꽃뫼 잔디 들메 버들 동살"
).split()


def person(rng: Random, n: int, used: set[str]) -> list[Value]:
    """Korean personal names: a surname and two syllables."""
    found: list[Value] = []
    while len(found) < n:
        name = rng.choice(_SURNAMES) + rng.choice(_FIRST) + rng.choice(_SECOND)
        if name not in used:
            used.add(name)
            found.append(Value(name, 0))
    return found


def combined(heads: Sequence[str], tails: Sequence[str], joint: str = "") -> Draw:
    """Names made of a head and a tail; heads are used once in a passage as long as they last."""

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        found: list[Value] = []
        tried = 0
        order = list(heads)
        rng.shuffle(order)
        while len(found) < n:
            head = order[tried % len(order)]
            tried += 1
            name = f"{head}{joint}{rng.choice(tails)}"
            if name not in used and (head not in used or tried > len(order)):
                used.update((name, head))
                found.append(Value(name, 0))
        return found

    return drawn


def one_of(texts: Sequence[str]) -> Draw:
    """A few distinct names out of a fixed list (departments, rooms)."""

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        del used
        return [Value(text, 0) for text in rng.sample(texts, n)]

    return drawn


def number(unit: str, low: int, high: int, step: int = 1, *, repeat: bool = False) -> Draw:
    """Whole numbers with a unit (``35명``), all different unless ``repeat``."""
    values = range(low, high + 1, step)

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        del used
        chosen = rng.choices(values, k=n) if repeat or n > len(values) else rng.sample(values, n)
        return [Value(f"{value:,}{unit}", value) for value in chosen]

    return drawn


def plain_number(unit: str, low: int, high: int) -> Draw:
    """Numbers that name things (``2019년``, ``4127번``): no thousands separator, all different."""

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        del used
        return [Value(f"{value}{unit}", value) for value in rng.sample(range(low, high + 1), n)]

    return drawn


def money(low: int, high: int, step: int) -> Draw:
    """Prices in won."""
    return number("원", low, high, step)


def clock(low: int, high: int, step: int = 5) -> Draw:
    """Times of day between two minutes of the day, all different while they last."""
    values = range(low, high + 1, step)

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        del used
        chosen = rng.sample(values, n) if n <= len(values) else rng.choices(values, k=n)
        return [Value(clock_text(value), value) for value in chosen]

    return drawn


def clock_text(minutes: int) -> str:
    """``오전 9시 5분``, ``낮 12시``, ``오후 3시`` for a minute of the day."""
    hour, minute = divmod(minutes % 1440, 60)
    part = "오전" if hour < 12 else "오후"  # noqa: PLR2004 - noon
    shown = f"{part} {hour % 12 or 12}시"
    return f"{shown} {minute}분" if minute else shown


def day(first: datetime.date, last: datetime.date, *, year: bool = False) -> Draw:
    """Dates between two days, all different; their number is the proleptic ordinal."""
    values = range(first.toordinal(), last.toordinal() + 1)

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        del used
        return [Value(date_text(value, year=year), value) for value in rng.sample(values, n)]

    return drawn


def date_text(ordinal: int, *, year: bool) -> str:
    """``3월 14일``, with ``2019년`` before it where asked."""
    date = datetime.date.fromordinal(ordinal)
    text = f"{date.month}월 {date.day}일"
    return f"{date.year}년 {text}" if year else text
