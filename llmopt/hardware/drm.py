"""Graphics devices as the Linux kernel shows them: sysfs for what they are, fdinfo for who holds their memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llmopt.hardware.devices import Holder
from llmopt.hardware.machine import Machine, text_or_none, whole_number

__all__ = ["Card", "cards", "fdinfo_holders"]

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# drm-resident-* is what really lies in a region; drm-memory-* is its older name, drm-total-* counts what is reserved
_KEYS = ("drm-resident-vram", "drm-memory-vram", "drm-total-vram", "drm-resident-local", "drm-total-local")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One PCI graphics device of a vendor."""

    folder: str
    slot: str
    """PCI address such as ``0000:03:00.0``."""
    device_id: str

    def number(self, machine: Machine, name: str) -> int | None:
        """An integer file below the device's folder."""
        return whole_number(text_or_none(machine, f"{self.folder}/{name}"))

    def text(self, machine: Machine, name: str) -> str | None:
        """A text file below the device's folder."""
        return text_or_none(machine, f"{self.folder}/{name}")


def cards(machine: Machine, vendor_id: str) -> list[Card]:
    """The graphics devices of one PCI vendor in PCI order; empty where the kernel shows none."""
    try:
        names = machine.names("/sys/class/drm")
    except OSError:
        return []
    found: dict[str, Card] = {}
    for name in names:
        folder = f"/sys/class/drm/{name}/device"
        if re.fullmatch(r"card\d+", name) is None or text_or_none(machine, f"{folder}/vendor") != vendor_id:
            continue
        event = text_or_none(machine, f"{folder}/uevent") or ""
        slot = re.search(r"PCI_SLOT_NAME=(\S+)", event)
        card = Card(
            folder=folder,
            slot=slot.group(1) if slot else name,
            device_id=text_or_none(machine, f"{folder}/device") or "",
        )
        found[card.slot] = card
    return [found[slot] for slot in sorted(found)]


def fdinfo_holders(machine: Machine, slot: str) -> tuple[Holder, ...]:
    """Processes that hold device memory of the card at PCI address ``slot``, as far as we may read them."""
    try:
        pids = [int(name) for name in machine.names("/proc") if name.isdigit()]
    except OSError:
        return ()
    holders = []
    for pid in pids:
        used = _held(machine, pid, slot)
        if used:
            name = text_or_none(machine, f"/proc/{pid}/comm") or ""
            holders.append(Holder(pid=pid, name=name, used_bytes=used))
    return tuple(sorted(holders, key=lambda holder: -(holder.used_bytes or 0)))


def _held(machine: Machine, pid: int, slot: str) -> int:
    """Bytes over the distinct DRM clients of a process: one client may be open under several descriptors."""
    folder = f"/proc/{pid}/fdinfo"
    try:
        descriptors = machine.names(folder)
    except OSError:
        return 0
    clients: dict[str, int] = {}
    for descriptor in descriptors:
        text = text_or_none(machine, f"{folder}/{descriptor}") or ""
        if f"drm-pdev:\t{slot}" not in text and f"drm-pdev: {slot}" not in text:
            continue
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
        clients[fields.get("drm-client-id", descriptor)] = _vram(fields)
    return sum(clients.values())


def _vram(fields: dict[str, str]) -> int:
    for prefix in _KEYS:
        values = [value for key, value in fields.items() if re.fullmatch(re.escape(prefix) + r"\d*", key)]
        if values:
            return sum(_bytes(value) for value in values)
    return 0


def _bytes(value: str) -> int:
    number, _, unit = value.partition(" ")
    return (whole_number(number) or 0) * _UNITS.get(unit.strip(), 1)
