"""Drawing an invented world and writing it down as prose, as a table or as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from llmopt.workload.korean_qa.model import Field, Genre, Section, World
from llmopt.workload.korean_qa.pools import Value

__all__ = ["draw_world", "write_world"]

_GROUPS = 4
"""Groups in a world: one asked about and three of the same type beside it."""


def draw_world(genre: Genre, rows: int, rng: Random, used: set[str]) -> World:
    """A world of ``rows`` rows; names avoid ``used`` and join it."""
    groups = _columns(genre.group_fields, min(_GROUPS, rows), rng, used)
    table = _columns(genre.fields, rows, rng, used)
    joined: list[Mapping[str, Value]] = []
    for row in table:
        row[genre.group] = rng.choice(groups)[genre.group]
        joined.append(row)
    return World(genre=genre, rows=joined, groups=groups)


def _columns(fields: tuple[Field, ...], count: int, rng: Random, used: set[str]) -> list[dict[str, Value]]:
    columns = [field.draw(rng, count, used) for field in fields]
    keys = [field.key for field in fields]
    return [dict(zip(keys, cells, strict=True)) for cells in zip(*columns, strict=True)]


def write_world(world: World, layout: Section, rng: Random, *, groups: bool) -> str:
    """The document's text: a title, an introduction, the rows and, where wanted, the groups."""
    genre = world.genre
    head = f"{rng.choice(genre.titles)}\n{rng.choice(genre.intros)}"
    write = {"prose": _prose, "table": _table, "list": _list}[layout]
    return f"{head}\n{write(world, rng, groups=groups)}"


def _prose(world: World, rng: Random, *, groups: bool) -> str:
    genre = world.genre
    lines = [rng.choice(genre.row_patterns).fill(_texts(row)) for row in world.rows]
    if not groups:
        return " ".join(lines)
    about = " ".join(rng.choice(genre.group_patterns).fill(_texts(group)) for group in world.groups)
    return " ".join(lines) + "\n" + about


def _table(world: World, rng: Random, *, groups: bool) -> str:
    del rng
    genre = world.genre
    keys = [*(field.key for field in genre.fields), genre.group]
    parts = [_grid(genre, keys, world.rows)]
    if groups:
        parts.append(_grid(genre, [field.key for field in genre.group_fields], world.groups))
    return "\n\n".join(parts)


def _grid(genre: Genre, keys: list[str], rows: Sequence[Mapping[str, Value]]) -> str:
    lines = ["| " + " | ".join(genre.field(key).label for key in keys) + " |", "|" + " --- |" * len(keys)]
    lines += ["| " + " | ".join(row[key].text for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def _list(world: World, rng: Random, *, groups: bool) -> str:
    del rng
    genre = world.genre
    keys = [*(field.key for field in genre.fields[1:]), genre.group]
    lines = [_entry(genre, genre.name, keys, row) for row in world.rows]
    if groups:
        others = [field.key for field in genre.group_fields[1:]]
        lines += [_entry(genre, genre.group, others, group) for group in world.groups]
    return "\n".join(lines)


def _entry(genre: Genre, name: str, keys: list[str], row: Mapping[str, Value]) -> str:
    return f"- {row[name].text}: " + ", ".join(f"{genre.field(key).label} {row[key].text}" for key in keys)


def _texts(row: Mapping[str, Value]) -> dict[str, str]:
    return {key: value.text for key, value in row.items()}
