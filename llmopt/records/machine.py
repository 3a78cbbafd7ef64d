"""The machine as probed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmopt.records.settings import DeviceType
from llmopt.records.values import digest

__all__ = [
    "Cpu",
    "Device",
    "Hardware",
    "HostMemory",
]


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """What this process may use, not what the host has."""

    model: str
    architecture: str
    physical_cores: int
    logical_cores: int
    usable_cores: float
    """Logical cores left by affinity and the cgroup quota; may be a fraction."""
    features: tuple[str, ...] = ()
    numa_nodes: int = 1


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """RAM as the process may use it; ``limit_bytes`` is the cgroup limit, if any."""

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0

    @property
    def usable_bytes(self) -> int:
        """The smaller of RAM and limit."""
        return min(self.total_bytes, self.limit_bytes) if self.limit_bytes else self.total_bytes


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator, or one slice (MIG) of it."""

    index: int
    uuid: str
    vendor: Literal["nvidia", "amd", "intel", "apple", "fake"]
    kind: DeviceType
    name: str
    total_bytes: int
    free_bytes: int
    unified_memory: bool = False
    compute_capability: tuple[int, int] | None = None
    driver: str | None = None
    parent_uuid: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A machine as probed. ``sources`` says where each fact came from, ``unread`` why a fact is missing."""

    cpu: Cpu
    memory: HostMemory
    devices: tuple[Device, ...] = ()
    disk_free_bytes: int = 0
    system: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The same for machines whose measurements may be compared."""
        devices = [(d.name, d.total_bytes) for d in self.devices]
        return digest([self.cpu.model, self.cpu.usable_cores, self.memory.usable_bytes >> 30, devices])
