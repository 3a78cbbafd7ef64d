"""Memory around the launches of a study: baseline, levels and course while an engine runs, proof and leaks after it."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from llmopt.hardware.devices import DeviceLibrary, device_libraries, find_devices
from llmopt.hardware.host import host_memory
from llmopt.hardware.leak import Leak, LeakWatch, growth_within
from llmopt.hardware.levels import LevelChange, MemoryActions, MemoryLevel, MemoryLimits, MemoryPlan, MemoryWatch
from llmopt.hardware.machine import LiveMachine, Machine
from llmopt.hardware.release import Baseline, Claim, ReleaseReport, prove_release, take_baseline
from llmopt.hardware.sampler import MemoryTrace, PeakSampler
from llmopt.hardware.stats import MemoryReader
from llmopt.logs import get_logger
from llmopt.messages import t

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from llmopt.records import Device

__all__ = ["LaunchMemory", "WatchedLaunch"]

_MIB = 1 << 20
_GIB = 1 << 30
_LOOK_S = 0.5
_LEAST_SPAN_S = 120.0
"""A shorter service only shows caches being touched for the first time."""
_SETTLED = 0.2
"""Of a serving phase, the beginning that is left out when growth is looked for: caches and slots fill there."""


class WatchedLaunch:
    """One launch being watched: name its processes once they exist, its phases, and ask for level and course."""

    def __init__(
        self,
        name: str,
        devices: Sequence[tuple[Device, DeviceLibrary]],
        baseline: Baseline,
        *,
        machine: Machine,
        plan: MemoryPlan,
        limits: MemoryLimits,
        actions: MemoryActions | None,
    ) -> None:
        self.name = name
        self.baseline = baseline
        self.report: ReleaseReport | None = None
        """The proof of release, once the launch is over."""
        self.leaks: tuple[Leak, ...] = ()
        self._pids: Callable[[], Sequence[int]] = tuple
        self.sampler = PeakSampler(self.pids, devices=devices, machine=machine)
        reader = MemoryReader(devices=devices, pids=self.pids, machine=machine)
        self.watch = MemoryWatch(reader, plan=plan, limits=limits, actions=actions)

    def attach(self, pids: Callable[[], Sequence[int]]) -> None:
        """The engine's whole process tree, asked anew at every sample."""
        self._pids = pids
        self.sampler.phase("loading")

    def phase(self, name: str) -> None:
        """What the engine does from now on: ``loading``, ``warm-up``, ``serving``, ``stopping``."""
        self.sampler.phase(name)

    def pids(self) -> tuple[int, ...]:
        """The processes alive now."""
        return tuple(self._pids())

    def on_level(self, callback: Callable[[LevelChange], None]) -> None:
        """Call back at every change of the level, from the watch's thread."""
        self.watch.on_change(callback)

    @property
    def level(self) -> MemoryLevel:
        """The level now."""
        return self.watch.level

    def story(self) -> str:
        """Every change of the level so far with its figures, one a line: why a trial was ended."""
        return "\n".join(str(change) for change in self.watch.changes)

    def trace(self) -> MemoryTrace:
        """The course of memory so far."""
        return self.sampler.trace()


