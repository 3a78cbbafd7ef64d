"""From an engine's output to a named failure: the first root cause wins, recovered warnings are none."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from llmopt.failures.catalogue import Catalogue, Role, Signature, catalogue, dialect_of
from llmopt.logs import mask
from llmopt.messages import t

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmopt.failures.advice import Advice

__all__ = ["UNKNOWN", "Ending", "Failure", "classify", "find_failure", "find_notices"]

UNKNOWN = "UNKNOWN"
_HEAD = 256 << 10
_TAIL = 1 << 20
_LAST_LINES = 30
_LINE_LENGTH = 400
_AROUND = 2000
_KILL = 9
_SIGNAL_CODES = range(129, 193)
"""Exit codes by which a shell or container reports a signal: 128 + its number."""
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_EXCEPTION = re.compile(r"^.*?\b(\w+(?:\.\w+)*(?:Error|Exception)\b: .+)$", re.MULTILINE)


class Ending(Protocol):
    """How a process ended, as the guardian reports it."""

    @property
    def code(self) -> int | None:
        """The exit code, where it exited."""
        ...

    @property
    def signal(self) -> int | None:
        """The signal that ended it."""
        ...

    @property
    def memory_kills(self) -> int:
        """Kills for lack of memory that the kernel counted in its cgroup."""
        ...


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure with its explanation in the reader's language, and what to try. All text in it is masked."""

    id: str
    category: str
    role: Role = "root"
    engine: str | None = None
    line: str = ""
    """The line that gave it away."""
    line_number: int | None = None
    last_lines: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    recovery: tuple[str, ...] = ("infeasible",)
    known: bool = True
    """Whether the catalogue explains it."""

    @property
    def is_error(self) -> bool:
        """False for a notice: the engine goes on."""
        return self.role != "notice"

    @property
    def what(self) -> str:
        """What happened."""
        return t(f"failures.{self.id}.what") if self.known else t("failures.unknown.what")

    @property
    def why(self) -> str:
        """Why it happened."""
        if self.known:
            return t(f"failures.{self.id}.why")
        if "signal" in self.values:
            return t("failures.unknown_signal.why", signal=self.values["signal"])
        if "code" in self.values:
            return t("failures.unknown_code.why", code=self.values["code"])
        return t("failures.unknown.why")

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return t(f"failures.{self.id}.remedy") if self.known else t("failures.unknown.remedy")

    def explain(self, advice: Advice | None = None) -> str:
        """Everything a user needs: what happened, why, what was done, what to do, and the lines where it is unknown."""
        parts = [t("failures.heading.what", text=self.what), t("failures.heading.why", text=self.why)]
        if advice is not None:
            parts.append(t("failures.heading.done", text=advice.text))
        parts.append(t("failures.heading.remedy", text=self.remedy))
        if self.line and self.known:
            parts.append(f"[{self.id}] {self.line}")
        if not self.known and self.last_lines:
            parts += [t("failures.heading.lines"), *(f"  {line}" for line in self.last_lines)]
        return "\n".join(parts)


@dataclass(frozen=True, kw_only=True)
class _Match:
    row: Signature
    start: int
    end: int


def classify(
    log_text: str,
    *,
    engine: str | None = None,
    exit_status: int | Ending | None = None,
    http_status: int | None = None,
    kernel_log: str = "",
    processes: Sequence[str] = (),
    locks: Sequence[str] = (),
) -> Failure:
    """Name what went wrong. Always answers: what nothing in the catalogue explains has the id ``UNKNOWN``.

    ``exit_status`` is a code (negative or 128+n for a signal) or the guardian's status. ``log_text`` before the
    engine's last "ready" line is left out: what stands there was survived. With ``http_status`` it is a body.
    """
    book = catalogue()
    text = _clean(log_text)
    code, signal, memory_kills = _ending(exit_status)
    dialect = book.dialect(engine)
    evidence = _Evidence(book, text, dialect, after=_ready_end(book, text, dialect))
    match = (
        _by_kernel(book, kernel_log, killed=signal == _KILL and memory_kills > 0)
        or evidence.root()
        or _by_names(book, dialect, processes, locks)
        or _by_exit(book, code, signal)
        or _by_http(book, text, http_status)
        or evidence.first("weak")
        or evidence.first("wrapper")
        or (evidence.first("notice") if exit_status is None else None)
    )
    if match is None:
        return _unknown(text, engine, code, signal)
    return _failure(match, text, engine)


def find_failure(log_text: str, *, engine: str | None = None) -> Failure | None:
    """The root cause in the output of an engine that may be healthy: None where there is none, or it was survived."""
    book = catalogue()
    text = _clean(log_text)
    dialect = book.dialect(engine)
    match = _Evidence(book, text, dialect, after=_ready_end(book, text, dialect)).root()
    return None if match is None else _failure(match, text, engine)


def find_notices(log_text: str, *, engine: str | None = None) -> tuple[Failure, ...]:
    """What the engine worked around by itself: to be noted with a result, because it changes what was measured."""
    text = _clean(log_text)
    book = catalogue()
    dialect = book.dialect(engine)
    found = []
    for row in book.rows:
        if row.noted and row.log is not None and row.concerns(dialect):
            hit = row.log.search(text)
            if hit is not None:
                found.append(_failure(_Match(row=row, start=hit.start(), end=hit.end()), text, engine))
    return tuple(found)


