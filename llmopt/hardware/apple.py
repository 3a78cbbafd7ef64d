"""Apple's GPUs: one pool shared with the processor, of which macOS lets the GPU wire a part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmopt.hardware.devices import DeviceMemory, DeviceUnavailable, Holder
from llmopt.records import Device, DeviceType

if TYPE_CHECKING:
    from llmopt.hardware.machine import Machine

__all__ = ["AppleLibrary"]

_LARGE = 36 << 30


class AppleLibrary:
    """The GPU of an Apple-silicon Mac."""

    vendor = "apple"
    source = "sysctl"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def devices(self) -> tuple[Device, ...]:
        """The devices this process may use."""
        if self._machine.system != "Darwin":
            raise DeviceUnavailable("hardware.mac_only")
        if self._machine.architecture != "arm64":
            raise DeviceUnavailable("hardware.intel_mac")
        memory = self._pool()
        name = str(self._machine.sysctl("machdep.cpu.brand_string") or "Apple GPU")
        device = Device(
            index=0,
            uuid="apple-0",
            vendor="apple",
            kind=DeviceType.MPS,
            name=name,
            total_bytes=memory.total_bytes,
            free_bytes=memory.free_bytes,
            unified_memory=True,
            driver="Metal",
        )
        return (device,)

    def memory(self, device: Device) -> DeviceMemory:  # noqa: ARG002 - there is only one
        """What the device holds now."""
        return self._pool()

    def holders(self, device: Device) -> tuple[Holder, ...]:  # noqa: ARG002 - macOS names none
        """Processes that hold its memory."""
        return ()

    def faults(self, device: Device) -> tuple[int, ...]:  # noqa: ARG002 - macOS reports none
        """Hardware faults since the last call."""
        return ()

    def _pool(self) -> DeviceMemory:
        """What the GPU may wire: the user's ``iogpu.wired_limit_mb``, else Metal's recommended share.

        Metal recommends about two thirds of RAM up to 36 GB and three quarters above.
        """
        try:
            total, available, _, _ = self._machine.psutil_memory()
        except ImportError:
            raise DeviceUnavailable("hardware.no_psutil") from None
        wired = self._machine.sysctl("iogpu.wired_limit_mb")
        limit = wired << 20 if isinstance(wired, int) and wired > 0 else total * (3 if total > _LARGE else 2)
        if not (isinstance(wired, int) and wired > 0):
            limit //= 4 if total > _LARGE else 3
        free = min(limit, available)
        return DeviceMemory(total_bytes=limit, used_bytes=limit - free, free_bytes=free)
