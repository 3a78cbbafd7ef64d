"""``--help`` in the reader's language, wrapped by terminal cells: a Korean character takes two."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable

import click

from llmopt.cli.lines import WIDTH, cells, wrapped
from llmopt.messages import t

__all__ = ["CellFormatter"]

NARROWEST = 50
COLUMN = 30
CLICKS_OWN = {
    "Options": "cli.help_options",
    "Commands": "cli.commands",
    "Show this message and exit.": "cli.help_help",
    "Show the version and exit.": "cli.help_version",
}
"""What click says in English by itself → our message."""


class CellFormatter(click.HelpFormatter):
    """Click's formatter with our words and widths counted in cells."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        room = width or min(shutil.get_terminal_size().columns, max_width or WIDTH)
        super().__init__(indent_increment, width=max(room, NARROWEST))

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """The line that shows how the command is called."""
        del prefix
        head = f"{t('cli.help_usage')}: {prog} "
        lines = list(wrapped(args, self.width - cells(head)))
        self.write(head + f"\n{' ' * cells(head)}".join(lines) + "\n")

    def write_heading(self, heading: str) -> None:
        """A heading in the reader's language."""
        self.write(f"{' ' * self.current_indent}{_ours(heading)}:\n")

    def write_text(self, text: str) -> None:
        """Paragraphs, indented; one that starts with a backspace character keeps its lines (click's mark)."""
        indent = " " * self.current_indent
        paragraphs = re.split(r"\n\s*\n", text.strip())
        shown = []
        for paragraph in paragraphs:
            kept = paragraph.startswith("\b")
            lines = paragraph.lstrip("\b\n").splitlines() if kept else wrapped(paragraph, self.width - len(indent))
            shown.append("\n".join(indent + line for line in lines))
        self.write("\n\n".join(shown) + "\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = COLUMN, col_spacing: int = 2) -> None:
        """Names on the left, what they mean on the right."""
        rows = list(rows)
        left = min(max(cells(name) for name, _ in rows), col_max) + col_spacing
        for name, meaning in rows:
            first = " " * self.current_indent + name
            lines = list(wrapped(_ours(meaning), self.width - self.current_indent - left))
            if not lines:
                self.write(first + "\n")
                continue
            margin = " " * (self.current_indent + left)
            gap = self.current_indent + left - cells(first)
            start = f"{first}\n{margin}" if gap < col_spacing else first + " " * gap
            self.write(start + f"\n{margin}".join(lines) + "\n")


def _ours(text: str) -> str:
    return t(CLICKS_OWN[text]) if text in CLICKS_OWN else text.replace("[default: ", f"[{t('cli.help_default')}: ")
