"""How far a download is: bytes, total and time left, handed to a callback at most ten times a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Meter", "Phase", "Progress", "ProgressCallback"]

Phase = Literal["hub", "index", "verify", "convert"]
_EVERY_S = 0.1
_RATE_FROM_BYTES = 1 << 20
"""Before this much arrived a rate would only show the connection being made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One report; ``eta_s`` is None while the total or the rate is unknown."""

    phase: Phase
    what: str
    done_bytes: int
    total_bytes: int | None
    eta_s: float | None


ProgressCallback = Callable[[Progress], None]


class Meter:
    """Turns counted bytes into reports. ``start_bytes`` were there before and do not enter the rate."""

    def __init__(
        self,
        callback: ProgressCallback | None,
        *,
        phase: Phase,
        what: str,
        total_bytes: int | None,
        start_bytes: int = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._callback = callback
        self._phase: Phase = phase
        self._what = what
        self._total = total_bytes
        self._done = self._start = start_bytes
        self._now = now
        self._began_s = now()
        self._told_s = float("-inf")

    @property
    def done_bytes(self) -> int:
        """Bytes counted so far."""
        return self._done

    def add(self, count: int) -> None:
        """Count ``count`` further bytes."""
        self.reach(self._done + count)

    def reach(self, done_bytes: int) -> None:
        """Say that ``done_bytes`` are there now (never fewer than before); the last byte is always reported."""
        done_bytes = self._done = max(self._done, done_bytes)
        now_s = self._now()
        finished = self._total is not None and done_bytes >= self._total
        if self._callback is None or (now_s - self._told_s < _EVERY_S and not finished):
            return
        self._told_s = now_s
        self._callback(
            Progress(
                phase=self._phase,
                what=self._what,
                done_bytes=done_bytes,
                total_bytes=self._total,
                eta_s=self._eta(now_s),
            )
        )

    def _eta(self, now_s: float) -> float | None:
        fresh, elapsed_s = self._done - self._start, now_s - self._began_s
        if self._total is None or fresh < _RATE_FROM_BYTES or elapsed_s <= 0:
            return None
        return max(0.0, (self._total - self._done) * elapsed_s / fresh)
