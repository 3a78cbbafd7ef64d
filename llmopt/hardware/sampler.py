"""The peak and the course of an engine's memory, at less than one percent of a core."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from llmopt.hardware.devices import DeviceLibrary, DeviceUnavailable
from llmopt.hardware.machine import LiveMachine, Machine
from llmopt.hardware.tree import TreeMemory, resident_memory, shared_segments, tree_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from llmopt.records import Device

__all__ = ["MemoryTrace", "PeakSampler", "TracePoint"]

LOADING_PERIOD_S = 0.25
PERIOD_S = 1.0
_FULL_SHARE = 0.004
"""Of one core's time, what proportional readings may cost; resident readings between them cost next to nothing."""
_MOST_POINTS = 4096
_SEGMENTS_EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TracePoint:
    """One moment. ``at_s`` is on the sampler's monotonic clock."""

    at_s: float
    phase: str
    anonymous_bytes: int
    file_bytes: int
    shared_bytes: int
    device_bytes: tuple[int, ...]
    """One figure a device, in the sampler's order: our processes' where the driver tells, else its growth."""

    @property
    def host_bytes(self) -> int:
        """Everything resident in RAM."""
        return self.anonymous_bytes + self.file_bytes + self.shared_bytes

    @property
    def total_bytes(self) -> int:
        """RAM and device memory together."""
        return self.host_bytes + sum(self.device_bytes)


@dataclass(frozen=True, kw_only=True)
class MemoryTrace:
    """The course of one engine's memory. Long courses are thinned so that every peak stays."""

    points: tuple[TracePoint, ...]
    peak_bytes: int = 0
    peak_host_bytes: int = 0
    peak_anonymous_bytes: int = 0
    peak_file_bytes: int = 0
    peak_device_bytes: int = 0
    cost_share: float = 0.0
    """CPU time of the sampling thread over wall time."""
    segments: frozenset[str] = frozenset()
    """Shared-memory segments the tree was seen to hold; any that outlives it is a leak."""

    def phases(self) -> tuple[tuple[str, float, float], ...]:
        """Each phase in order with its first and last moment."""
        found: list[tuple[str, float, float]] = []
        for point in self.points:
            if found and found[-1][0] == point.phase:
                found[-1] = (point.phase, found[-1][1], point.at_s)
            else:
                found.append((point.phase, point.at_s, point.at_s))
        return tuple(found)