class _Evidence:
    """The matches in one log after the point ``after``."""

    def __init__(self, book: Catalogue, text: str, engine: str | None, *, after: int) -> None:
        self._text = text
        self._rows = [row for row in book.rows if row.log is not None and row.concerns(engine)]
        self._after = after
        self._recovered = self._cancelled()

    def _cancelled(self) -> dict[str, int]:
        """For each id the position up to which its matches were declared recovered."""
        found: dict[str, int] = {}
        for row in self._rows:
            if row.cancels and row.log is not None:
                hits = [hit.end() for hit in row.log.finditer(self._text, self._after)]
                for identifier in row.cancels if hits else ():
                    found[identifier] = max(found.get(identifier, 0), hits[-1])
        return found

    def _matches(self, role: Role) -> list[_Match]:
        found = []
        for row in self._rows:
            if row.role == role and row.log is not None:
                hit = row.log.search(self._text, max(self._after, self._recovered.get(row.id, 0)))
                if hit is not None:
                    found.append(_Match(row=row, start=hit.start(), end=hit.end()))
        return found

    def first(self, role: Role) -> _Match | None:
        """The match on the earliest line; on one line the longest, because more context says more."""
        return min(self._matches(role), key=self._place, default=None)

    def root(self) -> _Match | None:
        """The first root cause, or a later one that explains the same failure better."""
        matches = self._matches("root")
        chosen = min(matches, key=self._place, default=None)
        while chosen is not None:
            better = [m for m in matches if chosen.row.id in m.row.refines and m.start >= chosen.start]
            if not better:
                break
            chosen = min(better, key=self._place)
        return chosen

    def _place(self, match: _Match) -> tuple[int, int]:
        return self._text.count("\n", 0, match.start), match.start - match.end


def _by_kernel(book: Catalogue, kernel_log: str, *, killed: bool) -> _Match | None:
    if killed:
        return _Match(row=book["MEM-016"], start=0, end=0)
    hits = [(row, row.kernel.search(kernel_log)) for row in book.rows if row.kernel is not None]
    found = [(row, hit) for row, hit in hits if hit is not None]
    if not found:
        return None
    row, _ = min(found, key=lambda each: each[1].start())
    return _Match(row=row, start=0, end=0)


def _by_names(book: Catalogue, engine: str | None, processes: Iterable[str], locks: Iterable[str]) -> _Match | None:
    names, files = " ".join(processes), list(locks)
    for row in book.rows:
        if not row.concerns(engine):
            continue
        if any(name in names for name in row.process) or any(row.lock and row.lock.search(each) for each in files):
            return _Match(row=row, start=0, end=0)
    return None


def _by_exit(book: Catalogue, code: int | None, signal: int | None) -> _Match | None:
    wanted = -signal if signal is not None else code
    for row in book.rows:
        if wanted in row.exits:
            return _Match(row=row, start=0, end=0)
    return None


def _by_http(book: Catalogue, text: str, status: int | None) -> _Match | None:
    for row in book.rows:
        for wanted, words in row.http:
            if status == wanted and words in text:
                return _Match(row=row, start=0, end=0)
    return None


def _ending(status: int | Ending | None) -> tuple[int | None, int | None, int]:
    """(code, signal, kills for lack of memory) of any form of exit status."""
    if status is None:
        return None, None, 0
    if not isinstance(status, int):
        return status.code, status.signal, status.memory_kills
    if status < 0:
        return None, -status, 0
    if status in _SIGNAL_CODES:
        return None, status - 128, 0
    return status, None, 0


def _clean(text: str) -> str:
    """Without colours, and of a very long log its beginning and its end: causes stand there."""
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n…\n{text[-_TAIL:]}"
    return _ANSI.sub("", text).replace("\r\n", "\n")


def _ready_end(book: Catalogue, text: str, engine: str | None) -> int:
    """Behind the last line that says the engine is ready; 0 where it never was."""
    patterns = [p for name, p in book.ready.items() if engine is None or name == dialect_of(engine)]
    return max((hit.end() for pattern in patterns for hit in pattern.finditer(text)), default=0)


def _failure(match: _Match, text: str, engine: str | None) -> Failure:
    row = match.row
    in_log = match.end > match.start
    around = text[max(0, match.start - _AROUND) : match.end + _AROUND] if in_log else text[-_AROUND:]
    values = {name: hit.group(1) for name, pattern in row.values.items() if (hit := pattern.search(around))}
    line = ""
    if in_log:
        begin = text.rfind("\n", 0, match.start) + 1
        end = text.find("\n", match.end)
        line = mask(text[begin : end if end >= 0 else len(text)].strip())[:_LINE_LENGTH]
    return Failure(
        id=row.id,
        category=row.category,
        role=row.role,
        engine=engine,
        line=line,
        line_number=text.count("\n", 0, match.start) + 1 if in_log else None,
        last_lines=_last(text),
        values=values,
        recovery=row.recovery,
    )


def _unknown(text: str, engine: str | None, code: int | None, signal: int | None) -> Failure:
    exceptions = _EXCEPTION.findall(text)
    values: dict[str, str] = {}
    if signal is not None:
        values["signal"] = str(signal)
    elif code is not None:
        values["code"] = str(code)
    return Failure(
        id=UNKNOWN,
        category="unknown",
        known=False,
        engine=engine,
        line=mask(exceptions[-1])[:_LINE_LENGTH] if exceptions else "",
        last_lines=_last(text),
        values=values,
    )


def _last(text: str) -> tuple[str, ...]:
    lines = [line.rstrip() for line in text.splitlines() if line.strip()][-_LAST_LINES:]
    return tuple(line[:_LINE_LENGTH] for line in mask("\n".join(lines)).splitlines())
