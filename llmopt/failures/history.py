"""What went wrong so far: records, where they are kept, and statistics over them."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from llmopt.errors import LlmoptError
from llmopt.failures.classify import Failure, classify
from llmopt.logs import get_logger, mask
from llmopt.paths import Workspace, ensure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = [
    "FailureCount",
    "FailureRecord",
    "FailureSink",
    "History",
    "JsonLinesSink",
    "MemorySink",
    "WorkspaceSink",
    "explain_exception",
    "get_history",
    "set_history",
]

_FILE_BYTES = 2 << 20


@dataclass(frozen=True, kw_only=True)
class FailureRecord:
    """One failure that happened. ``at`` is UTC in ISO form; all text is masked."""

    at: str
    id: str
    category: str
    where: str = ""
    """Trial, command or function."""
    engine: str | None = None
    text: str = ""
    done: str = ""


@dataclass(frozen=True, kw_only=True)
class FailureCount:
    """How often a failure happened, and when last."""

    id: str
    category: str
    count: int
    last_at: str
    last_text: str


class FailureSink(Protocol):
    """Where records go. The store plugs its own in."""

    def write(self, record: FailureRecord) -> None:
        """Keep a record."""
        ...

    def read(self, limit: int) -> Sequence[FailureRecord]:
        """The newest records, oldest first."""
        ...


class MemorySink:
    """Records of this process, the newest ``most``."""

    def __init__(self, most: int = 1000) -> None:
        self._records: deque[FailureRecord] = deque(maxlen=most)

    def write(self, record: FailureRecord) -> None:
        """Keep a record."""
        self._records.append(record)

    def read(self, limit: int) -> Sequence[FailureRecord]:
        """The newest records, oldest first."""
        return tuple(self._records)[-limit:]


class JsonLinesSink:
    """Records in a file, one JSON object a line, shared by processes; at 2 MB it becomes the one old file kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, record: FailureRecord) -> None:
        """Append a record; one write call, so that lines of two processes never mix. Raises OSError."""
        ensure(self._path.parent)
        line = json.dumps(asdict(record), ensure_ascii=False) + "\n"
        if self._path.exists() and self._path.stat().st_size > _FILE_BYTES:
            self._path.replace(self._old())
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def read(self, limit: int) -> Sequence[FailureRecord]:
        """The newest records, oldest first; damaged lines are skipped."""
        records: list[FailureRecord] = []
        known = {each.name for each in fields(FailureRecord)}
        for path in (self._old(), self._path):
            try:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                continue
            for line in lines:
                try:
                    values = json.loads(line)
                    records.append(FailureRecord(**{name: values[name] for name in known & values.keys()}))
                except (ValueError, TypeError, AttributeError):
                    continue
        return tuple(records[-limit:])

    def _old(self) -> Path:
        return self._path.with_name(self._path.name + ".1")


class WorkspaceSink:
    """The file ``errors.jsonl`` among the logs of the workspace that is current when something fails."""

    def write(self, record: FailureRecord) -> None:
        """Append a record. Raises OSError."""
        self._file().write(record)

    def read(self, limit: int) -> Sequence[FailureRecord]:
        """The newest records, oldest first."""
        return self._file().read(limit)

    @staticmethod
    def _file() -> JsonLinesSink:
        return JsonLinesSink(Workspace.here().logs / "errors.jsonl")


class History:
    """Records failures into a sink; a sink that fails costs the record, never the work."""

    def __init__(self, sink: FailureSink | None = None) -> None:
        self.sink: FailureSink = sink or MemorySink()
        self._lock = threading.Lock()

    def record(self, failure: Failure, *, where: str = "", done: str = "") -> FailureRecord:
        """Keep a classified failure; returns the record."""
        text = failure.line or (failure.last_lines[-1] if failure.last_lines else "")
        record = FailureRecord(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            id=failure.id,
            category=failure.category,
            where=mask(where),
            engine=failure.engine,
            text=text,
            done=mask(done),
        )
        with self._lock:
            try:
                self.sink.write(record)
            except Exception as error:  # noqa: BLE001 - boundary: a full disk must not turn one failure into two
                get_logger(__name__).warning("a failure could not be recorded: %s", error)
        return record

    def recent(self, limit: int = 100) -> Sequence[FailureRecord]:
        """The newest records, oldest first."""
        return self.sink.read(limit)

    def statistics(self, limit: int = 10_000) -> tuple[FailureCount, ...]:
        """Failures by id, most frequent first."""
        return _counted(self.sink.read(limit))


def _counted(records: Iterable[FailureRecord]) -> tuple[FailureCount, ...]:
    groups: dict[tuple[str, str], list[FailureRecord]] = {}
    for record in records:
        groups.setdefault((record.id, record.category), []).append(record)
    counts = [
        FailureCount(id=identifier, category=category, count=len(group), last_at=group[-1].at, last_text=group[-1].text)
        for (identifier, category), group in groups.items()
    ]
    return tuple(sorted(counts, key=lambda each: (-each.count, each.id)))


_history = History(WorkspaceSink())


def get_history() -> History:
    """The history of this process: kept with the workspace's logs, and shown by ``list --type errors``."""
    return _history


def set_history(history: History) -> History:
    """Replace the history of this process; returns the one before."""
    global _history
    before, _history = _history, history
    return before


def explain_exception(error: BaseException) -> Failure:
    """An exception as a failure: our own errors by their key, known texts by the catalogue, others by their type."""
    if isinstance(error, LlmoptError):
        return Failure(id=error.key, category="llmopt", known=False, line=mask(error.what), recovery=("ask",))
    text = f"{type(error).__name__}: {error}"
    failure = classify(text)
    if failure.known and failure.is_error:
        return failure
    return Failure(id=type(error).__name__, category="python", known=False, line=mask(text), recovery=("retry:1",))
