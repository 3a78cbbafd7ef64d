"""Which devices this process may use: ``CUDA_VISIBLE_DEVICES`` and its relatives, and batch allocations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmopt.records import Device

__all__ = ["ALLOCATION_VARIABLES", "allocation", "visible"]

ALLOCATION_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "nvidia": ("CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "GPU_DEVICE_ORDINAL"),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"),
    "intel": ("ZE_AFFINITY_MASK",),
}
"""For each vendor the variables that restrict its devices; the first that is set decides."""


def allocation(vendor: str, env: Mapping[str, str]) -> tuple[str, str] | None:
    """The restricting variable and its value; None where nothing restricts."""
    for name in ALLOCATION_VARIABLES.get(vendor, ()):
        if name in env:
            return name, env[name]
    return None


def visible(devices: Sequence[Device], env: Mapping[str, str]) -> tuple[Device, ...]:
    """The devices the environment leaves, in the order it names them.

    As CUDA reads it: names are indices or unique UUID prefixes, the first invalid name ends the list, an empty value
    or ``-1`` hides everything; a GPU that is cut into slices stands for its first slice. SLURM's lists may hold ranges
    and count the node's devices: where fewer are to be seen (the job's cgroup hides the others), they restrict no more.
    """
    found = allocation(devices[0].vendor, env) if devices else None
    if found is None:
        return tuple(devices)
    name, value = found
    names = _names(value)
    if name.startswith("SLURM"):
        physical = {device.parent_uuid or device.uuid for device in devices}
        if any(not text.isdigit() or int(text) >= len(physical) for text in names):
            return tuple(devices)
    chosen: list[Device] = []
    for text in names:
        device = _named(devices, text)
        if device is None or device in chosen:
            break
        chosen.append(device)
    return tuple(chosen)


def _names(value: str) -> list[str]:
    names: list[str] = []
    for text in (part.strip() for part in value.split(",")):
        low, dash, high = text.partition("-")
        if dash and low.isdigit() and high.isdigit():
            names += [str(number) for number in range(int(low), int(high) + 1)]
        elif text:
            names.append(text)
    return names


def _named(devices: Sequence[Device], text: str) -> Device | None:
    if text.partition(".")[0].isdigit():  # Level Zero writes "0.1" for a tile of device 0
        wanted = int(text.partition(".")[0])
        return next((device for device in devices if device.index == wanted), None)
    matches = [d for d in devices if d.uuid.startswith(text) or (d.parent_uuid or "").startswith(text)]
    parents = {device.parent_uuid or device.uuid for device in matches}
    if not matches or (len(parents) > 1):
        return None
    return matches[0]
