"""Time is handed in, so that tests need neither patching nor waiting."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

__all__ = ["Clock", "FakeClock", "MonotonicClock"]


@runtime_checkable
class Clock(Protocol):
    """A clock that never goes back."""

    def now_s(self) -> float:
        """Seconds since some fixed moment."""
        ...


class MonotonicClock:
    """The system's monotonic clock, the one the client stamps with; the same in all processes of a machine."""

    def now_s(self) -> float:
        """Seconds since boot (or another moment the system chose)."""
        return time.monotonic_ns() * 1e-9


class FakeClock:
    """A clock that moves when told."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now_s(self) -> float:
        """The time it was last set to."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move on; raises ValueError for a step back, which no monotonic clock makes."""
        if seconds < 0:
            raise ValueError("a monotonic clock does not go back")
        self._now_s += seconds