class LaunchMemory:
    """One for a study: it remembers what every launch left behind, and so sees leaks that no single launch shows."""

    def __init__(
        self,
        *,
        machine: Machine | None = None,
        libraries: Sequence[DeviceLibrary] | None = None,
        limits: MemoryLimits | None = None,
        within_s: float = 10.0,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._machine = machine or LiveMachine()
        self._libraries = libraries
        self._limits = limits or MemoryLimits()
        self._within_s = within_s
        self._now_s = now_s
        self._sleep = sleep
        self._leak_watches: dict[str, LeakWatch] = {}
        self.releases: deque[ReleaseReport] = deque(maxlen=1000)
        self.leaks: list[Leak] = []

    @asynccontextmanager
    async def around(
        self,
        name: str,
        *,
        planned_device_bytes: Mapping[str, int] | None = None,
        actions: MemoryActions | None = None,
    ) -> AsyncIterator[WatchedLaunch]:
        """Watch one launch. The engine must be stopped when the block ends; then the release is proved.

        ``planned_device_bytes`` (by device uuid) is what the engine is meant to take. Never raises by itself: a
        release that could not be proved is logged, kept in ``releases``, and stands in the launch's ``report``.
        """
        launch = await asyncio.to_thread(self.begin, name, planned_device_bytes or {}, actions)
        try:
            yield launch
        finally:
            await asyncio.shield(asyncio.to_thread(self.end, launch))

    async def settled(self, *, calm_s: float = 3.0, cap_s: float = 60.0) -> bool:
        """Wait until no device's use and no shortage of RAM has moved for ``calm_s``; False after ``cap_s``."""
        began_s = calm_from_s = self._now_s()
        last = await asyncio.to_thread(self._held)
        while (now_s := self._now_s()) - calm_from_s < calm_s:
            if now_s - began_s > cap_s:
                return False
            await asyncio.sleep(_LOOK_S)
            held = await asyncio.to_thread(self._held)
            if max((abs(a - b) for a, b in zip(held, last, strict=True)), default=0) > 64 * _MIB:
                last, calm_from_s = held, self._now_s()
        return True

    def _held(self) -> tuple[int, ...]:
        """What each device holds, and what the host lacks to be at ease."""
        devices = take_baseline(self._devices(), os.getpid(), self._machine).device_bytes
        memory = host_memory(self._machine, {}, {})
        return (*devices.values(), max(0, memory.usable_bytes // 5 - memory.available_bytes))

    def begin(
        self, name: str, planned_device_bytes: Mapping[str, int], actions: MemoryActions | None = None
    ) -> WatchedLaunch:
        """Take the baseline and start watching."""
        devices = self._devices()
        baseline = take_baseline(devices, os.getpid(), self._machine)
        planned = {uuid: baseline.device_bytes.get(uuid, 0) + planned for uuid, planned in planned_device_bytes.items()}
        launch = WatchedLaunch(
            name,
            devices,
            baseline,
            machine=self._machine,
            plan=MemoryPlan(device_bytes=planned),
            limits=self._limits,
            actions=actions,
        )
        launch.sampler.start()
        launch.watch.start()
        return launch

    def end(self, launch: WatchedLaunch) -> ReleaseReport:
        """Stop watching, prove the release (waiting up to ``within_s``), look for leaks. Blocks: call in a thread."""
        launch.watch.stop()
        launch.sampler.stop()
        launch.phase("released")
        launch.sampler.sample()
        trace = launch.trace()
        claim = Claim(
            name=launch.name,
            own_pid=os.getpid(),
            own_allowance_bytes=None,
            pids=launch.pids,
            segments=trace.segments,
            known_tensors=frozenset(),
        )
        report = prove_release(
            claim,
            launch.baseline,
            self._devices(),
            machine=self._machine,
            within_s=self._within_s,
            now_s=self._now_s,
            sleep=self._sleep,
        )
        # nothing in our own process is an engine's memory
        launch.report = report = replace(report, held=())
        self.releases.append(report)
        launch.leaks = (*self._between_launches(report), *_within(launch.name, trace))
        self._tell(report, launch.leaks)
        return report

    def _devices(self) -> tuple[tuple[Device, DeviceLibrary], ...]:
        if self._libraries is None:
            self._libraries = device_libraries(self._machine)
        return find_devices(self._libraries).devices

    def _between_launches(self, report: ReleaseReport) -> list[Leak]:
        """What stays after every launch, on each device and in this process."""
        figures = {device.uuid: (float(device.used_bytes), device.holders) for device in report.devices}
        figures["llmopt"] = (float(report.own_bytes), ())
        found = []
        for where, (used, holders) in figures.items():
            watch = self._leak_watches.setdefault(where, LeakWatch(where))
            leak = watch.add(used, holders)
            if leak is not None:
                found.append(leak)
        return found

    def _tell(self, report: ReleaseReport, leaks: Sequence[Leak]) -> None:
        logger = get_logger("llmopt.memory")
        if not report.verified:
            gib = f"{report.unreturned_bytes / _GIB:.2f}"
            text = t("memory.not_returned", name=report.name, gib=gib, seconds=f"{report.seconds:.0f}")
            logger.warning("%s", "\n".join([text, *report.lines()]))
        for leak in leaks:
            self.leaks.append(leak)
            logger.warning(
                "%s",
                t(
                    f"memory.leak_{leak.kind}",
                    where=leak.where,
                    mib=f"{leak.bytes_per_trial / _MIB:.1f}",
                    low=f"{leak.low / _MIB:.1f}",
                    high=f"{leak.high / _MIB:.1f}",
                ),
            )


def _within(name: str, trace: MemoryTrace) -> list[Leak]:
    """Growth during the last serving phase, its beginning left out."""
    served = [(began_s, ended_s) for phase, began_s, ended_s in trace.phases() if phase == "serving"]
    if not served:
        return []
    began_s, ended_s = served[-1]
    from_s = began_s + _SETTLED * (ended_s - began_s)
    points = [point for point in trace.points if point.phase == "serving" and from_s <= point.at_s <= ended_s]
    if not points or points[-1].at_s - points[0].at_s < _LEAST_SPAN_S:
        return []
    # mapped weights come and go with page cache: only what must stay resident is judged
    held = [float(point.anonymous_bytes + point.shared_bytes + sum(point.device_bytes)) for point in points]
    leak = growth_within(name, [point.at_s for point in points], held)
    return [leak] if leak is not None else []
