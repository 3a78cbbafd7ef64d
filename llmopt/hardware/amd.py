"""AMD devices: the kernel's sysfs says what they are and hold; the optional ``amdsmi`` adds names and processes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from llmopt.hardware.devices import DeviceMemory, DeviceUnavailable, Holder
from llmopt.hardware.drm import Card, cards, fdinfo_holders
from llmopt.hardware.machine import Machine, text_or_none, whole_number
from llmopt.hardware.visible import visible
from llmopt.records import Device, DeviceType

__all__ = ["AmdLibrary"]

_VENDOR_ID = "0x1002"
_GFX = {"0x740c": "AMD Instinct MI250X", "0x74a1": "AMD Instinct MI300X", "0x744c": "AMD Radeon RX 7900 XTX",
        "0x738c": "AMD Instinct MI100", "0x1586": "AMD Radeon 8060S"}  # fmt: skip
"""PCI ids of devices met most often; others are shown by their id unless ``amdsmi`` names them."""

_CARVE_OUT = 4 << 30
"""An integrated GPU's own slice of RAM is smaller than this; it computes in the GTT pool, which is host memory."""


class AmdLibrary:
    """AMD GPUs of this machine."""

    vendor = "amd"
    source = "/sys/class/drm"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._cards: dict[str, Card] = {}

    def devices(self) -> tuple[Device, ...]:
        """The devices this process may use."""
        if self._machine.system != "Linux":
            raise DeviceUnavailable("hardware.linux_only")
        found = cards(self._machine, _VENDOR_ID)
        if not found:
            raise DeviceUnavailable("hardware.no_driver")
        names = self._names()
        driver = text_or_none(self._machine, "/sys/module/amdgpu/version")
        devices = []
        for index, card in enumerate(found):
            memory = self._memory(card)
            if memory is None:
                continue
            uuid = f"GPU-{card.text(self._machine, 'unique_id') or card.slot}"
            self._cards[uuid] = card
            name = names.get(card.slot) or card.text(self._machine, "product_name") or _GFX.get(card.device_id)
            devices.append(
                Device(
                    index=index,
                    uuid=uuid,
                    vendor="amd",
                    kind=DeviceType.ROCM,
                    name=name or f"AMD GPU {card.device_id}",
                    total_bytes=memory.total_bytes,
                    free_bytes=memory.free_bytes,
                    unified_memory=self._integrated(card),
                    driver=driver,
                )
            )
        return visible(devices, self._machine.env)

    def memory(self, device: Device) -> DeviceMemory:
        """What the device holds now."""
        memory = self._memory(self._card(device))
        if memory is None:
            raise DeviceUnavailable("hardware.device_gone")
        return memory

    def holders(self, device: Device) -> tuple[Holder, ...]:
        """Processes that hold its memory."""
        return fdinfo_holders(self._machine, self._card(device).slot)

    def faults(self, device: Device) -> tuple[int, ...]:  # noqa: ARG002 - the driver reports them to the kernel log only
        """Hardware faults since the last call."""
        return ()

    def _card(self, device: Device) -> Card:
        if device.uuid not in self._cards:
            self.devices()
        try:
            return self._cards[device.uuid]
        except KeyError:
            raise DeviceUnavailable("hardware.device_gone") from None

    def _integrated(self, card: Card) -> bool:
        total = card.number(self._machine, "mem_info_vram_total") or 0
        return total < _CARVE_OUT and (card.number(self._machine, "mem_info_gtt_total") or 0) > total

    def _memory(self, card: Card) -> DeviceMemory | None:
        pool = "gtt" if self._integrated(card) else "vram"
        total = card.number(self._machine, f"mem_info_{pool}_total")
        used = whole_number(card.text(self._machine, f"mem_info_{pool}_used"))
        if total is None or used is None:
            return None
        return DeviceMemory(total_bytes=total, used_bytes=used, free_bytes=max(0, total - used))

    def _names(self) -> dict[str, str]:
        """Market names by PCI address; the optional package must match the installed ROCm, so any failure is silent."""
        try:
            smi: Any = self._machine.library("amdsmi")
        except (ImportError, OSError, KeyError):  # its import loads the ROCm library, which may be absent or another
            return {}
        names: dict[str, str] = {}
        with suppress(smi.AmdSmiException):
            smi.amdsmi_init()
            try:
                for handle in smi.amdsmi_get_processor_handles():
                    slot = str(smi.amdsmi_get_gpu_device_bdf(handle)).lower()
                    names[slot] = str(smi.amdsmi_get_gpu_asic_info(handle)["market_name"])
            finally:
                smi.amdsmi_shut_down()
        return names
