"""Putting a question to a world: its text, its accepted answers, and the query a second solver can answer alone.

Operations (``Query["op"]``): ``get`` a field of a row · ``who`` has a value · ``hop`` from a row over its group to a
field of the group · ``count_in`` a group · ``count_over`` a value · ``extreme`` row · ``pair`` of rows ·
``difference`` of two rows · ``shift_days`` / ``shift_minutes`` of a field · ``arrive`` (time plus duration) ·
``last_day`` (date plus days, the first included) · ``years_until`` a year · ``withheld``, ``absent`` (not in the text).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from llmopt.workload.korean_qa.chance import shuffled
from llmopt.workload.korean_qa.model import Ask, Field, World
from llmopt.workload.korean_qa.pools import Value, clock_text, date_text

__all__ = ["UNKNOWN", "Question", "pose"]

UNKNOWN = "알 수 없음"
_DAY = 1440


@dataclass(frozen=True, kw_only=True)
class Question:
    """``distractors`` are the wrong values of the same type; ``solution`` shows how the answer is found."""

    text: str
    answers: tuple[str, ...]
    query: Mapping[str, Any]
    distractors: tuple[str, ...] = ()
    solution: str = ""

    def knowing(self, **facts: Any) -> Question:
        """The question with further facts in its query, which the text states in words."""
        return replace(self, query={**self.query, **facts})


def pose(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    """The question of this template for this world, or None where the drawn world does not allow it."""
    return _OPERATIONS[ask.op](ask, world, rng, passage)


def _question(ask: Ask, slots: Mapping[str, str], answers: Sequence[str], **rest: Any) -> Question:
    query = {"op": ask.op, **{k: v for k, v in (("field", ask.field), ("to", ask.to), ("which", ask.which)) if v}}
    return Question(text=ask.pattern.fill(slots), answers=tuple(answers), query=query | dict(slots), **rest)


def _row_for(ask: Ask, world: World, rng: Random, passage: str, key: str) -> Mapping[str, Value] | None:
    """A random row; for spans one whose answer stands in the text exactly once."""
    rows = shuffled(rng, world.rows)
    if ask.kind != "span":
        return rows[0]
    return next((row for row in rows if passage.count(row[key].text) == 1), None)


def _get(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    row = _row_for(ask, world, rng, passage, ask.field)
    if row is None:
        return None
    found = row[ask.field]
    others = _others(world.rows, ask.field, found)
    name = row[world.genre.name].text
    solution = f"{name} - {world.genre.field(ask.field).label}: {found.text}"
    return _question(
        ask, {"name": name}, _spellings(world.genre.field(ask.field), found), distractors=others, solution=solution
    )


def _who(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    key = world.genre.name
    row = _row_for(ask, world, rng, passage, key)
    if row is None or sum(other[ask.field] == row[ask.field] for other in world.rows) > 1:
        return None
    name, value = row[key].text, row[ask.field].text
    solution = f"{world.genre.field(ask.field).label} {value}: {name}"
    return _question(ask, {"value": value}, (name,), distractors=_others(world.rows, key, row[key]), solution=solution)


def _hop(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    row = rng.choice(world.rows)
    link = row[world.genre.group]
    found = next(group[ask.field] for group in world.groups if group[world.genre.group] == link)
    name = row[world.genre.name].text
    about = world.genre.field(ask.field)
    solution = f"{name} → {link.text} → {about.label}: {found.text}"
    return _question(
        ask,
        {"name": name},
        _spellings(about, found),
        distractors=_others(world.groups, ask.field, found),
        solution=solution,
    )


def _count_in(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    group = rng.choice(world.groups)[world.genre.group]
    members = [row[world.genre.name].text for row in world.rows if row[world.genre.group] == group]
    if not members:
        return None
    return _counted(ask, {"group": group.text}, members)


def _count_over(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    bound = rng.choice(world.rows)[ask.field]
    members = [row[world.genre.name].text for row in world.rows if row[ask.field].number >= bound.number]
    return _counted(ask, {"value": bound.text}, members)


def _counted(ask: Ask, slots: Mapping[str, str], members: Sequence[str]) -> Question:
    count = len(members)
    solution = f"{', '.join(members)} → {count}{ask.unit}"
    return _question(ask, slots, (f"{count}{ask.unit}", str(count)), solution=solution)


def _extreme(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del rng, passage
    pick = max if ask.which == "max" else min
    best = pick(world.rows, key=lambda row: row[ask.field].number)
    if sum(row[ask.field].number == best[ask.field].number for row in world.rows) > 1:
        return None
    target = ask.to or world.genre.name
    found = best[target]
    solution = ""
    if len(world.rows) <= _SHORT:
        shown = ", ".join(f"{row[world.genre.name].text} {row[ask.field].text}" for row in world.rows)
        solution = f"{shown} → {best[world.genre.name].text}"
    answers = _spellings(world.genre.field(target), found)
    return _question(ask, {}, answers, distractors=_others(world.rows, target, found), solution=solution)


def _pair(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    one, two = rng.sample(list(world.rows), 2)
    left, right = one[ask.field], two[ask.field]
    if left.number == right.number:
        return None
    wins = one if (left.number > right.number) == (ask.which == "max") else two
    names = [row[world.genre.name].text for row in (one, two)]
    won = wins[world.genre.name].text
    solution = f"{names[0]} {left.text}, {names[1]} {right.text} → {won}"
    others = _others(world.rows, world.genre.name, wins[world.genre.name])
    return _question(ask, {"a": names[0], "b": names[1]}, (won,), distractors=others, solution=solution)


def _difference(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    two = sorted(rng.sample(list(world.rows), 2), key=lambda row: row[ask.field].number)
    low, high = (row[ask.field].number for row in two)
    if low == high:
        return None
    slots = {"a": two[1][world.genre.name].text, "b": two[0][world.genre.name].text}
    gap = f"{high - low:,}{ask.unit}"
    solution = f"{high:,} - {low:,} = {high - low:,}"
    return _question(ask, slots, (gap, str(high - low)), solution=solution)


def _shift_days(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    row, by = rng.choice(world.rows), rng.choice(ask.shifts)
    start = row[ask.field]
    with_year = "년" in start.text
    end = date_text(start.number + by, year=with_year)
    slots = {"name": row[world.genre.name].text, "by": f"{abs(by)}일"}
    solution = f"{start.text} {'+' if by > 0 else '-'} {abs(by)}일 = {end}"
    answers = (end, end.split("년 ")[-1]) if with_year and _same_year(start.text, end) else (end,)
    question = _question(ask, slots, answers, solution=solution)
    return question.knowing(shift=by)


def _shift_minutes(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    row, by = rng.choice(world.rows), rng.choice(ask.shifts)
    start = row[ask.field]
    if start.number + by >= _DAY:
        return None
    slots = {"name": row[world.genre.name].text, "by": f"{by}분"}
    return _clock_answer(ask, slots, start, by).knowing(shift=by)


def _arrive(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    row = rng.choice(world.rows)
    start, by = row[ask.field], row[ask.to].number
    if start.number + by >= _DAY:
        return None
    return _clock_answer(ask, {"name": row[world.genre.name].text}, start, by)


def _clock_answer(ask: Ask, slots: Mapping[str, str], start: Value, by: int) -> Question:
    end = Value(clock_text(start.number + by), start.number + by)
    solution = f"{start.text} + {by}분 = {end.text}"
    return _question(ask, slots, (end.text,), solution=solution)


def _last_day(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    row = rng.choice(world.rows)
    start, days = row[ask.field], row[ask.to].number
    end = date_text(start.number + days - 1, year="년" in start.text)
    solution = f"{start.text} + {days}일 - 1일 = {end}"
    return _question(ask, {"name": row[world.genre.name].text}, (end,), solution=solution)


def _years_until(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    row, until = rng.choice(world.rows), ask.shifts[0]
    years = until - row[ask.field].number
    solution = f"{until} - {row[ask.field].number} = {years}"
    question = _question(
        ask, {"name": row[world.genre.name].text}, (f"{years}{ask.unit}", str(years)), solution=solution
    )
    return question.knowing(shift=until)


def _withheld(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    del passage
    name = rng.choice(world.rows)[world.genre.name].text
    return _question(ask, {"name": name}, (UNKNOWN,), solution="글에 나와 있지 않다.")


def _absent(ask: Ask, world: World, rng: Random, passage: str) -> Question | None:
    taken = {row[world.genre.name].text for row in world.rows}
    stranger = world.genre.fields[0].draw(rng, 1, set(taken))[0].text
    if stranger in passage:
        return None
    return _question(ask, {"stranger": stranger}, (UNKNOWN,), solution="글에 나와 있지 않다.")


_OPERATIONS: Mapping[str, Callable[[Ask, World, Random, str], Question | None]] = {
    "get": _get,
    "who": _who,
    "hop": _hop,
    "count_in": _count_in,
    "count_over": _count_over,
    "extreme": _extreme,
    "pair": _pair,
    "difference": _difference,
    "shift_days": _shift_days,
    "shift_minutes": _shift_minutes,
    "arrive": _arrive,
    "last_day": _last_day,
    "years_until": _years_until,
    "withheld": _withheld,
    "absent": _absent,
}
_SHORT = 8
"""A working that names every row is written only for short documents."""


def _others(rows: Sequence[Mapping[str, Value]], key: str, found: Value) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row[key].text for row in rows if row[key].text != found.text))


def _spellings(about: Field, value: Value) -> tuple[str, ...]:
    return (value.text, str(value.number)) if about.counted else (value.text,)


def _same_year(start: str, end: str) -> bool:
    return start.split("년", 1)[0] == end.split("년", 1)[0]
