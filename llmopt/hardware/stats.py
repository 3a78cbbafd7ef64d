"""What memory looks like now: one typed answer for people, one reading for the watch."""

from __future__ import annotations

import os
import re
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmopt.hardware.devices import (
    DeviceLibrary,
    DeviceMemory,
    DeviceUnavailable,
    Holder,
    device_libraries,
    find_devices,
)
from llmopt.hardware.host import host_memory
from llmopt.hardware.levels import DeviceReading, MemoryLevel, MemoryLimits, MemoryReading, device_level, host_level
from llmopt.hardware.limits import out_of_memory_kills
from llmopt.hardware.machine import LiveMachine, Machine, text_or_none
from llmopt.hardware.nvidia import CRITICAL_XIDS
from llmopt.hardware.tree import TreeMemory, tree_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmopt.records import Device, HostMemory

__all__ = ["DeviceStats", "MemoryReader", "MemoryStats", "get_memory_stats"]

_LASTING = 3
"""Readings in a row that growth of others must show: one by itself may be a moment's error of the driver's list."""


@dataclass(frozen=True, kw_only=True)
class DeviceStats:
    """One device now."""

    device: Device
    memory: DeviceMemory
    holders: tuple[Holder, ...]
    level: MemoryLevel


@dataclass(frozen=True, kw_only=True)
class MemoryStats:
    """Memory of the host, of this process and of every device."""

    host: HostMemory
    host_level: MemoryLevel
    process: TreeMemory
    devices: tuple[DeviceStats, ...]

    @property
    def level(self) -> MemoryLevel:
        """The worst level anywhere."""
        return max([self.host_level, *(each.level for each in self.devices)])


def get_memory_stats(machine: Machine | None = None, libraries: Sequence[DeviceLibrary] | None = None) -> MemoryStats:
    """Memory now. A device whose driver stops answering is left out."""
    machine = machine or LiveMachine()
    host = host_memory(machine, {}, {})
    limits = MemoryLimits()
    reading = _host_reading(machine, host)
    found = find_devices(device_libraries(machine) if libraries is None else libraries)
    devices = []
    for device, library in found.devices:
        with suppress(DeviceUnavailable):
            memory = library.memory(device)
            holders = library.holders(device)
            now = DeviceReading(
                total_bytes=memory.total_bytes, used_bytes=memory.used_bytes, free_bytes=memory.free_bytes
            )
            level = MemoryLevel.SAFE if device.unified_memory else device_level(now, None, limits)
            devices.append(DeviceStats(device=device, memory=memory, holders=holders, level=level))
    return MemoryStats(
        host=host,
        host_level=host_level(reading, limits),
        process=tree_memory([os.getpid()], machine),
        devices=tuple(devices),
    )


class MemoryReader:
    """Takes the readings of a watch: host, pressure, kills and devices, relative to the moment it was made.

    ``pids`` names the processes that are ours; lasting growth of any other on a device that ours use is *foreign*.
    """

    def __init__(
        self,
        *,
        devices: Sequence[tuple[Device, DeviceLibrary]] = (),
        pids: Callable[[], Sequence[int]] = tuple,
        machine: Machine | None = None,
    ) -> None:
        self._machine = machine or LiveMachine()
        self._devices = tuple((device, library) for device, library in devices if not device.unified_memory)
        self._pids = pids
        self._kills = out_of_memory_kills(self._machine)
        self._swap_used = self._swap(host_memory(self._machine, {}, {}))
        ours = frozenset(pids())
        self._strangers = {device.uuid: _Strangers(device, library, ours) for device, library in self._devices}

    def __call__(self) -> MemoryReading:
        """One reading now."""
        host = host_memory(self._machine, {}, {})
        ours = frozenset(self._pids())
        devices = {}
        for device, library in self._devices:
            with suppress(DeviceUnavailable):
                memory = library.memory(device)
                faults = [number for number in library.faults(device) if number in CRITICAL_XIDS]
                devices[device.uuid] = DeviceReading(
                    total_bytes=memory.total_bytes,
                    used_bytes=memory.used_bytes,
                    free_bytes=memory.free_bytes,
                    foreign_growth_bytes=self._strangers[device.uuid].growth(ours),
                    critical_fault=faults[0] if faults else None,
                )
        return _host_reading(
            self._machine,
            host,
            kills=out_of_memory_kills(self._machine) - self._kills,
            swap_growth=self._swap(host) - self._swap_used,
            devices=devices,
        )

    @staticmethod
    def _swap(host: HostMemory) -> int:
        return host.swap_total_bytes - host.swap_free_bytes


class _Strangers:
    """What other processes took of one device since the watch began, as far as it can be told.

    Only where the driver's list shows a process of ours are the rest known to be others: inside a container the list
    may name pids of the host, before the engine reaches the device it is not there yet, and a list can lack it for a
    moment. A pid that was ours once stays ours, for the list keeps an ended process a little longer than the kernel.
    """

    def __init__(self, device: Device, library: DeviceLibrary, ours: frozenset[int]) -> None:
        self._device, self._library = device, library
        self._ours = set(ours)
        self._recent: deque[int] = deque(maxlen=_LASTING)
        self._before = self._held(self._holders())

    def growth(self, ours: frozenset[int]) -> int:
        """The growth that lasted: the least of the last three readings, 0 until there are three in a row."""
        self._ours |= ours
        holders = self._holders()
        if not any(holder.pid in self._ours for holder in holders):
            self._recent.clear()
            return 0
        self._recent.append(max(0, self._held(holders) - self._before))
        return min(self._recent) if len(self._recent) == _LASTING else 0

    def _held(self, holders: Sequence[Holder]) -> int:
        return sum(holder.used_bytes or 0 for holder in holders if holder.pid not in self._ours)

    def _holders(self) -> tuple[Holder, ...]:
        try:
            return self._library.holders(self._device)
        except DeviceUnavailable:
            return ()


def _host_reading(
    machine: Machine,
    host: HostMemory,
    *,
    kills: int = 0,
    swap_growth: int = 0,
    devices: dict[str, DeviceReading] | None = None,
) -> MemoryReading:
    some, full = _pressure(machine)
    return MemoryReading(
        host_total_bytes=host.usable_bytes,
        host_available_bytes=host.available_bytes,
        pressure_some=some,
        pressure_full=full,
        out_of_memory_kills=kills,
        swap_growth_bytes=swap_growth,
        devices=devices or {},
    )


def _pressure(machine: Machine) -> tuple[float, float]:
    """The ten-second averages of pressure stall information; zeros where the kernel keeps none."""
    if machine.system != "Linux":
        return 0.0, 0.0
    text = text_or_none(machine, "/proc/pressure/memory") or ""
    found = dict(re.findall(r"^(some|full) avg10=([\d.]+)", text, re.MULTILINE))
    return float(found.get("some", 0.0)), float(found.get("full", 0.0))
