"""What a machine's accelerators allow an engine to do; facts of vendors' documentation, each in one place."""

from __future__ import annotations

from llmopt.records import Device, DeviceType, Hardware, ModelInfo

__all__ = ["gpus", "has_bfloat16", "has_float8", "least_capability", "ranks_dividing"]

GPU_KINDS = (DeviceType.CUDA, DeviceType.ROCM, DeviceType.XPU)
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
