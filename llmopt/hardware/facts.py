"""Every fact of a machine as one row: what it is, its value, where that was read, or why it could not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llmopt.hardware.limits import batch_cores, batch_memory_bytes, cpu_quota, memory_limit
from llmopt.hardware.machine import LiveMachine, Machine
from llmopt.hardware.visible import ALLOCATION_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmopt.records import Device, Hardware

__all__ = ["Fact", "machine_facts"]

ENVIRONMENT = "environment"
_BATCH_JOBS = {
    "SLURM_JOB_ID": "SLURM",
    "PBS_JOBID": "PBS",
    "LSB_JOBID": "LSF",
    "JOB_ID": "Grid Engine",
}
_ALWAYS_SHOWN = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact. ``value`` None: there is none (no limit, not set), or it could not be read and ``why`` says why."""

    name: str
    """``cpu.model``, ``device.0`` … or the name of an environment variable."""
    value: Any
    kind: Literal["text", "count", "bytes", "limit_bytes", "limit_count", "list", "variable"] = "text"
    source: str = ""
    why: str = ""
    """A reason as in ``Hardware.unread``."""


def machine_facts(hardware: Hardware, machine: Machine | None = None) -> tuple[Fact, ...]:
    """All of them, in the order a person asks; fast, starts nothing and never raises."""
    machine = machine or LiveMachine()
    read = [*_cpu(hardware, machine), *_memory(hardware, machine), *_devices(hardware), *_allocation(machine.env)]
    told = {fact.name for fact in read}
    silent = (Fact(name=name, value=None, why=why) for name, why in hardware.unread.items() if name not in told)
    return (*read, *silent)


def _fact(hardware: Hardware, name: str, value: Any, kind: Any = "text", source: str = "") -> Fact:
    """``value`` with its source, or without a value and with the reason where it was a guess."""
    if name in hardware.unread:
        return Fact(name=name, value=value or None, kind=kind, why=hardware.unread[name])
    return Fact(name=name, value=value, kind=kind, source=source or hardware.sources.get(name, ""))


def _cpu(hardware: Hardware, machine: Machine) -> Iterator[Fact]:
    cpu = hardware.cpu
    yield _fact(hardware, "system", hardware.system, source="uname")
    yield _fact(hardware, "cpu.model", cpu.model)
    yield _fact(hardware, "cpu.physical_cores", cpu.physical_cores, "count")
    yield _fact(hardware, "cpu.logical_cores", cpu.logical_cores, "count")
    yield _fact(hardware, "cpu.usable_cores", cpu.usable_cores, "count")
    yield _fact(hardware, "cpu.features", cpu.features, "list")
    yield _fact(hardware, "cpu.numa_nodes", cpu.numa_nodes, "count", source="one node")
    quota = cpu_quota(machine) if machine.system == "Linux" else None
    yield Fact(name="cpu.quota", value=quota and quota[0], kind="limit_count", source=quota[1] if quota else "cgroup")


def _memory(hardware: Hardware, machine: Machine) -> Iterator[Fact]:
    memory = hardware.memory
    yield _fact(hardware, "memory.total", memory.total_bytes, "bytes")
    read_at = hardware.sources.get("memory.total", "")
    limit = memory_limit(machine) if machine.system == "Linux" else None
    found = limit and limit.limit_bytes
    yield Fact(name="memory.limit", value=found, kind="limit_bytes", source=limit.source if limit else "cgroup")
    if read_at:
        yield Fact(name="memory.available", value=memory.available_bytes, kind="bytes", source=read_at)
        yield Fact(name="swap.total", value=memory.swap_total_bytes, kind="bytes", source=read_at)
        yield Fact(name="swap.free", value=memory.swap_free_bytes, kind="bytes", source=read_at)
    yield _fact(hardware, "disk.free", hardware.disk_free_bytes, "bytes")


def _devices(hardware: Hardware) -> Iterator[Fact]:
    for number, device in enumerate(hardware.devices):
        source = hardware.sources.get(f"devices.{device.vendor}", device.vendor)
        yield Fact(name=f"device.{number}", value=_described(device), kind="list", source=source)
    nvidia = [device for device in hardware.devices if device.vendor == "nvidia"]
    if nvidia:
        slices = tuple(device.name for device in nvidia if device.parent_uuid)
        yield Fact(name="mig", value=slices or None, kind="list", source=hardware.sources.get("devices.nvidia", ""))


def _described(device: Device) -> tuple[str, ...]:
    """Name, size in MiB, what the driver says of it."""
    words = [device.name, f"{device.total_bytes >> 20:,} MiB", device.kind.value]
    if device.compute_capability:
        words.append("sm_{}{}".format(*device.compute_capability))
    words += [f"driver {device.driver}"] if device.driver else []
    words += ["unified memory"] if device.unified_memory else []
    return (*words, device.uuid)


def _allocation(env: Mapping[str, str]) -> Iterator[Fact]:
    """What restricts this process: variables of the vendors, and the batch system's."""
    names = dict.fromkeys(name for group in ALLOCATION_VARIABLES.values() for name in group)
    for name in names:
        if name in env or name == _ALWAYS_SHOWN:
            yield Fact(name=name, value=env.get(name), kind="variable", source=ENVIRONMENT)
    variable = next((name for name in _BATCH_JOBS if env.get(name)), None)
    job = f"{_BATCH_JOBS[variable]} {env[variable]}" if variable else None
    yield Fact(name="batch.job", value=job, kind="variable", source=variable or ENVIRONMENT)
    cores, memory = batch_cores(env), batch_memory_bytes(env)
    if cores is not None:
        yield Fact(name="batch.cores", value=cores[0], kind="count", source=cores[1])
    if memory is not None:
        yield Fact(name="batch.memory", value=memory[0], kind="bytes", source=memory[1])
