"""Tables for people: as wide as the terminal, 80 cells where there is none."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from llmopt.report.terminal import WIDTH, drawn_table

__all__ = ["table"]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """The rows under their headings, folded to ``width`` cells."""
    return drawn_table(headings, rows, width or (shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH))
