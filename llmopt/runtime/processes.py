"""What a process tree is doing, seen from outside: whether it makes progress, and whether a port is its own."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Activity", "StallWatch", "listens_on", "tree_activity"]

BUSY_SHARE = 0.05
"""Of one core; a process that only waits in a polling loop stays below it."""
READ_STEP_BYTES = 64 << 10
MEMORY_STEP_BYTES = 1 << 20
LOG_BYTES_PER_REQUEST = 400
"""What a server may write about each of our own readiness requests; that is no progress."""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Totals over a tree and its log at one moment."""

    at_s: float
    pids: frozenset[int]
    log_bytes: int
    cpu_s: float
    read_bytes: int
    resident_bytes: int


def tree_activity(pids: Iterable[int], log_path: Path, *, at_s: float) -> Activity:
    """Read the totals; processes that end meanwhile count as far as they could be read."""
    cpu_s, read_bytes, resident_bytes = 0.0, 0, 0
    found = set()
    for pid in pids:
        with suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            with process.oneshot():
                times = process.cpu_times()
                cpu_s += times.user + times.system
                resident_bytes += process.memory_info().rss
            found.add(pid)
            if hasattr(process, "io_counters"):
                with suppress(psutil.Error, OSError):
                    counters = process.io_counters()
                    read_bytes += getattr(counters, "read_chars", counters.read_bytes)
    log_bytes = 0
    with suppress(OSError):
        log_bytes = log_path.stat().st_size
    return Activity(
        at_s=at_s,
        pids=frozenset(found),
        log_bytes=log_bytes,
        cpu_s=cpu_s,
        read_bytes=read_bytes,
        resident_bytes=resident_bytes,
    )


class StallWatch:
    """Tells how long a tree has shown no progress: no log bytes, CPU time, disk reads, memory growth or new process."""

    def __init__(self, first: Activity) -> None:
        self._last = first
        self._moved_s = first.at_s

    def idle_s(self, now: Activity, *, own_requests: int = 0) -> float:
        """Seconds since the last progress; ``own_requests`` is how often we asked the server since the last call."""
        before, self._last = self._last, now
        spent_s = max(now.at_s - before.at_s, 1e-3)
        written = now.log_bytes - before.log_bytes
        moved = (
            now.pids != before.pids
            or written < 0  # rotated
            or written > own_requests * LOG_BYTES_PER_REQUEST
            or now.cpu_s - before.cpu_s >= BUSY_SHARE * spent_s
            or now.read_bytes - before.read_bytes >= READ_STEP_BYTES
            or now.resident_bytes - before.resident_bytes >= MEMORY_STEP_BYTES
        )
        if moved:
            self._moved_s = now.at_s
        return now.at_s - self._moved_s


def listens_on(pids: Iterable[int], port: int) -> bool | None:
    """Whether one of these processes listens on this TCP port; None where the system does not tell."""
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            continue
        except (psutil.Error, OSError):
            return None
        if any(c.laddr.port == port for c in connections if c.status == psutil.CONN_LISTEN):
            return True
    return False
