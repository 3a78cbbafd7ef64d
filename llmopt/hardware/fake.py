"""A device library without a device: memory follows a script, or what fake engines say they hold.

Used by tests, by ``--dry-run`` and by demonstrations. A folder named by ``LLMOPT_FAKE_GPU`` holds ``devices.json``
(``[{"name": …, "total_bytes": …}]``) and one file for each process, named by its pid, with ``index bytes`` lines; a
process that ended holds nothing, as on a real device.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmopt.hardware.devices import DeviceMemory, DeviceUnavailable, Holder
from llmopt.records import Device, DeviceType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FAKE_VARIABLE", "FakeDevice", "FakeLibrary"]

FAKE_VARIABLE = "LLMOPT_FAKE_GPU"


@dataclass(frozen=True, kw_only=True)
class FakeDevice:
    """One scripted device. ``curve`` holds (seconds, used bytes) corners, straight lines between them."""

    name: str = "Fake GPU"
    total_bytes: int = 24 << 30
    curve: tuple[tuple[float, int], ...] = ()
    faults: tuple[tuple[float, int], ...] = ()
    """(seconds, number) of hardware faults to report."""

    def used_at(self, seconds: float) -> int:
        """The scripted memory at a moment; before the first and after the last corner it stays level."""
        if not self.curve:
            return 0
        before = self.curve[0]
        for corner in self.curve:
            if corner[0] > seconds:
                span = corner[0] - before[0]
                share = (seconds - before[0]) / span if span > 0 and seconds > before[0] else 0.0
                return round(before[1] + share * (corner[1] - before[1]))
            before = corner
        return before[1]


class FakeLibrary:
    """Scripted devices behind the vendors' Protocol. ``now_s`` starts at 0 when the library is made."""

    vendor = "fake"
    source = FAKE_VARIABLE

    def __init__(
        self,
        devices: Sequence[FakeDevice] = (FakeDevice(),),
        *,
        folder: Path | None = None,
        now_s: Callable[[], float] | None = None,
    ) -> None:
        began_s = time.monotonic()
        self._now_s = now_s or (lambda: time.monotonic() - began_s)
        self._folder = folder
        self._scripts = tuple(devices)
        self._told_s: dict[str, float] = {}

    @classmethod
    def from_folder(cls, folder: Path) -> FakeLibrary:
        """The devices a folder describes; it is read at the first question."""
        return cls((), folder=folder)

    def devices(self) -> tuple[Device, ...]:
        """The scripted devices; raises DeviceUnavailable where the folder cannot be read."""
        if self._folder is not None and not self._scripts:
            self._scripts = _described(self._folder)
        return tuple(
            Device(
                index=index,
                uuid=f"FAKE-{index}",
                vendor="fake",
                kind=DeviceType.CUDA,
                name=script.name,
                total_bytes=script.total_bytes,
                free_bytes=max(0, script.total_bytes - self._used(index)),
                compute_capability=(9, 0),
                driver="fake",
            )
            for index, script in enumerate(self._scripts)
        )

    def memory(self, device: Device) -> DeviceMemory:
        """What the script and the fake engines say is held now."""
        used = self._used(device.index)
        return DeviceMemory(
            total_bytes=device.total_bytes, used_bytes=used, free_bytes=max(0, device.total_bytes - used)
        )

    def holders(self, device: Device) -> tuple[Holder, ...]:
        """The fake engines that hold memory of this device."""
        found = [
            Holder(pid=pid, name="fake-engine", used_bytes=held)
            for pid, index, held in self._claims()
            if index == device.index
        ]
        return tuple(sorted(found, key=lambda holder: -(holder.used_bytes or 0)))

    def faults(self, device: Device) -> tuple[int, ...]:
        """The scripted faults since the last call."""
        now_s = self._now_s()
        since_s = self._told_s.get(device.uuid, -1.0)
        self._told_s[device.uuid] = now_s
        return tuple(number for at_s, number in self._scripts[device.index].faults if since_s < at_s <= now_s)

    def _used(self, index: int) -> int:
        return self._scripts[index].used_at(self._now_s()) + sum(
            held for _, where, held in self._claims() if where == index
        )

    def _claims(self) -> list[tuple[int, int, int]]:
        """(pid, device index, bytes) of every living fake engine."""
        if self._folder is None:
            return []
        found = []
        for name in os.listdir(self._folder):  # noqa: PTH208 - names are all it takes
            if not name.isdigit() or not _alive(int(name)):
                continue
            try:
                lines = (self._folder / name).read_text(encoding="ascii").splitlines()
            except OSError:  # ended between the listing and the read
                continue
            for line in lines:
                index, _, held = line.partition(" ")
                if index.isdigit() and held.strip().isdigit():
                    found.append((int(name), int(index), int(held)))
        return found


def _described(folder: Path) -> tuple[FakeDevice, ...]:
    try:
        entries = json.loads((folder / "devices.json").read_text(encoding="utf-8"))
        return tuple(FakeDevice(name=str(e["name"]), total_bytes=int(e["total_bytes"])) for e in entries)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceUnavailable(f"hardware.library_error: {error}") from None


def _alive(pid: int) -> bool:
    """Whether the process runs; a zombie holds no memory any more."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not Path("/proc/self/status").exists()
