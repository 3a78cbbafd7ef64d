"""Lines for people: widths in terminal cells, as a Korean character takes two of them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from unicodedata import east_asian_width

__all__ = ["WIDTH", "cells", "fitted", "line_width", "wrapped"]

WIDTH = 80
"""Help is never wider than this, and nothing is where no terminal says how wide it is."""


def cells(text: str) -> int:
    """How many terminal cells ``text`` takes."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def line_width() -> int:
    """As wide as the terminal; 80 cells where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH


def wrapped(text: str, width: int) -> Iterator[str]:
    """The words of ``text`` in lines of at most ``width`` cells; only a longer word, such as a path, stands out."""
    line = ""
    for word in text.split():
        if line and cells(line) + 1 + cells(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    if line:
        yield line


def fitted(text: str, indent: int = 0, *, width: int | None = None) -> str:
    """``text`` behind ``indent`` blanks; what does not fit goes on two blanks further in."""
    room = (width or line_width()) - indent
    shown = []
    for line in text.splitlines():
        if cells(line) <= room:
            shown.append(" " * indent + line)
            continue
        first, *rest = wrapped(line, room - 2)
        shown += [" " * indent + first, *(" " * (indent + 2) + more for more in rest)]
    return "\n".join(shown)
