"""A second solver: answers an item from its passage's text alone, to prove that the generator's gold answer is right.

It shares the genres' sentence patterns and labels with the generator, and nothing of how worlds are drawn or questions
are answered: rows are read back from the prose, table or list, values are parsed from their words.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmopt.records import Item
from llmopt.workload.korean_qa.genres import all_genres
from llmopt.workload.korean_qa.model import Genre
from llmopt.workload.korean_qa.patterns import Pattern

__all__ = ["read_document", "solve"]

Row = Mapping[str, str]
_UNKNOWN = "알 수 없음"
_DATE = re.compile(r"(?:(\d{4})년 )?(\d+)월 (\d+)일")
_CLOCK = re.compile(r"(오전|오후) (\d+)시(?: (\d+)분)?")
_SHAPES = {
    "day": r"(?:\d{4}년 )?\d+월 \d+일",
    "clock": r"(?:오전|오후) \d+시(?: \d+분)?",
    "number": r"[\d,]+[^.,\n]+?",
    "label": r"\d+[^.,\n]+?",
}
_ANY_YEAR = 2025


def solve(item: Item) -> str:
    """The answer as a person would find it in the text; raises LookupError where the text does not hold it."""
    genre = next(genre for genre in all_genres() if genre.key == item.meta["genre"])
    rows, groups = read_document(str(item.meta["context"]), genre)
    query: Mapping[str, Any] = item.meta["query"]
    found = _SOLVERS[query["op"]](query, genre, rows, groups)
    if not item.options:
        return found
    return "ABCD"[item.options.index(found)]


def read_document(passage: str, genre: Genre) -> tuple[list[Row], list[Row]]:
    """Rows and groups of the genre as the passage tells them, in whatever layout."""
    row_keys = [*(field.key for field in genre.fields), genre.group]
    group_keys = [field.key for field in genre.group_fields]
    rows = [
        *_from_grids(passage, genre, row_keys),
        *_from_list(passage, genre, genre.name, [*row_keys[1:-1], genre.group]),
        *_from_prose(passage, genre, genre.row_patterns),
    ]
    groups = [
        *_from_grids(passage, genre, group_keys),
        *_from_list(passage, genre, genre.group, group_keys[1:]),
        *_from_prose(passage, genre, genre.group_patterns),
    ]
    return rows, groups


def _from_grids(passage: str, genre: Genre, keys: Sequence[str]) -> Iterator[Row]:
    header = "| " + " | ".join(genre.field(key).label for key in keys) + " |"
    _, found, rest = passage.partition(header + "\n")
    for line in rest.splitlines()[1:] if found else ():
        if not line.startswith("| "):
            return
        yield dict(zip(keys, line.strip("| ").split(" | "), strict=True))


def _from_list(passage: str, genre: Genre, name: str, keys: Sequence[str]) -> Iterator[Row]:
    about = ", ".join(f"{re.escape(genre.field(key).label)} (?P<{key}>[^\\n]+?)" for key in keys)
    for match in re.finditer(rf"^- (?P<{name}>[^:\n]+): {about}$", passage, re.MULTILINE):
        yield match.groupdict()


def _from_prose(passage: str, genre: Genre, patterns: Sequence[Pattern]) -> Iterator[Row]:
    shapes = {field.key: _SHAPES[field.kind] for field in (*genre.fields, *genre.group_fields) if field.kind in _SHAPES}
    for pattern in patterns:
        for match in pattern.reader(shapes).finditer(passage):
            yield match.groupdict()


def _row(rows: Sequence[Row], key: str, value: str) -> Row:
    found = [row for row in rows if row[key] == value]
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows have {key} {value}")
    return found[0]


def _worth(text: str) -> int:
    """The number behind a value: an ordinal day, a minute of the day, or the digits."""
    if match := _DATE.fullmatch(text):
        return dt.date(int(match[1] or _ANY_YEAR), int(match[2]), int(match[3])).toordinal()
    if match := _CLOCK.fullmatch(text):
        return (int(match[2]) % 12 + (12 if match[1] == "오후" else 0)) * 60 + int(match[3] or 0)
    return int("".join(re.findall(r"\d", text)))


def _as_date(ordinal: int, like: str) -> str:
    day = dt.date.fromordinal(ordinal)
    return (f"{day.year}년 " if "년" in like else "") + f"{day.month}월 {day.day}일"


def _as_clock(minutes: int) -> str:
    hour, minute = minutes // 60, minutes % 60
    half, shown = ("오전", hour) if hour < 12 else ("오후", hour - 12)  # noqa: PLR2004 - noon
    return f"{half} {shown or 12}시" + (f" {minute}분" if minute else "")


def _get(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    return _row(rows, genre.name, query["name"])[query["field"]]


def _who(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    return _row(rows, query["field"], query["value"])[genre.name]


def _hop(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    link = _row(rows, genre.name, query["name"])[genre.group]
    return _row(groups, genre.group, link)[query["field"]]


def _count_in(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    return str(len({row[genre.name] for row in rows if row[genre.group] == query["group"]}))


def _count_over(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups, genre
    return str(sum(_worth(row[query["field"]]) >= _worth(query["value"]) for row in rows))


def _extreme(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    order = sorted(rows, key=lambda row: _worth(row[query["field"]]))
    best = order[-1] if query["which"] == "max" else order[0]
    if sum(_worth(row[query["field"]]) == _worth(best[query["field"]]) for row in rows) > 1:
        raise LookupError("more than one row is the extreme")
    return best[str(query.get("to") or genre.name)]


def _pair(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    worth = {name: _worth(_row(rows, genre.name, name)[query["field"]]) for name in (query["a"], query["b"])}
    wanted = max(worth.values()) if query["which"] == "max" else min(worth.values())
    won = [str(name) for name, value in worth.items() if value == wanted]
    if len(won) != 1:
        raise LookupError("the two are equal")
    return won[0]


def _difference(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    left, right = (_worth(_row(rows, genre.name, query[side])[query["field"]]) for side in "ab")
    return str(left - right)


def _shift_days(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    start = _get(query, genre, rows, groups)
    return _as_date(_worth(start) + query["shift"], like=start)


def _shift_minutes(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    return _as_clock(_worth(_get(query, genre, rows, groups)) + query["shift"])


def _arrive(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    row = _row(rows, genre.name, query["name"])
    return _as_clock(_worth(row[query["field"]]) + _worth(row[query["to"]]))


def _last_day(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    row = _row(rows, genre.name, query["name"])
    return _as_date(_worth(row[query["field"]]) + _worth(row[query["to"]]) - 1, like=row[query["field"]])


def _years_until(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    return str(int(query["shift"]) - _worth(_get(query, genre, rows, groups)))


def _withheld(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    _row(rows, genre.name, query["name"])
    return _UNKNOWN


def _absent(query: Mapping[str, Any], genre: Genre, rows: list[Row], groups: list[Row]) -> str:
    del groups
    if any(row[genre.name] == query["stranger"] for row in rows):
        raise LookupError("the stranger is in the text")
    return _UNKNOWN


_SOLVERS: Mapping[str, Callable[[Mapping[str, Any], Genre, list[Row], list[Row]], str]] = {
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
