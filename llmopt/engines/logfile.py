"""Reading an engine's log: its last lines for people, its text for classification, a value it announces."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["find_in_log", "log_text", "tail"]

HEAD_BYTES = 64 << 10
TAIL_BYTES = 1 << 20
GAP = "\n[…]\n"


def log_text(path: Path) -> str:
    """The log's beginning and end (all of it where it is short), the older generation included; empty without a log."""
    return "".join(_ends(part) for part in (path.with_name(f"{path.name}.1"), path))


def _ends(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            if size <= HEAD_BYTES + TAIL_BYTES:
                return file.read().decode("utf-8", "replace")
            head = file.read(HEAD_BYTES)
            file.seek(size - TAIL_BYTES)
            return head.decode("utf-8", "replace") + GAP + file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def tail(path: Path, lines: int = 30) -> str:
    """The last ``lines`` lines that say something."""
    kept = [line.rstrip() for line in log_text(path).splitlines() if line.strip()]
    return "\n".join(kept[-lines:])


def find_in_log(path: Path, pattern: str) -> str | None:
    """The first group of the first match of ``pattern``; None while there is none."""
    found = re.search(pattern, log_text(path))
    return found.group(1) if found else None
