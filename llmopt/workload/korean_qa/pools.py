"""Invented names and drawn values: nothing here names a real person, company or event.

Names with and without a final consonant are mixed. Every value ends in a Hangul syllable.
"""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from llmopt.workload.korean_qa.chance import below, distinct, shuffled

__all__ = ["Draw", "Value", "clock_text", "date_text", "drawing"]


class Value(NamedTuple):
    """A cell of a world: its text, and the number behind it (0 for names)."""

    text: str
    number: int


Draw = Callable[[Random, int, set[str]], list[Value]]
"""Draws ``n`` values; names avoid, and then join, the set of names already used in the passage."""

_NOON = 12


class _Parts(NamedTuple):
    surnames: str
    first: str
    second: str
    stems: tuple[str, ...]


@cache
def _parts() -> _Parts:
    with Path(__file__).with_name("names.toml").open("rb") as file:
        read = tomllib.load(file)
    stems = tuple(read["stems"].split())
    return _Parts(read["surnames"], read["first_syllables"], read["second_syllables"], stems)


def drawing(spec: Mapping[str, Any]) -> Draw:
    """The drawing function a field's ``draw`` names, with the field's other keys as its arguments."""
    return _DRAWS[spec["draw"]](spec)


def _person(spec: Mapping[str, Any]) -> Draw:
    """Korean personal names: a surname and two syllables."""
    del spec
    surnames, firsts, seconds, _ = _parts()
    given = tuple(first + second for first in firsts for second in seconds if first != second)
    size = len(given)

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        found: list[Value] = []
        while len(found) < n:
            for number in below(rng, len(surnames) * size, n - len(found)):
                name = surnames[number // size] + given[number % size]
                if name not in used:
                    used.add(name)
                    found.append(Value(name, 0))
        return found

    return drawn


def _combined(spec: Mapping[str, Any]) -> Draw:
    """Names made of a head (a stem where none are given) and a tail; no head is used twice while others last."""
    heads, tails = tuple(spec.get("heads") or _parts().stems), tuple(spec["tails"])
    joint = spec.get("joint", "")
    made = {head: [None if head.endswith(t[0]) else Value(f"{head}{joint}{t}", 0) for t in tails] for head in heads}

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        found: list[Value] = []
        tried = 0
        order = shuffled(rng, heads)
        while len(found) < n:
            for place in below(rng, len(tails), n - len(found)):
                head = order[tried % len(order)]
                tried += 1
                name = made[head][place]
                if name is not None and name.text not in used and (head not in used or tried > len(order)):
                    used.add(name.text)
                    used.add(head)
                    found.append(name)
        return found

    return drawn


def _one_of(spec: Mapping[str, Any]) -> Draw:
    """A few distinct names out of a fixed list (departments, rooms)."""
    texts = tuple(spec["texts"])

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        del used
        return [Value(text, 0) for text in rng.sample(texts, n)]

    return drawn


def _number(spec: Mapping[str, Any]) -> Draw:
    """Whole numbers with a unit (``12,000원``), all different while they last; a ``label`` has no separator."""
    values = range(spec["low"], spec["high"] + 1, spec.get("step", 1))
    unit, separator = spec["unit"], "" if spec["draw"] == "label" else ","
    return _out_of(values, lambda value: f"{value:{separator}}{unit}")


def _clock(spec: Mapping[str, Any]) -> Draw:
    """Times of day between two, given as ``08:30``; their number is the minute of the day."""
    low, high = (int(text[:2]) * 60 + int(text[3:]) for text in (spec["low"], spec["high"]))
    return _out_of(range(low, high + 1, spec["step"]), clock_text)


def _day(spec: Mapping[str, Any]) -> Draw:
    """Dates between two days; their number is the proleptic ordinal."""
    values = range(spec["low"].toordinal(), spec["high"].toordinal() + 1)
    year = spec.get("year", False)
    return _out_of(values, lambda value: date_text(value, year=year))


_DRAWS: Mapping[str, Callable[[Mapping[str, Any]], Draw]] = {
    "person": _person,
    "combined": _combined,
    "one_of": _one_of,
    "number": _number,
    "label": _number,
    "clock": _clock,
    "day": _day,
}


def _out_of(values: range, text: Callable[[int], str]) -> Draw:
    """Draws numbers of a range, all different while they last, each written once."""
    value = lru_cache(maxsize=None)(lambda place: Value(text(values[place]), values[place]))
    size = len(values)

    def drawn(rng: Random, n: int, used: set[str]) -> list[Value]:
        del used
        return [*map(value, distinct(rng, size, n) if n <= size else rng.choices(range(size), k=n))]

    return drawn


def clock_text(minutes: int) -> str:
    """``오전 9시 5분`` or ``오후 3시`` for a minute of the day."""
    hour, minute = divmod(minutes, 60)
    shown = f"{'오전' if hour < _NOON else '오후'} {hour % _NOON or _NOON}시"
    return f"{shown} {minute}분" if minute else shown


def date_text(ordinal: int, *, year: bool) -> str:
    """``3월 14일``, with ``2019년`` before it where asked."""
    date = dt.date.fromordinal(ordinal)
    text = f"{date.month}월 {date.day}일"
    return f"{date.year}년 {text}" if year else text
