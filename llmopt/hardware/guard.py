"""Admission, watch and proved release of whatever takes memory inside a ``with`` block."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmopt.errors import DoesNotFit, LlmoptError
from llmopt.hardware.devices import DeviceLibrary, DeviceUnavailable, device_libraries, find_devices
from llmopt.hardware.host import host_memory
from llmopt.hardware.inprocess import ModelRegistry, clear_frames, known_tensors, release_caches
from llmopt.hardware.levels import LevelChange, MemoryLevel, MemoryLimits, MemoryPlan, MemoryWatch
from llmopt.hardware.machine import LiveMachine, Machine
from llmopt.hardware.release import Baseline, Claim, ReleaseReport, prove_release, take_baseline
from llmopt.hardware.stats import MemoryReader, MemoryStats, get_memory_stats
from llmopt.hardware.tree import shared_segments
from llmopt.logs import get_logger
from llmopt.messages import t

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llmopt.records import Device

__all__ = ["Guard", "MemoryNotReturned", "ResourceManager", "get_resource_manager", "memory_guard"]

_GIB = 1 << 30
_MIB = 1 << 20


class MemoryNotReturned(LlmoptError):
    """Memory taken inside a guard did not come back; ``report`` has the figures and the holders."""

    exit_code = 4

    def __init__(self, report: ReleaseReport) -> None:
        super().__init__(
            "memory.not_returned",
            detail="\n".join(report.lines()),
            name=report.name,
            gib=f"{report.unreturned_bytes / _GIB:.2f}",
            seconds=f"{report.seconds:.0f}",
        )
        self.report = report


class Guard:
    """What a guarded block can do: register what it loads, track processes, read the level."""

    watch: MemoryWatch

    def __init__(self, name: str, required_bytes: int) -> None:
        self.name = name
        self.required_bytes = required_bytes
        self.report: ReleaseReport | None = None
        """The proof, once the block has ended."""
        self._registry = ModelRegistry()
        self._trees: list[Callable[[], Sequence[int]]] = []
        self._segments: frozenset[str] = frozenset()
        self._seen: tuple[int, ...] = ()

    @property
    def level(self) -> MemoryLevel:
        """The level now."""
        return self.watch.level

    def register(self, model: Any, name: str | None = None) -> Any:
        """Have ``model`` emptied at the end even where the caller still holds it; kept weakly. Returns it."""
        self._registry.add(name or f"{self.name}#{len(self._registry.alive())}", model)
        return model

    def track(self, pids: Callable[[], Sequence[int]]) -> None:
        """Count the processes ``pids()`` names as ours: at the end none may be left, nor any segment they held."""
        self._trees.append(pids)
        self.note_segments()

    def on_level(self, callback: Callable[[LevelChange], None]) -> None:
        """Call back when the level changes, from the watch's thread."""
        self.watch.on_change(callback)

    def pids(self) -> tuple[int, ...]:
        """Every tracked process alive now; asked by the watch every second."""
        found = tuple(dict.fromkeys(pid for tree in self._trees for pid in tree()))
        if found and found != self._seen:
            self._seen = found
            self._segments |= shared_segments(found)
        return found

    def note_segments(self) -> frozenset[str]:
        """Remember the shared-memory segments the tracked processes hold; those that outlive them are leaks."""
        self._segments |= shared_segments(self.pids())
        return self._segments

    def empty(self) -> bool:
        """Take the storage out of registered models; False where none was registered or alive."""
        return bool(self._registry.release())


@dataclass(frozen=True, kw_only=True)
class _Session:
    """One open guard: what its end needs to know about its beginning."""

    guard: Guard
    devices: tuple[tuple[Device, DeviceLibrary], ...]
    baseline: Baseline
    known_tensors: frozenset[int]


