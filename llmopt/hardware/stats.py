"""What memory looks like now: one typed answer for people, one reading for the watch."""

from __future__ import annotations

import os
import re
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

    ``pids`` names the processes that are ours; growth of any other on our devices is *foreign*.
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
        self._foreign = {device.uuid: _foreign(device, library, ours) for device, library in self._devices}

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
                    foreign_growth_bytes=max(0, _foreign(device, library, ours) - self._foreign[device.uuid]),
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


def _foreign(device: Device, library: DeviceLibrary, ours: frozenset[int]) -> int:
    """What others hold, as far as the driver tells; inside a container pids are the host's, and nothing is ours.

    There the figure would count our own growth as foreign, so it is 0 unless some holder is a process we can see.
    """
    try:
        holders = library.holders(device)
    except DeviceUnavailable:
        return 0
    if not any(holder.name for holder in holders):
        return 0
    return sum(holder.used_bytes or 0 for holder in holders if holder.pid not in ours)


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