class PeakSampler:
    """Samples a process tree from a thread of its own, every 250 ms in the phase ``loading``, else every second.

    ``pids`` names the tree anew each time. Use as a context manager, or ``start`` and ``stop``; ``sample`` takes one
    point by hand (tests, and one last point before a stop).
    """

    def __init__(
        self,
        pids: Callable[[], Sequence[int]],
        *,
        devices: Sequence[tuple[Device, DeviceLibrary]] = (),
        machine: Machine | None = None,
        now_s: Callable[[], float] = time.monotonic,
        phase: str = "loading",
    ) -> None:
        self._pids = pids
        self._devices = devices
        self._machine = machine or LiveMachine()
        self._now_s = now_s
        self._phase = phase
        self._lock = threading.Lock()
        self._points: list[TracePoint] = []
        self._peaks = MemoryTrace(points=())
        self._thin = 1
        self._skipped = 0
        self._full_due_s = 0.0
        self._full: tuple[TreeMemory, TreeMemory] | None = None
        self._segments: frozenset[str] = frozenset()
        self._segments_due_s = 0.0
        self._baselines = tuple(self._device_used(device, library) for device, library in devices)
        self._cpu_s = 0.0
        self._began_s = now_s()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = False

    # ── running ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Self:
        """Begin sampling; returns itself."""
        self._began_s = self._now_s()
        self._thread = threading.Thread(target=self._run, name="llmopt-memory-sampler", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> MemoryTrace:
        """End sampling and return the course; the thread is gone when this returns."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self.trace()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def phase(self, name: str) -> None:
        """Name what happens from now on; a sample is taken at once, so that a short phase is seen."""
        with self._lock:
            self._phase = name
        self._wake.set()

    def trace(self) -> MemoryTrace:
        """The course so far."""
        with self._lock:
            wall = max(1e-9, self._now_s() - self._began_s)
            return replace(
                self._peaks, points=tuple(self._points), cost_share=self._cpu_s / wall, segments=self._segments
            )

    def _run(self) -> None:
        while not self._stopping:
            self.sample()
            self._wake.wait(LOADING_PERIOD_S if self._phase == "loading" else PERIOD_S)
            self._wake.clear()

    # ── one sample ─────────────────────────────────────────────────────────────────────────────────────────────────

    def sample(self) -> TracePoint:
        """Take one point now."""
        began_cpu_s = time.thread_time()
        now_s = self._now_s()
        pids = tuple(self._pids())
        memory = self._memory(pids, now_s)
        if now_s >= self._segments_due_s:
            self._segments |= shared_segments(pids)
            self._segments_due_s = now_s + _SEGMENTS_EVERY_S
        ours = frozenset(pids)
        used = tuple(
            self._device_of_tree(device, library, ours, baseline)
            for (device, library), baseline in zip(self._devices, self._baselines, strict=True)
        )
        with self._lock:
            point = TracePoint(
                at_s=now_s,
                phase=self._phase,
                anonymous_bytes=memory.anonymous_bytes,
                file_bytes=memory.file_bytes,
                shared_bytes=memory.shared_bytes,
                device_bytes=used,
            )
            self._keep(point)
            self._cpu_s += time.thread_time() - began_cpu_s
        return point

    def _memory(self, pids: tuple[int, ...], now_s: float) -> TreeMemory:
        """A proportional reading where its cost is affordable, else the last one moved by the resident change."""
        resident = resident_memory(pids, self._machine)
        changed = self._full is None or self._full[1].processes != resident.processes
        if now_s < self._full_due_s and not changed and self._full is not None:
            return _moved(self._full[0], resident, self._full[1])
        began_s = time.thread_time()
        full = tree_memory(pids, self._machine)
        cost_s = time.thread_time() - began_s
        self._full = (full, resident)
        self._full_due_s = now_s + cost_s / _FULL_SHARE
        return full

    def _keep(self, point: TracePoint) -> None:
        peaks = self._peaks
        self._peaks = MemoryTrace(
            points=(),
            peak_bytes=max(peaks.peak_bytes, point.total_bytes),
            peak_host_bytes=max(peaks.peak_host_bytes, point.host_bytes),
            peak_anonymous_bytes=max(peaks.peak_anonymous_bytes, point.anonymous_bytes),
            peak_file_bytes=max(peaks.peak_file_bytes, point.file_bytes),
            peak_device_bytes=max(peaks.peak_device_bytes, sum(point.device_bytes)),
        )
        last = self._points[-1] if self._points else None
        if last is not None and last.phase == point.phase and self._skipped < self._thin - 1:
            self._skipped += 1
            self._points[-1] = max(last, point, key=lambda each: each.total_bytes)
            return
        self._skipped = 0
        self._points.append(point)
        if len(self._points) > _MOST_POINTS:
            self._points = _thinned(self._points)
            self._thin *= 2

    # ── devices ────────────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def _device_used(device: Device, library: DeviceLibrary) -> int:
        if device.unified_memory:  # the tree's own memory already counts it
            return 0
        try:
            return library.memory(device).used_bytes
        except DeviceUnavailable:
            return 0

    def _device_of_tree(self, device: Device, library: DeviceLibrary, ours: frozenset[int], baseline: int) -> int:
        if device.unified_memory:
            return 0
        try:
            told = [holder.used_bytes for holder in library.holders(device) if holder.pid in ours]
        except DeviceUnavailable:
            told = []
        if told and all(used is not None for used in told):
            return sum(used or 0 for used in told)
        return max(0, self._device_used(device, library) - baseline)


def _moved(full: TreeMemory, now: TreeMemory, then: TreeMemory) -> TreeMemory:
    return replace(
        full,
        anonymous_bytes=max(0, full.anonymous_bytes + now.anonymous_bytes - then.anonymous_bytes),
        file_bytes=max(0, full.file_bytes + now.file_bytes - then.file_bytes),
        shared_bytes=max(0, full.shared_bytes + now.shared_bytes - then.shared_bytes),
    )


def _thinned(points: list[TracePoint]) -> list[TracePoint]:
    """Half as many points: of each pair in one phase the larger, so that no peak is lost."""
    kept: list[TracePoint] = []
    index = 0
    while index < len(points):
        pair = points[index : index + 2]
        if len(pair) == 2 and pair[0].phase == pair[1].phase:  # noqa: PLR2004 - a pair
            kept.append(max(pair, key=lambda each: each.total_bytes))
            index += 2
        else:
            kept.append(pair[0])
            index += 1
    return kept
