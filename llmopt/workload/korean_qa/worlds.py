"""Drawing an invented world and writing it down as prose, as a table or as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from llmopt.workload.korean_qa.chance import below, picks
from llmopt.workload.korean_qa.model import Field, Genre, Section, World
from llmopt.workload.korean_qa.patterns import Pattern
from llmopt.workload.korean_qa.pools import Value

__all__ = ["draw_world", "write_world"]

_GROUPS = 4
"""Groups in a world: one asked about and three of the same type beside it."""


def draw_world(genre: Genre, rows: int, rng: Random, used: set[str]) -> World:
    """A world of ``rows`` rows; names avoid ``used`` and join it."""
    groups = _drawn(genre.group_fields, min(_GROUPS, rows), rng, used)
    table = _drawn(genre.fields, rows, rng, used)
    table[genre.group] = picks(rng, groups[genre.group], rows)
    return World(genre=genre, row_columns=table, group_columns=groups)


def _drawn(fields: tuple[Field, ...], count: int, rng: Random, used: set[str]) -> dict[str, list[Value]]:
    return {field.key: field.draw(rng, count, used) for field in fields}


def write_world(world: World, layout: Section, rng: Random, *, groups: bool) -> str:
    """The document's text: a title, an introduction, the rows and, where wanted, the groups."""
    genre = world.genre
    head = f"{rng.choice(genre.titles)}\n{rng.choice(genre.intros)}"
    write = {"prose": _prose, "table": _table, "list": _list}[layout]
    return f"{head}\n{write(world, rng, groups=groups)}"


def _prose(world: World, rng: Random, *, groups: bool) -> str:
    genre = world.genre
    lines = _sentences(genre.row_patterns, _texts(world.row_columns), rng)
    if not groups:
        return lines
    return lines + "\n" + _sentences(genre.group_patterns, _texts(world.group_columns), rng)


def _sentences(patterns: Sequence[Pattern], columns: Mapping[str, Sequence[str]], rng: Random) -> str:
    """One sentence a row, each by a pattern of its own."""
    told = [pattern.filler(columns) for pattern in patterns]
    rows = len(next(iter(columns.values())))
    return " ".join(told[which](row) for row, which in enumerate(below(rng, len(patterns), rows)))


def _table(world: World, rng: Random, *, groups: bool) -> str:
    del rng
    parts = [_grid(world.genre, world.row_columns)]
    if groups:
        parts.append(_grid(world.genre, world.group_columns))
    return "\n\n".join(parts)


def _grid(genre: Genre, columns: Mapping[str, Sequence[Value]]) -> str:
    lines = ["| " + " | ".join(genre.field(key).label for key in columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(cells) + " |" for cells in zip(*_texts(columns).values(), strict=True)]
    return "\n".join(lines)


def _list(world: World, rng: Random, *, groups: bool) -> str:
    del rng
    lines = _entries(world.genre, world.row_columns)
    if groups:
        lines += _entries(world.genre, world.group_columns)
    return "\n".join(lines)


def _entries(genre: Genre, columns: Mapping[str, Sequence[Value]]) -> list[str]:
    """One line a row: its name, then every other value after its label."""
    _, *labels = (genre.field(key).label.replace("%", "%%") for key in columns)
    entry = "- %s: " + ", ".join(f"{label} %s" for label in labels)
    return [entry % cells for cells in zip(*_texts(columns).values(), strict=True)]


def _texts(columns: Mapping[str, Sequence[Value]]) -> dict[str, list[str]]:
    return {key: [value.text for value in column] for key, column in columns.items()}
