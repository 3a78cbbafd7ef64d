"""The words of the generator: a genre describes one kind of document, a question template one way to ask about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from llmopt.workload.korean_qa.patterns import Pattern
from llmopt.workload.korean_qa.pools import Draw, Value

__all__ = ["Ask", "Field", "Genre", "Kind", "Query", "Section", "World"]

Kind = Literal["span", "lookup", "two_hop", "date", "count", "compare", "unanswerable", "choice"]
Query = Mapping[str, Any]
"""What is asked, as plain data that a second solver can answer from the text alone; see ``questions.py``."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One column: ``label`` heads it in tables; ``kind`` is how its values are drawn (``pools.drawing``)."""

    key: str
    label: str
    draw: Draw
    kind: str = ""

    @property
    def counted(self) -> bool:
        """Whether its values are numbers with a unit, accepted without the unit, too."""
        return self.kind in {"number", "label"}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question template: its wording, and the operation with the fields it uses."""

    key: str
    kind: Kind
    text: str
    op: str
    field: str = ""
    to: str = ""
    which: Literal["max", "min", ""] = ""
    unit: str = ""
    shifts: tuple[int, ...] = ()

    @cached_property
    def pattern(self) -> Pattern:
        """The wording, compiled once."""
        return Pattern(self.text)


@dataclass(frozen=True, kw_only=True)
class Genre:
    """A kind of document: rows under ``fields`` (the first names the row), groups under ``group_fields``.

    The field named like the first group field says which group a row belongs to.
    """

    key: str
    titles: tuple[str, ...]
    intros: tuple[str, ...]
    fields: tuple[Field, ...]
    rows: tuple[str, ...]
    """Prose patterns; each tells a whole row."""
    group_fields: tuple[Field, ...]
    groups: tuple[str, ...]
    """Prose patterns; each tells a whole group."""
    asks: tuple[Ask, ...]

    @cached_property
    def row_patterns(self) -> tuple[Pattern, ...]:
        """The prose of rows, compiled once."""
        return tuple(Pattern(text) for text in self.rows)

    @cached_property
    def group_patterns(self) -> tuple[Pattern, ...]:
        """The prose of groups, compiled once."""
        return tuple(Pattern(text) for text in self.groups)

    @property
    def name(self) -> str:
        """The key of the field that names a row."""
        return self.fields[0].key

    @property
    def group(self) -> str:
        """The key of the field that names a group."""
        return self.group_fields[0].key

    @cached_property
    def _by_key(self) -> Mapping[str, Field]:
        return {field.key: field for field in (*self.fields, *self.group_fields)}

    def field(self, key: str) -> Field:
        """The row or group field of that key."""
        return self._by_key[key]


@dataclass(frozen=True, kw_only=True)
class World:
    """One invented state of affairs: a table of rows and one of groups, kept by column, as documents are written."""

    genre: Genre
    row_columns: Mapping[str, Sequence[Value]]
    group_columns: Mapping[str, Sequence[Value]]

    @cached_property
    def rows(self) -> Sequence[Mapping[str, Value]]:
        """The rows as key → value."""
        return _rows(self.row_columns)

    @cached_property
    def groups(self) -> Sequence[Mapping[str, Value]]:
        """The groups as key → value."""
        return _rows(self.group_columns)


def _rows(columns: Mapping[str, Sequence[Value]]) -> Sequence[Mapping[str, Value]]:
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


Section = Literal["prose", "table", "list"]
"""How a document is laid out."""
