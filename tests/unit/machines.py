"""Two machines that tests of engines ask about: one without a GPU, one with."""

from __future__ import annotations

from dataclasses import replace

from llmopt.records import Cpu, Device, DeviceType, Hardware, HostMemory

__all__ = ["cpu_machine", "gpu_machine"]


def cpu_machine(*features: str) -> Hardware:
    """A machine without a GPU; without words, one of today."""
    cpu = Cpu(
        model="a CPU",
        architecture="x86_64",
        physical_cores=2,
        logical_cores=4,
        usable_cores=4,
        features=features or ("avx2", "avx512f"),
    )
    return Hardware(cpu=cpu, memory=HostMemory(total_bytes=16 << 30, available_bytes=16 << 30), system="Linux")


def gpu_machine(driver: str = "580.95.05") -> Hardware:
    """A machine with one NVIDIA GPU."""
    device = Device(
        index=0,
        uuid="GPU-0",
        vendor="nvidia",
        kind=DeviceType.CUDA,
        name="a GPU",
        total_bytes=80 << 30,
        free_bytes=80 << 30,
        compute_capability=(9, 0),
        driver=driver,
    )
    return replace(cpu_machine(), devices=(device,))
