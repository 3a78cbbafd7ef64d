"""Text for a terminal: Korean characters take two cells, and nothing that need not be copied is wider than it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

__all__ = ["WIDTH", "cells", "drawn", "drawn_table", "folded"]

WIDTH = 80


def cells(text: str) -> int:
    """How many cells of a terminal a text takes."""
    from rich.cells import cell_len  # noqa: PLC0415 - only where something is drawn

    return cell_len(text)


def drawn_table(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH, *, title: str = "") -> str:
    """Rows under their headings, folded to ``width`` cells."""
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="", title=title or None, title_justify="left",
                  title_style="")  # fmt: skip
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return "\n".join(drawn([table], width))


def folded(sentences: Sequence[str], width: int = WIDTH) -> list[str]:
    """Sentences in lines of at most ``width`` cells."""
    return drawn(sentences, width) if sentences else []


def drawn(things: Sequence[Any], width: int = WIDTH) -> list[str]:
    """What rich makes of ``things``, as plain lines."""
    from rich.console import Console  # noqa: PLC0415 - only where something is drawn

    console = Console(file=io.StringIO(), width=width, highlight=False, emoji=False, markup=False, color_system=None)
    for thing in things:
        console.print(thing)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]
