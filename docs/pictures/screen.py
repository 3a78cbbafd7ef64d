"""A command as a person sees it: run in a terminal of 80 columns, its screen drawn as SVG (text stays text)."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from rich.cells import cell_len, set_cell_size

COLUMNS = 80
LINES = 400
CELL, ROW, SIZE = 8.4, 19, 14
PART = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(\r\n|\n|\r)|([^\x1b\r\n]+)|\x1b.")
WIDE = r"\u1100-\u11ff\u3000-\u9fff\uac00-\ud7a3\uff00-\uffef"
RUN = re.compile(rf"[{WIDE}]+|[^\s{WIDE}]+(?: [^\s{WIDE}]+)*")
FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'NanumGothicCoding', 'D2Coding', 'Noto Sans Mono CJK KR', monospace"


class Screen:
    """What a terminal shows of an output: cursor up, erased lines and line ends; colours are left out."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = 0

    def feed(self, text: str) -> None:
        """Take output in."""
        for numbers, letter, end, words in PART.findall(text):
            if letter == "A":
                self._row = max(0, self._row - int(numbers or 1))
            elif letter in "KJ" and letter:
                self.lines[self._row] = ""
                if letter == "J":
                    del self.lines[self._row + 1 :]
            elif end == "\r":
                self._at = 0
            elif end:
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
                self._at = 0
            elif words:
                self._put(words)

    _at = 0

    def _put(self, words: str) -> None:
        line = self.lines[self._row]
        before = set_cell_size(line, self._at)
        self._at += cell_len(words)
        after = line[len(set_cell_size(line, self._at)) :] if cell_len(line) > self._at else ""
        self.lines[self._row] = before + words + after

    def text(self) -> list[str]:
        """The lines without the empty ones at both ends."""
        lines = [line.rstrip() for line in self.lines]
        while lines and not lines[-1]:
            lines.pop()
        while lines and not lines[0]:
            lines.pop(0)
        return lines


def run(
    argv: Sequence[str],
    *,
    folder: Path,
    env: Mapping[str, str],
    stop_when: Callable[[Screen], bool] | None = None,
    snapshot_when: Callable[[Screen], bool] | None = None,
    patience_s: float = 290.0,
) -> tuple[list[str], list[str] | None, int]:
    """Run ``argv`` in a terminal; its last screen, the screen when ``snapshot_when`` first held, and its exit code.

    ``stop_when`` ends it as Ctrl-C does.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    size = {"COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm"}
    process = subprocess.Popen(
        argv, cwd=folder, env={**env, **size}, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    )
    os.close(follower)
    screen, kept, rest, ends = Screen(), None, b"", time.monotonic() + patience_s
    while time.monotonic() < ends:
        if not select.select([leader], [], [], 0.5)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            data = os.read(leader, 65536)
        except OSError:
            break
        text, rest = _decoded(rest + data)
        screen.feed(text)
        if kept is None and snapshot_when is not None and snapshot_when(screen):
            kept = screen.text()
        if stop_when is not None and stop_when(screen):
            os.killpg(process.pid, signal.SIGINT)
            stop_when = None
    os.close(leader)
    code = process.wait(timeout=60)
    return screen.text(), kept, code


def _decoded(data: bytes) -> tuple[str, bytes]:
    """As much of ``data`` as ends between two characters, and the rest."""
    for cut in range(4):
        try:
            return data[: len(data) - cut].decode(), data[len(data) - cut :]
        except UnicodeDecodeError:
            continue
    return data.decode(errors="replace"), b""


def svg(title: str, prompt: str, lines: Sequence[str]) -> str:
    """The screen as a picture: each run of characters is given the width of its cells, whatever font shows it."""
    typed = pieces(f"$ {prompt}")
    shown = [*typed, *lines]
    width, height = COLUMNS * CELL + 32, len(shown) * ROW + 62
    body = []
    for row, line in enumerate(shown):
        for found in RUN.finditer(line):
            x = 16 + CELL * cell_len(line[: found.start()])
            length = CELL * cell_len(found[0])
            kind = ' class="p"' if row < len(typed) else ""
            body.append(
                f'<text{kind} x="{x:.1f}" y="{row * ROW + 58}" textLength="{length:.1f}" '
                f'lengthAdjust="spacingAndGlyphs">{escape(found[0], quote=False)}</text>'
            )
    dots = "".join(
        f'<circle cx="{20 + 18 * place}" cy="18" r="5.5" fill="{colour}"/>'
        for place, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title><style>text{{font:{SIZE}px {FONTS};fill:#e6edf3;'
        f'white-space:pre}}.p{{fill:#7ee787}}</style><rect width="100%" height="100%" rx="8" fill="#0d1117"/>'
        f"{dots}{''.join(body)}</svg>\n"
    )


def pieces(line: str) -> list[str]:
    """A line as the terminal wraps it."""
    found = []
    while cell_len(line) > COLUMNS:
        cut = next(n for n in range(len(line), 0, -1) if cell_len(line[:n]) <= COLUMNS)
        found.append(line[:cut])
        line = line[cut:]
    return [*found, line]
