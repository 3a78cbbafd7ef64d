"""What a report says, before it is put into a format: sections of sentences, tables, charts and code.

A chart cannot be made without the table that says the same, so that no reader needs to see, or to run scripts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Block", "Cell", "Chart", "Code", "Document", "Marked", "Panel", "Section", "Table", "Text", "plain"]

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class Marked:
    """A text with what it lost and gained against another one."""

    spans: tuple[tuple[str, Literal["same", "gone", "new"]], ...]

    @classmethod
    def between(cls, before: str, after: str) -> Marked:
        """``after`` with its differences from ``before``, word by word."""
        old, new = _WORDS.findall(before), _WORDS.findall(after)
        spans: list[tuple[str, Literal["same", "gone", "new"]]] = []
        for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if kind == "equal":
                spans.append(("".join(new[c:d]), "same"))
                continue
            if b > a:
                spans.append(("".join(old[a:b]), "gone"))
            if d > c:
                spans.append(("".join(new[c:d]), "new"))
        return cls(spans=tuple(spans))


Cell: TypeAlias = str | Marked


def plain(cell: Cell) -> str:
    """The text of a cell as it is now, without marks."""
    return cell if isinstance(cell, str) else "".join(text for text, kind in cell.spans if kind != "gone")


@dataclass(frozen=True, kw_only=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Code:
    """Something to copy."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under headings; the first cell of a row names it. Of a ``long`` one plain text shows the beginning only."""

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    long: bool = False
    alike: frozenset[int] = frozenset()
    """Rows that say nothing new (the same on every side); a page can hide them."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture: traces for plotly, axes, and what it shows in words."""

    title: str
    alt: str
    traces: Sequence[Mapping[str, Any]]
    x: Mapping[str, Any]
    y: Mapping[str, Any]
    bands: Sequence[tuple[float, float, str]] = ()
    """Named stretches of the x axis."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Panels side by side, and the table that says the same."""

    panels: Sequence[Panel]
    table: Table


Block: TypeAlias = Text | Code | Table | Chart


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A report in one language: what may be claimed first, then everything that supports it."""

    title: str
    claims: Sequence[str]
    sections: Sequence[Section]
    footer: str
