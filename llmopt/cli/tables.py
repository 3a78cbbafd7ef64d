"""Tables for people: as wide as the terminal, 80 cells where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from llmopt.cli.lines import line_width
from llmopt.report.terminal import drawn_table

__all__ = ["table"]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None) -> str:
    """The rows under their headings, folded to ``width`` cells."""
    return drawn_table(headings, rows, width or line_width())
