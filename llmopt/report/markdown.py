"""A report as Markdown, for a repository or a ticket: the tables of every chart, without the charts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from llmopt.messages import t
from llmopt.report.document import Block, Cell, Chart, Code, Document, Table, Text, plain

__all__ = ["markdown"]

MOST_ROWS = 20
"""Rows shown of a long table; the page and the raw samples have all of them."""
MOST_CHARACTERS = 160
SPECIAL = re.compile(r"([\\|`*_<>\[\]#~])")


def markdown(document: Document) -> str:
    """The whole report."""
    parts = [f"# {_escaped(document.title)}", *map(_escaped, document.claims)]
    for section in document.sections:
        parts.append(f"## {_escaped(section.title)}")
        parts += [text for block in section.blocks for text in _block(block)]
    parts.append(_escaped(document.footer))
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        if block.text:
            yield _escaped(block.text)
    elif isinstance(block, Code):
        yield f"```sh\n{block.text}\n```"
    else:
        yield from _table(block.table if isinstance(block, Chart) else block)


def _table(table: Table) -> Iterator[str]:
    rows = table.rows[:MOST_ROWS] if table.long else table.rows
    yield f"*{_escaped(table.caption)}*"
    yield "\n".join([_line(table.headings), _line(["---"] * len(table.headings), raw=True), *map(_line, rows)])
    if len(rows) < len(table.rows):
        yield _escaped(t("report.rows_left_out", count=len(table.rows) - len(rows)))


def _line(cells: Sequence[Cell], *, raw: bool = False) -> str:
    return "| " + " | ".join(str(cell) if raw else _cell(cell) for cell in cells) + " |"


def _cell(cell: Cell) -> str:
    text = " ".join(plain(cell).split())
    return _escaped(text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…")


def _escaped(text: str) -> str:
    """Text as text: nothing a model answered becomes markup."""
    return SPECIAL.sub(r"\\\1", text)
