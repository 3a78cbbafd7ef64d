"""The proof that memory came back: a baseline before, the same questions after, and the holders where it did not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmopt.hardware.devices import DeviceLibrary, DeviceUnavailable, Holder
from llmopt.hardware.host import host_memory
from llmopt.hardware.inprocess import HeldObject, held_tensors
from llmopt.hardware.tree import tree_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmopt.hardware.machine import Machine
    from llmopt.records import Device

__all__ = ["Baseline", "Claim", "DeviceRelease", "ReleaseReport", "prove_release", "take_baseline"]

_MIB = 1 << 20
_POLL_S = 0.25


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What was held before: each device's use, and this process's own anonymous memory."""

    device_bytes: dict[str, int]
    own_bytes: int


@dataclass(frozen=True, kw_only=True)
class DeviceRelease:
    """One device after the release."""

    uuid: str
    name: str
    baseline_bytes: int
    used_bytes: int
    allowed_bytes: int
    holders: tuple[Holder, ...] = ()

    @property
    def returned(self) -> bool:
        """Whether it is back at its baseline."""
        return self.used_bytes <= self.allowed_bytes


@dataclass(frozen=True, kw_only=True)
class ReleaseReport:
    """What was proved. ``own_*`` is this process: judged only where it was asked to give memory back."""

    name: str
    verified: bool
    seconds: float
    devices: tuple[DeviceRelease, ...] = ()
    own_baseline_bytes: int = 0
    own_bytes: int = 0
    own_allowed_bytes: int | None = None
    processes_left: tuple[int, ...] = ()
    tree_bytes: int = 0
    segments_left: tuple[str, ...] = ()
    held: tuple[HeldObject, ...] = ()
    host_available_bytes: int = 0
    """Free RAM for the reader; not judged, because others use it too."""

    @property
    def unreturned_bytes(self) -> int:
        """Everything above what was allowed."""
        own = max(0, self.own_bytes - self.own_allowed_bytes) if self.own_allowed_bytes is not None else 0
        devices = sum(max(0, each.used_bytes - each.allowed_bytes) for each in self.devices)
        return own + devices + self.tree_bytes

    def lines(self) -> tuple[str, ...]:
        """The holders, one a line: what a person can look for."""
        found = [
            f"{device.name} ({device.uuid}): {device.used_bytes / _MIB:.0f} MiB, "
            f"baseline {device.baseline_bytes / _MIB:.0f} MiB"
            for device in self.devices
            if not device.returned
        ]
        for device in self.devices:
            if not device.returned:
                found += [
                    f"  pid {holder.pid} {holder.name} "
                    + (f"{holder.used_bytes / _MIB:.0f} MiB" if holder.used_bytes is not None else "? MiB")
                    for holder in device.holders
                ]
        found += [f"pid {pid}" for pid in self.processes_left]
        found += list(self.segments_left)
        for each in self.held:
            held_by = ", ".join(each.referrers)
            found.append(f"{each.count} × {each.kind} on {each.place}: {each.total_bytes / _MIB:.0f} MiB ← {held_by}")
        return tuple(found)


def take_baseline(devices: Sequence[tuple[Device, DeviceLibrary]], own_pid: int, machine: Machine) -> Baseline:
    """What is held now."""
    used = {}
    for device, library in devices:
        try:
            used[device.uuid] = library.memory(device).used_bytes
        except DeviceUnavailable:  # it cannot be judged later either
            continue
    return Baseline(device_bytes=used, own_bytes=tree_memory([own_pid], machine).anonymous_bytes)


def allowed_bytes(baseline_bytes: int, total_bytes: int) -> int:
    """The most a device may hold after a release: its baseline + max(64 MiB, 0.5 % of the device)."""
    return baseline_bytes + max(64 * _MIB, total_bytes // 200)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What must be back: the pieces a guard watched."""

    name: str
    own_pid: int
    own_allowance_bytes: int | None
    """How far this process may stay above its baseline; None where it gave nothing and is not judged."""
    pids: Callable[[], Sequence[int]]
    segments: frozenset[str]
    known_tensors: frozenset[int]


def prove_release(
    claim: Claim,
    baseline: Baseline,
    devices: Sequence[tuple[Device, DeviceLibrary]],
    *,
    machine: Machine,
    within_s: float = 10.0,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ReleaseReport:
    """Ask until everything is back or ``within_s`` is over; the holders are looked up only where it is not."""
    began_s = now_s()
    while True:
        report = _state(claim, baseline, devices, machine, now_s() - began_s)
        if report.verified or now_s() - began_s >= within_s:
            return report
        sleep(_POLL_S)


def _state(
    claim: Claim,
    baseline: Baseline,
    devices: Sequence[tuple[Device, DeviceLibrary]],
    machine: Machine,
    seconds: float,
) -> ReleaseReport:
    states = [state for device, library in devices if (state := _device_state(device, library, baseline)) is not None]
    pids = tuple(claim.pids())
    left = tuple(sorted(path for path in claim.segments if _exists(machine, path)))
    tree = tree_memory(pids, machine)
    own = tree_memory([claim.own_pid], machine).anonymous_bytes
    allowed = None if claim.own_allowance_bytes is None else baseline.own_bytes + claim.own_allowance_bytes
    own_back = allowed is None or own <= allowed
    verified = own_back and not pids and not left and all(state.returned for state in states)
    return ReleaseReport(
        name=claim.name,
        verified=verified,
        seconds=seconds,
        devices=tuple(states),
        own_baseline_bytes=baseline.own_bytes,
        own_bytes=own,
        own_allowed_bytes=allowed,
        processes_left=pids,
        tree_bytes=tree.total_bytes,
        segments_left=left,
        held=() if verified else held_tensors(claim.known_tensors),
        host_available_bytes=host_memory(machine, {}, {}).available_bytes,
    )


def _exists(machine: Machine, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    try:
        return name in machine.names(folder)
    except OSError:
        return False


def _device_state(device: Device, library: DeviceLibrary, baseline: Baseline) -> DeviceRelease | None:
    before = baseline.device_bytes.get(device.uuid)
    if before is None:
        return None
    try:
        used = library.memory(device).used_bytes
        allowed = allowed_bytes(before, device.total_bytes)
        holders = library.holders(device) if used > allowed else ()
    except DeviceUnavailable:
        return None
    return DeviceRelease(
        uuid=device.uuid,
        name=device.name,
        baseline_bytes=before,
        used_bytes=used,
        allowed_bytes=allowed,
        holders=holders,
    )
