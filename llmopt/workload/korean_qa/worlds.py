"""Drawing an invented world and writing it down as prose, as a table or as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from llmopt.workload.korean_qa.chance import below, picks
from llmopt.workload.korean_qa.model import Field, Genre, Section, World
from llmopt.workload.korean_qa.patterns import Pattern
from llmopt.workload.korean_qa.pools import Value

__all__ = ["Body", "body", "draw_world", "group_text", "write_world"]

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


class Body(NamedTuple):
    """What a layout makes of rows: each a text of its own, with what stands between and before them."""

    opening: str
    rows: Sequence[str]
    joint: str

    def text(self) -> str:
        """All of it."""
        return self.opening + self.joint.join(self.rows)


_BETWEEN: Mapping[Section, str] = {"prose": "\n", "table": "\n\n", "list": "\n"}
"""What stands between a document's rows and its groups."""


def write_world(world: World, layout: Section, rng: Random, *, groups: bool) -> str:
    """The document's text: a title, an introduction, the rows and, where wanted, the groups."""
    genre = world.genre
    title, intro = rng.choice(genre.titles), rng.choice(genre.intros)
    rows = body(genre, layout, world.row_columns, genre.row_patterns, rng)
    text = f"{title}\n{intro}\n{rows.text()}"
    return text + group_text(world, layout, rng) if groups else text


def group_text(world: World, layout: Section, rng: Random) -> str:
    """What a document says of its groups, after its rows."""
    genre = world.genre
    return _BETWEEN[layout] + body(genre, layout, world.group_columns, genre.group_patterns, rng).text()


def body(
    genre: Genre, layout: Section, columns: Mapping[str, Sequence[Value]], patterns: Sequence[Pattern], rng: Random
) -> Body:
    """Rows or groups as the layout tells them."""
    texts = {key: [value.text for value in column] for key, column in columns.items()}
    if layout == "prose":
        return _prose(patterns, texts, rng)
    labels = [genre.field(key).label for key in columns]
    return _table(labels, texts) if layout == "table" else _list(labels, texts)


def _prose(patterns: Sequence[Pattern], columns: Mapping[str, Sequence[str]], rng: Random) -> Body:
    """One sentence a row, each by a pattern of its own."""
    told = [pattern.filler(columns) for pattern in patterns]
    rows = len(next(iter(columns.values())))
    return Body("", [told[which](row) for row, which in enumerate(below(rng, len(patterns), rows))], " ")


def _table(labels: Sequence[str], columns: Mapping[str, Sequence[str]]) -> Body:
    opening = "| " + " | ".join(labels) + " |\n|" + " --- |" * len(labels) + "\n"
    return Body(opening, ["| " + " | ".join(cells) + " |" for cells in zip(*columns.values(), strict=True)], "\n")


def _list(labels: Sequence[str], columns: Mapping[str, Sequence[str]]) -> Body:
    """One line a row: its name, then every other value after its label."""
    entry = "- %s: " + ", ".join(f"{label.replace('%', '%%')} %s" for label in labels[1:])
    return Body("", [entry % cells for cells in zip(*columns.values(), strict=True)], "\n")
