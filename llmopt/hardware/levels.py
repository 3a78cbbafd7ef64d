"""Four memory levels, judged against the plan: SAFE, WARNING, CRITICAL and EMERGENCY, with what is done at each."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol, Self

from llmopt.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = [
    "DeviceReading",
    "LevelChange",
    "MemoryActions",
    "MemoryLevel",
    "MemoryLimits",
    "MemoryPlan",
    "MemoryReading",
    "MemoryWatch",
    "device_level",
    "host_level",
]

_MIB = 1 << 20
_GIB = 1 << 30


class MemoryLevel(IntEnum):
    """How close memory is to its end; comparable."""

    SAFE = 0
    WARNING = 1
    CRITICAL = 2
    EMERGENCY = 3


@dataclass(frozen=True, kw_only=True)
class MemoryLimits:
    """Where the levels begin.

    Host levels are shares of usable RAM, but never more than a fixed amount: a twentieth of 2 TB is no emergency.
    """

    over_plan: tuple[float, float, float] = (0.02, 0.05, 0.08)
    """Use above the plan, as a share of it."""
    device_free_bytes: tuple[int, int] = (_GIB, 256 * _MIB)
    """Free device memory: WARNING beyond the plan, EMERGENCY now."""
    foreign_growth_bytes: int = 512 * _MIB
    """Growth of another process on our device that makes it CRITICAL."""
    host_free: tuple[float, float, float] = (0.20, 0.10, 0.05)
    host_free_most_bytes: tuple[int, int, int] = (16 * _GIB, 8 * _GIB, 2 * _GIB)
    pressure_some: float = 10.0
    """Percent of time some task waited for memory in the last ten seconds (PSI) that makes a WARNING."""
    pressure_full: tuple[float, float] = (5.0, 20.0)
    """Percent of time every task waited: CRITICAL, EMERGENCY."""
    calm_s: float = 5.0
    """How long it must stay lower before the level falls."""

    @classmethod
    def safe(cls) -> MemoryLimits:
        """The limits of ``--safe``: every level begins earlier."""
        return cls(
            over_plan=(0.0, 0.02, 0.05),
            device_free_bytes=(2 * _GIB, 512 * _MIB),
            host_free=(0.35, 0.20, 0.10),
            host_free_most_bytes=(24 * _GIB, 12 * _GIB, 4 * _GIB),
        )


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What was planned to be used on each device (by uuid), whoever uses it; a device without a plan has no share."""

    device_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DeviceReading:
    """One device now."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    foreign_growth_bytes: int = 0
    """How much other processes grew since the watch began, where they can be told from ours, and lastingly."""
    critical_fault: int | None = None
    allocation_failed: bool = False

    @property
    def roomy(self) -> bool:
        """Whether more than a tenth is free: being over a plan that was too small is then no danger."""
        return self.free_bytes > self.total_bytes // 10


@dataclass(frozen=True, kw_only=True)
class MemoryReading:
    """Everything a level is judged by."""

    host_total_bytes: int
    host_available_bytes: int
    pressure_some: float = 0.0
    pressure_full: float = 0.0
    out_of_memory_kills: int = 0
    """Kills counted by our cgroup since the watch began."""
    swap_growth_bytes: int = 0
    devices: Mapping[str, DeviceReading] = field(default_factory=dict)


def device_level(reading: DeviceReading, planned_bytes: int | None, limits: MemoryLimits) -> MemoryLevel:
    """The level of one device.

    Being over the plan is dangerous only where room runs out: with more than a tenth of the device free, a plan that
    was too small is a WARNING and no reason to stop a trial.
    """
    warning_free, emergency_free = limits.device_free_bytes
    warning_free = min(warning_free, reading.total_bytes // 20)
    over = (reading.used_bytes - planned_bytes) / planned_bytes if planned_bytes else 0.0
    past_plan = planned_bytes is None or over > limits.over_plan[0]
    if reading.allocation_failed or reading.critical_fault is not None:
        return MemoryLevel.EMERGENCY
    if reading.free_bytes < emergency_free and past_plan:
        return MemoryLevel.EMERGENCY
    level = MemoryLevel(sum(over > limit for limit in limits.over_plan))
    if reading.roomy:
        level = min(level, MemoryLevel.WARNING)
    if reading.foreign_growth_bytes > limits.foreign_growth_bytes:
        level = max(level, MemoryLevel.CRITICAL)
    left = reading.total_bytes - max(reading.used_bytes, planned_bytes or 0)
    if left < warning_free:
        level = max(level, MemoryLevel.WARNING)
    return level


def host_level(reading: MemoryReading, limits: MemoryLimits) -> MemoryLevel:
    """The level of RAM."""
    bounds = [
        min(share * reading.host_total_bytes, most)
        for share, most in zip(limits.host_free, limits.host_free_most_bytes, strict=True)
    ]
    level = MemoryLevel(sum(reading.host_available_bytes < bound for bound in bounds))
    critical, emergency = limits.pressure_full
    if reading.pressure_some > limits.pressure_some or reading.swap_growth_bytes > 256 * _MIB:
        level = max(level, MemoryLevel.WARNING)
    if reading.pressure_full > critical:
        level = max(level, MemoryLevel.CRITICAL)
    if reading.pressure_full > emergency or reading.out_of_memory_kills > 0:
        level = MemoryLevel.EMERGENCY
    return level


@dataclass(frozen=True, kw_only=True)
class LevelChange:
    """The level moved; ``where`` is ``host`` or the uuid of the device that decides."""

    before: MemoryLevel
    after: MemoryLevel
    where: str
    reading: MemoryReading
    at_s: float

    def __str__(self) -> str:
        """The change and the figures behind it, for logs and the details of a failure."""
        now = self.reading
        host = (
            f"host {now.host_available_bytes / _GIB:.2f} of {now.host_total_bytes / _GIB:.2f} GiB free, "
            f"pressure {now.pressure_some:g}/{now.pressure_full:g} %, kills {now.out_of_memory_kills}, "
            f"swap +{now.swap_growth_bytes / _GIB:.2f} GiB"
        )
        devices = [
            f"{uuid} {device.used_bytes / _GIB:.2f} of {device.total_bytes / _GIB:.2f} GiB used, "
            f"others +{device.foreign_growth_bytes / _GIB:.2f} GiB"
            + (f", fault {device.critical_fault}" if device.critical_fault is not None else "")
            + (", an allocation failed" if device.allocation_failed else "")
            for uuid, device in now.devices.items()
        ]
        return "; ".join([f"{self.before.name} → {self.after.name} ({self.where})", host, *devices])


class MemoryActions(Protocol):
    """What can be done about memory, mildest first. Each is called once a rise; ``resume`` on the return to SAFE."""

    def pause(self, change: LevelChange) -> None:
        """Issue no new load."""
        ...

    def resume(self) -> None:
        """Issue load again."""
        ...

    def abort(self, change: LevelChange) -> None:
        """End the running trial as infeasible."""
        ...

    def kill(self, change: LevelChange) -> None:
        """Kill the engine's whole tree at once."""
        ...


