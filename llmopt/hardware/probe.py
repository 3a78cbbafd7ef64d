"""What this machine is and what of it we may use: every fact with its source, every gap with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmopt.hardware.cpu import probe_cpu
from llmopt.hardware.devices import DeviceLibrary, device_libraries, find_devices
from llmopt.hardware.host import host_memory
from llmopt.hardware.machine import LiveMachine, Machine
from llmopt.hardware.visible import allocation
from llmopt.messages import t
from llmopt.records import Hardware

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["describe_unread", "probe"]


def probe(
    machine: Machine | None = None, *, folder: str = ".", libraries: Sequence[DeviceLibrary] | None = None
) -> Hardware:
    """Read the machine; fast (no subprocess, no compute context) and never raising: what fails stands in ``unread``.

    ``folder`` is where free disk space is asked for; ``libraries`` replaces the vendors' (a fake one in tests).
    """
    machine = machine or LiveMachine()
    sources: dict[str, str] = {}
    unread: dict[str, str] = {}
    cpu = probe_cpu(machine, sources, unread)
    memory = host_memory(machine, sources, unread)
    found = find_devices(device_libraries(machine) if libraries is None else libraries)
    sources |= found.sources
    unread |= found.unread
    for vendor in ("nvidia", "amd", "intel"):
        limit = allocation(vendor, machine.env)
        if limit is not None and f"devices.{vendor}" not in unread:
            sources[f"devices.{vendor}"] = f"{sources.get(f'devices.{vendor}', vendor)}, {limit[0]}={limit[1]}"
    try:
        disk_free = machine.disk_free(folder)
        sources["disk.free"] = "statvfs"
    except OSError as error:
        disk_free, unread["disk.free"] = 0, f"hardware.system_error: {error.strerror}"
    return Hardware(
        cpu=cpu,
        memory=memory,
        devices=tuple(device for device, _ in found.devices),
        disk_free_bytes=disk_free,
        system=f"{machine.system} {machine.architecture}",
        sources=sources,
        unread=unread,
    )


def describe_unread(reason: str) -> str:
    """A reason of ``Hardware.unread`` as a sentence in the reader's language."""
    key, _, detail = reason.partition(": ")
    return t(key, detail=detail) if detail else t(key)
