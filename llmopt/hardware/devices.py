"""What a vendor's library is to us: which devices there are, what they hold, and who holds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmopt.hardware.machine import Machine
    from llmopt.records import Device

__all__ = ["DeviceLibrary", "DeviceMemory", "DeviceUnavailable", "Found", "Holder", "device_libraries", "find_devices"]


class DeviceUnavailable(Exception):
    """A library or driver cannot answer. ``reason`` is a message key, followed by ``: detail`` where there is one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """Memory of one device now. ``reserved_bytes`` is the driver's own part and counts as neither used nor free."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    reserved_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process that holds memory of a device. ``used_bytes`` is None where the driver does not tell.

    Inside a container the driver may name pids of the host: ``pid`` is then no process of ours.
    """

    pid: int
    name: str = ""
    used_bytes: int | None = None


@runtime_checkable
class DeviceLibrary(Protocol):
    """One vendor's devices. Every method may raise DeviceUnavailable; none starts a process or a compute context."""

    vendor: str

    def devices(self) -> tuple[Device, ...]:
        """Every device this process may use, in a stable order."""
        ...

    def memory(self, device: Device) -> DeviceMemory:
        """What ``device`` holds now."""
        ...

    def holders(self, device: Device) -> tuple[Holder, ...]:
        """Who holds memory of ``device``, largest first."""
        ...

    def faults(self, device: Device) -> tuple[int, ...]:
        """Numbers of hardware faults reported since the last call (NVIDIA: Xid); empty where unknown."""
        ...


@dataclass(frozen=True, kw_only=True)
class Found:
    """The devices of a machine, the library that answers for each, and why a vendor's could not be read."""

    devices: tuple[tuple[Device, DeviceLibrary], ...]
    sources: dict[str, str]
    unread: dict[str, str]


def device_libraries(machine: Machine) -> tuple[DeviceLibrary, ...]:
    """One library a vendor, none of them opened yet."""
    from llmopt.hardware.amd import AmdLibrary  # noqa: PLC0415 - the variants import this module's Protocol
    from llmopt.hardware.apple import AppleLibrary  # noqa: PLC0415
    from llmopt.hardware.fake import FAKE_VARIABLE, FakeLibrary  # noqa: PLC0415
    from llmopt.hardware.intel import IntelLibrary  # noqa: PLC0415
    from llmopt.hardware.nvidia import NvidiaLibrary  # noqa: PLC0415

    real = (NvidiaLibrary(machine), AmdLibrary(machine), IntelLibrary(machine), AppleLibrary(machine))
    if FAKE_VARIABLE in machine.env:
        return (*real, FakeLibrary.from_folder(Path(machine.env[FAKE_VARIABLE])))
    return real


def find_devices(libraries: Iterable[DeviceLibrary]) -> Found:
    """Ask every library; one that cannot answer is named in ``unread`` and hides no other's devices."""
    devices: list[tuple[Device, DeviceLibrary]] = []
    sources: dict[str, str] = {}
    unread: dict[str, str] = {}
    for library in libraries:
        try:
            found = library.devices()
        except DeviceUnavailable as reason:
            unread[f"devices.{library.vendor}"] = reason.reason
            continue
        devices += [(device, library) for device in found]
        if found:
            sources[f"devices.{library.vendor}"] = getattr(library, "source", library.vendor)
    return Found(devices=tuple(devices), sources=sources, unread=unread)
