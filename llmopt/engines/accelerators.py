"""What a machine's accelerators allow an engine to do; facts of vendors' documentation, each in one place."""

from __future__ import annotations

import math

from llmopt.models.memory_fit import names_one_device
from llmopt.records import Device, DeviceType, Hardware, ModelInfo, Settings

__all__ = ["gpus", "has_bfloat16", "has_float8", "least_capability", "placement", "ranks_dividing", "stages_dividing"]

GPU_KINDS = (DeviceType.CUDA, DeviceType.ROCM, DeviceType.XPU)
VISIBLE = {"nvidia": "CUDA_VISIBLE_DEVICES", "amd": "ROCR_VISIBLE_DEVICES"}
"""The variable by which a launch is given its devices; both take UUIDs."""
PARALLEL = ("tensor_parallel", "pipeline_parallel", "data_parallel")
AMPERE = (8, 0)
"""The first NVIDIA generation with bfloat16 arithmetic."""
ADA = (8, 9)
"""The first one with 8-bit floating-point arithmetic."""


def gpus(hardware: Hardware) -> tuple[Device, ...]:
    """The devices that PyTorch engines can use."""
    return tuple(device for device in hardware.devices if device.kind in GPU_KINDS)


def least_capability(hardware: Hardware) -> tuple[int, int] | None:
    """The smallest compute capability among the NVIDIA devices; None without one."""
    known = [device.compute_capability for device in gpus(hardware) if device.compute_capability]
    return min(known, default=None)


def has_bfloat16(hardware: Hardware) -> bool:
    """Whether every device computes in bfloat16; CPUs of the supported kinds all do, some slowly."""
    capability = least_capability(hardware)
    return capability is None or capability >= AMPERE


def has_float8(hardware: Hardware) -> bool:
    """Whether every device multiplies 8-bit floats; known for NVIDIA only."""
    capability = least_capability(hardware)
    return capability is not None and capability >= ADA


def ranks_dividing(model: ModelInfo, devices: int) -> tuple[int, ...]:
    """Tensor-parallel sizes: they divide the attention heads, and divide or are multiples of the KV heads."""
    kv_heads = model.kv_heads if isinstance(model.kv_heads, int) else None
    return tuple(
        ranks
        for ranks in range(1, devices + 1)
        if (model.heads is None or model.heads % ranks == 0)
        and (kv_heads is None or kv_heads % ranks == 0 or ranks % kv_heads == 0)
    )


def stages_dividing(model: ModelInfo, devices: int) -> tuple[int, ...]:
    """Pipeline sizes: they divide the layers, so that no stage waits for a longer one."""
    return tuple(n for n in range(1, devices + 1) if model.layers is None or model.layers % n == 0)


def placement(settings: Settings, hardware: Hardware) -> dict[str, str]:
    """The variable that gives a launch its devices by UUID; empty where it uses none, or where nothing is to choose.

    As many as its parallel sizes multiply to, all alike, those with most free memory, in their order on the machine: an
    index would mean another device under another ordering, and an engine takes whatever is visible.
    """
    devices = gpus(hardware)
    if not devices or settings.get("device") == "cpu" or settings.get("gpu_layers") == 0:
        return {}
    variable = VISIBLE.get(devices[0].vendor)
    if variable is None or any(not device.uuid.startswith(("GPU-", "MIG-")) for device in devices):
        return {}
    if any(name in settings for name in PARALLEL):
        count = math.prod(int(settings.get(name) or 1) for name in PARALLEL)
    elif names_one_device(settings):
        count = 1
    else:
        count = len(devices)
    chosen = _alike(devices, count)
    return {variable: ",".join(device.uuid for device in chosen)} if chosen else {}


def _alike(devices: tuple[Device, ...], count: int) -> list[Device]:
    """``count`` equal devices where there are so many (of the largest kind), else the ``count`` with most memory."""
    kinds: dict[tuple[str, int], list[Device]] = {}
    for device in devices:
        kinds.setdefault((device.name, device.total_bytes), []).append(device)
    enough = [group for group in kinds.values() if len(group) >= count]
    group = max(enough, key=lambda one: one[0].total_bytes) if enough else list(devices)
    emptiest = sorted(group, key=lambda device: (-device.free_bytes, device.index))[:count]
    return sorted(emptiest, key=lambda device: device.index)
