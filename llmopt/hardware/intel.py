"""Intel's discrete GPUs through sysfs and fdinfo: no mature library exists, and the kernel shows enough."""

from __future__ import annotations

import re

from llmopt.hardware.devices import DeviceMemory, DeviceUnavailable, Holder
from llmopt.hardware.drm import Card, cards, fdinfo_holders
from llmopt.hardware.machine import Machine, text_or_none, whole_number
from llmopt.hardware.visible import visible
from llmopt.records import Device, DeviceType

__all__ = ["IntelLibrary"]

_VENDOR_ID = "0x8086"
_NAMES = {
    "0x56a0": "Intel Arc A770",
    "0x56a1": "Intel Arc A750",
    "0xe20b": "Intel Arc B580",
    "0xe20c": "Intel Arc B570",
    "0xe211": "Intel Arc Pro B60",
    "0x56c0": "Intel Data Center GPU Flex 170",
    "0x56c1": "Intel Data Center GPU Flex 140",
    "0x0bd5": "Intel Data Center GPU Max 1550",
    "0x0bda": "Intel Data Center GPU Max 1100",
}
_SMALLEST_DISCRETE = 2 << 30
"""An integrated GPU's aperture is a quarter or half GiB; every discrete one has at least this."""

_PREFETCHABLE = 0x2000
"""IORESOURCE_PREFETCH of the flags column in a PCI device's ``resource`` file."""


class IntelLibrary:
    """Discrete Intel GPUs; integrated ones are named as left out, because they are no faster than the cores."""

    vendor = "intel"
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
        sized = [(card, self._total(card)) for card in found]
        discrete = [(card, total) for card, total in sized if total >= _SMALLEST_DISCRETE]
        if not discrete:
            raise DeviceUnavailable("hardware.integrated_only")
        driver = text_or_none(self._machine, "/sys/module/xe/version") or self._driver(discrete[0][0])
        devices = []
        for index, (card, total) in enumerate(discrete):
            uuid = f"GPU-{card.slot}"
            self._cards[uuid] = card
            devices.append(
                Device(
                    index=index,
                    uuid=uuid,
                    vendor="intel",
                    kind=DeviceType.XPU,
                    name=_NAMES.get(card.device_id, f"Intel GPU {card.device_id}"),
                    total_bytes=total,
                    free_bytes=max(0, total - self._used(card, total)),
                    driver=driver,
                )
            )
        return visible(devices, self._machine.env)

    def memory(self, device: Device) -> DeviceMemory:
        """What the device holds now."""
        card = self._card(device)
        used = self._used(card, device.total_bytes)
        return DeviceMemory(
            total_bytes=device.total_bytes, used_bytes=used, free_bytes=max(0, device.total_bytes - used)
        )

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

    def _driver(self, card: Card) -> str | None:
        match = re.search(r"DRIVER=(\S+)", card.text(self._machine, "uevent") or "")
        return match.group(1) if match else None

    def _total(self, card: Card) -> int:
        """Local memory: the drivers' own files where they exist, else the largest prefetchable PCI region."""
        named = [card.number(self._machine, f"tile{n}/physical_vram_size_bytes") or 0 for n in range(2)]
        if any(named):
            return sum(named)
        local = card.number(self._machine, "lmem_total_bytes")
        return local or self._largest_region(card)

    def _largest_region(self, card: Card) -> int:
        largest = 0
        for line in (card.text(self._machine, "resource") or "").splitlines():
            numbers = [whole_number(field) for field in line.split()]
            match numbers:
                case [int(start), int(end), int(flags)] if flags & _PREFETCHABLE:
                    largest = max(largest, end - start + 1)
        return largest

    def _used(self, card: Card, total: int) -> int:
        available = card.number(self._machine, "lmem_avail_bytes")
        if available is not None:
            return max(0, total - available)
        return sum(holder.used_bytes or 0 for holder in fdinfo_holders(self._machine, card.slot))