class ResourceManager:
    """Memory of this process's world: statistics, guards, registered models and their release on every device."""

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
        self._models = ModelRegistry()
        self.releases: deque[ReleaseReport] = deque(maxlen=1000)
        """The proofs of this process's guards, newest last."""

    def _devices(self) -> tuple[tuple[Device, DeviceLibrary], ...]:
        if self._libraries is None:
            self._libraries = device_libraries(self._machine)
        return find_devices(self._libraries).devices

    def get_memory_stats(self) -> MemoryStats:
        """Memory of the host, this process and every device, with levels and holders."""
        self._devices()
        return get_memory_stats(self._machine, self._libraries)

    def register_model(self, name: str, model: Any) -> None:
        """Have ``cleanup_all_devices`` empty this model; only a weak reference is kept."""
        self._models.add(name, model)

    def registered_models(self) -> tuple[str, ...]:
        """The names of registered models that still exist."""
        return tuple(self._models.alive())

    def cleanup_all_devices(self) -> MemoryStats:
        """Empty registered models and every allocator cache on every device; returns the statistics afterwards."""
        self._models.release()
        release_caches()
        return self.get_memory_stats()

    @contextmanager
    def memory_guard(
        self, name: str, required_gb: float = 0.0, *, strict: bool = False, device: int | None = None
    ) -> Iterator[Guard]:
        """Admit ``name`` with ``required_gb`` GiB or raise DoesNotFit, watch, and on exit release and prove it.

        ``device`` is the index of the GPU it goes to (default: the one with most free memory; the host without GPU).
        When memory did not come back this is logged and kept in ``releases``; with ``strict`` MemoryNotReturned is
        raised, unless the block itself raised something, which then passes on with a note.
        """
        session = self._open(name, round(required_gb * _GIB), device)
        failure: BaseException | None = None
        try:
            yield session.guard
        except BaseException as error:
            failure = error
            clear_frames(error.__traceback__)
            raise
        finally:
            self._close(session, strict=strict, failure=failure)

    def _open(self, name: str, required: int, index: int | None) -> _Session:
        devices = self._devices()
        self._admit(name, required, devices, index)
        known = known_tensors()
        release_caches()  # what earlier code left in allocator caches must not count as baseline
        baseline = take_baseline(devices, os.getpid(), self._machine)
        plan = MemoryPlan(device_bytes=_planned(devices, baseline.device_bytes, required, index))
        guard = Guard(name, required)
        reader = MemoryReader(devices=devices, pids=lambda: (os.getpid(), *guard.pids()), machine=self._machine)
        guard.watch = MemoryWatch(reader, plan=plan, limits=self._limits)
        guard.on_level(_clean_up_in_emergency)
        guard.watch.start()
        return _Session(guard=guard, devices=devices, baseline=baseline, known_tensors=known)

    def _close(self, session: _Session, *, strict: bool, failure: BaseException | None) -> None:
        guard = session.guard
        guard.watch.stop()
        segments = guard.note_segments()
        gave = guard.empty() or guard.required_bytes > 0
        release_caches()
        claim = Claim(
            name=guard.name,
            own_pid=os.getpid(),
            own_allowance_bytes=max(64 * _MIB, guard.required_bytes // 50) if gave else None,
            pids=guard.pids,
            segments=segments,
            known_tensors=session.known_tensors,
        )
        report = prove_release(
            claim,
            session.baseline,
            session.devices,
            machine=self._machine,
            within_s=self._within_s,
            now_s=self._now_s,
            sleep=self._sleep,
        )
        guard.report = report
        self._conclude(report, strict=strict, failure=failure)

    def _admit(
        self,
        name: str,
        required: int,
        devices: Sequence[tuple[Device, DeviceLibrary]],
        index: int | None,
    ) -> None:
        """Refuse what does not fit, with the numbers; caches are emptied before the answer is no."""
        available, where = self._available(devices, index)
        if required <= available:
            return
        release_caches()
        available, where = self._available(devices, index)
        if required > available:
            raise DoesNotFit(
                "memory.refused",
                name=name,
                where=where,
                required=f"{required / _GIB:.2f}",
                available=f"{available / _GIB:.2f}",
            )

    def _available(self, devices: Sequence[tuple[Device, DeviceLibrary]], index: int | None) -> tuple[int, str]:
        chosen = _chosen(devices, index)
        if chosen is None or chosen[0].unified_memory:
            host = host_memory(self._machine, {}, {})
            return host.available_bytes, chosen[0].name if chosen else t("memory.host")
        device, library = chosen
        try:
            return library.memory(device).free_bytes, device.name
        except DeviceUnavailable:  # the driver stopped answering after the listing a moment ago
            return device.free_bytes, device.name

    def _conclude(self, report: ReleaseReport, *, strict: bool, failure: BaseException | None) -> None:
        self.releases.append(report)
        if report.verified:
            return
        error = MemoryNotReturned(report)
        get_logger("llmopt.memory").warning("%s", error)
        if failure is not None:
            failure.add_note(str(error))
        elif strict:
            raise error


def _chosen(devices: Sequence[tuple[Device, DeviceLibrary]], index: int | None) -> tuple[Device, DeviceLibrary] | None:
    """The device a guard is about: the one asked for, else the freest; None on a machine without one."""
    if index is not None:
        for device, library in devices:
            if device.index == index:
                return device, library
        raise DoesNotFit("memory.no_such_device", index=index, count=len(devices))
    return max(devices, key=lambda each: each[0].free_bytes, default=None)


def _planned(
    devices: Sequence[tuple[Device, DeviceLibrary]], baseline: dict[str, int], required: int, index: int | None
) -> dict[str, int]:
    chosen = _chosen(devices, index)
    if chosen is None or not required:
        return {}
    uuid = chosen[0].uuid
    return {uuid: baseline.get(uuid, 0) + required}


def _clean_up_in_emergency(change: LevelChange) -> None:
    """Past the limit, free what nobody uses at once; objects in use stay with their owner."""
    if change.after is MemoryLevel.EMERGENCY:
        get_logger("llmopt.memory").warning("%s", t("memory.emergency", where=change.where))
        release_caches()


_lock = threading.Lock()
_manager: ResourceManager | None = None


def get_resource_manager() -> ResourceManager:
    """The one manager of this process, made at the first call."""
    global _manager  # noqa: PLW0603 - the documented interface is a process-wide manager
    with _lock:
        if _manager is None:
            _manager = ResourceManager()
        return _manager


@contextmanager
def memory_guard(
    name: str, required_gb: float = 0.0, *, strict: bool = False, device: int | None = None
) -> Iterator[Guard]:
    """``get_resource_manager().memory_guard``."""
    with get_resource_manager().memory_guard(name, required_gb, strict=strict, device=device) as guard:
        yield guard