class MemoryWatch:
    """Follows the level: up at once, down after ``limits.calm_s`` below, one thread at 1 Hz.

    ``read`` takes a reading; ``update`` may be fed by hand. A failing callback or action is logged and stops nothing.
    """

    def __init__(
        self,
        read: Callable[[], MemoryReading],
        *,
        plan: MemoryPlan | None = None,
        limits: MemoryLimits | None = None,
        actions: MemoryActions | None = None,
        now_s: Callable[[], float] = time.monotonic,
        period_s: float = 1.0,
    ) -> None:
        self._read = read
        self._plan = plan or MemoryPlan()
        self._limits = limits or MemoryLimits()
        self._actions = actions
        self._now_s = now_s
        self._period_s = period_s
        self._callbacks: list[Callable[[LevelChange], None]] = []
        self._recent: deque[tuple[float, MemoryLevel]] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.level = MemoryLevel.SAFE
        self.worst = MemoryLevel.SAFE
        self.changes: deque[LevelChange] = deque(maxlen=1000)

    def on_change(self, callback: Callable[[LevelChange], None]) -> None:
        """Call back at every change, from the watch's thread."""
        self._callbacks.append(callback)

    def judge(self, reading: MemoryReading) -> tuple[MemoryLevel, str]:
        """The level of one reading by itself, and where it comes from."""
        levels = [(host_level(reading, self._limits), "host")]
        levels += [
            (device_level(device, self._plan.device_bytes.get(uuid), self._limits), uuid)
            for uuid, device in reading.devices.items()
        ]
        return max(levels, key=lambda each: each[0])

    def update(self, reading: MemoryReading) -> MemoryLevel:
        """Take one reading into account, act where the level changed, and return the level."""
        judged, where = self.judge(reading)
        now_s = self._now_s()
        self._recent.append((now_s, judged))
        while self._recent and self._recent[0][0] < now_s - self._limits.calm_s:
            self._recent.popleft()
        after = judged if judged >= self.level else min(self.level, max(level for _, level in self._recent))
        if after != self.level:
            change = LevelChange(before=self.level, after=after, where=where, reading=reading, at_s=now_s)
            self.level, self.worst = after, max(self.worst, after)
            self.changes.append(change)
            get_logger("llmopt.memory").info("%s", change)
            self._act(change)
        return self.level

    def _act(self, change: LevelChange) -> None:
        steps: list[Callable[[], object]] = []
        actions = self._actions
        if actions is not None:
            reached = [
                (MemoryLevel.EMERGENCY, lambda: actions.kill(change)),
                (MemoryLevel.CRITICAL, lambda: actions.abort(change)),
                (MemoryLevel.WARNING, lambda: actions.pause(change)),
            ]
            # the strongest first: an emergency cannot wait for the bookkeeping of the milder ones
            steps += [step for level, step in reached if change.before < level <= change.after]
            if change.after is MemoryLevel.SAFE:
                steps.append(actions.resume)
        steps += [lambda callback=callback: callback(change) for callback in self._callbacks]  # type: ignore[misc]
        for step in steps:
            try:
                step()
            except Exception:  # noqa: BLE001 - boundary: a caller's callback must not end the watch
                get_logger(__name__).exception("memory callback failed")

    # ── running ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Self:
        """Begin watching; returns itself."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="llmopt-memory-watch", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End watching; may be called from a callback."""
        self._stop.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.update(self._read())
            except Exception:  # noqa: BLE001 - boundary: one unreadable moment must not end the watch
                get_logger(__name__).exception("memory reading failed")
            self._stop.wait(self._period_s)
