"""Tables for people: Korean characters take two cells, and nothing is wider than the terminal."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence

__all__ = ["table"]

NARROW = 80


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """The rows under their headings, folded to ``width`` cells (the terminal's, 80 where there is none)."""
    from rich.console import Console
    from rich.table import Table

    cells = width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else NARROW)
    console = Console(file=io.StringIO(), width=cells, highlight=False, emoji=False, markup=False, color_system=None)
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    for heading in headings:
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())
