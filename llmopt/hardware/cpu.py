"""Which processor this is, and how much of it this process may use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmopt.hardware.limits import batch_cores, cpu_quota
from llmopt.hardware.machine import Machine, text_or_none
from llmopt.records import Cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["probe_cpu"]

# Of some two hundred flags only those that decide which engine build, data type or kernel runs.
_X86_FEATURES = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_vbmi", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip
_ARM_FEATURES = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2")
_APPLE_FEATURES = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
}
# (implementer, part) of MIDR_EL1: ARM prints no model name in /proc/cpuinfo.
_ARM_PARTS = {
    ("0x41", "0xd0c"): "Arm Neoverse N1",
    ("0x41", "0xd40"): "Arm Neoverse V1",
    ("0x41", "0xd49"): "Arm Neoverse N2",
    ("0x41", "0xd4f"): "Arm Neoverse V2",
    ("0x41", "0xd42"): "Arm Cortex-A78AE",
    ("0x41", "0xd0b"): "Arm Cortex-A76",
    ("0x41", "0xd85"): "Arm Cortex-X925",
    ("0x41", "0xd87"): "Arm Cortex-A725",
    ("0x4e", "0x004"): "NVIDIA Carmel",
    ("0xc0", "0xac3"): "Ampere-1",
    ("0x46", "0x001"): "Fujitsu A64FX",
}


def probe_cpu(machine: Machine, sources: dict[str, str], unread: dict[str, str]) -> Cpu:
    """The processor as this process may use it; fills ``sources`` and ``unread`` for what it did and did not find."""
    blocks = _cpuinfo(machine, sources, unread)
    allowed = machine.affinity() or frozenset(range(max(1, len(blocks))))
    sources["cpu.logical_cores"] = "sched_getaffinity" if machine.system == "Linux" else "os.cpu_count"
    usable = _usable_cores(machine, len(allowed), sources)
    model, features = _identity(machine, blocks, sources, unread)
    return Cpu(
        model=model,
        architecture=machine.architecture,
        physical_cores=_physical_cores(machine, blocks, allowed, sources, unread),
        logical_cores=len(allowed),
        usable_cores=usable,
        features=features,
        numa_nodes=_numa_nodes(machine, sources, unread),
    )


def _cpuinfo(machine: Machine, sources: dict[str, str], unread: dict[str, str]) -> list[dict[str, str]]:
    """One mapping a processor block of ``/proc/cpuinfo``; empty on other systems."""
    if machine.system != "Linux":
        return []
    text = text_or_none(machine, "/proc/cpuinfo")
    if text is None:
        unread["cpu.model"] = "hardware.no_proc"
        return []
    sources["cpu.model"] = "/proc/cpuinfo"
    blocks = []
    for part in re.split(r"\n\s*\n", text):
        pairs = (line.split(":", 1) for line in part.splitlines() if ":" in line)
        block = {key.strip(): value.strip() for key, value in pairs}
        if "processor" in block:
            blocks.append(block)
    return blocks


def _identity(
    machine: Machine, blocks: list[dict[str, str]], sources: dict[str, str], unread: dict[str, str]
) -> tuple[str, tuple[str, ...]]:
    """Model name and the vector features that matter."""
    if machine.system == "Darwin":
        sources["cpu.model"] = sources["cpu.features"] = "sysctl"
        model = str(machine.sysctl("machdep.cpu.brand_string") or "Apple")
        return model, tuple(name for key, name in _APPLE_FEATURES.items() if machine.sysctl(key) == 1)
    if not blocks:
        unread.setdefault("cpu.model", "hardware.no_cpu_model")
        unread["cpu.features"] = unread["cpu.model"]
        return machine.env.get("PROCESSOR_IDENTIFIER", machine.architecture), ()
    first = blocks[0]
    sources["cpu.features"] = "/proc/cpuinfo"
    flags = set((first.get("flags") or first.get("Features") or "").split())
    known = _X86_FEATURES if "flags" in first else _ARM_FEATURES
    part = (first.get("CPU implementer", ""), first.get("CPU part", ""))
    model = first.get("model name") or _ARM_PARTS.get(part) or " ".join(filter(None, part)) or machine.architecture
    return model, tuple(name for name in known if name in flags)


def _physical_cores(
    machine: Machine,
    blocks: list[dict[str, str]],
    allowed: frozenset[int],
    sources: dict[str, str],
    unread: dict[str, str],
) -> int:
    """Distinct cores among the allowed logical CPUs: two hyper-threads of one core count once."""
    if machine.system == "Darwin":
        count = machine.sysctl("hw.physicalcpu")
        if isinstance(count, int) and count > 0:
            sources["cpu.physical_cores"] = "sysctl hw.physicalcpu"
            return count
    places = {
        int(block["processor"]): (block["physical id"], block["core id"])
        for block in blocks
        if "core id" in block and "physical id" in block and block["processor"].isdigit()
    }
    if allowed <= places.keys():
        sources["cpu.physical_cores"] = "/proc/cpuinfo"
        return len({places[cpu] for cpu in allowed})
    siblings = {cpu: _siblings(machine, cpu) for cpu in allowed} if machine.system == "Linux" else {}
    if siblings and all(siblings.values()):
        sources["cpu.physical_cores"] = "/sys/devices/system/cpu/*/topology"
        return len(set(siblings.values()))
    unread["cpu.physical_cores"] = "hardware.no_topology"
    return len(allowed)


def _siblings(machine: Machine, cpu: int) -> str | None:
    folder = f"/sys/devices/system/cpu/cpu{cpu}/topology"
    return text_or_none(machine, f"{folder}/core_cpus_list") or text_or_none(machine, f"{folder}/thread_siblings_list")


def _usable_cores(machine: Machine, logical: int, sources: dict[str, str]) -> float:
    """The smallest of affinity, cgroup quota and batch allocation."""
    limits: Iterator[tuple[float, str] | None] = iter((cpu_quota(machine), batch_cores(machine.env)))
    usable, source = float(logical), sources["cpu.logical_cores"]
    for limit in limits:
        if limit is not None and limit[0] < usable:
            usable, source = limit
    sources["cpu.usable_cores"] = source
    return usable


def _numa_nodes(machine: Machine, sources: dict[str, str], unread: dict[str, str]) -> int:
    try:
        names = machine.names("/sys/devices/system/node")
    except OSError:
        if machine.system == "Linux":
            unread["cpu.numa_nodes"] = "hardware.no_numa"
        return 1
    sources["cpu.numa_nodes"] = "/sys/devices/system/node"
    return max(1, sum(re.fullmatch(r"node\d+", name) is not None for name in names))
