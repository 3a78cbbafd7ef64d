"""What a container or a batch system leaves us: cgroup v1 and v2 quotas, SLURM, PBS, LSF and Grid Engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmopt.hardware.machine import Machine, text_or_none, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MemoryLimit", "batch_cores", "batch_memory_bytes", "cpu_quota", "memory_limit", "out_of_memory_kills"]

_NO_LIMIT = 1 << 60
"""cgroup v1 prints "no limit" as a page-rounded 2^63."""

_BATCH_CORES = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "PBS_NCPUS", "NCPUS", "LSB_DJOB_NUMPROC", "NSLOTS")


@dataclass(frozen=True, kw_only=True)
class MemoryLimit:
    """The tightest memory limit above this process; ``used_bytes`` leaves out page cache that can be dropped."""

    limit_bytes: int
    used_bytes: int
    source: str


@dataclass(frozen=True, kw_only=True)
class _Hierarchy:
    """Where one controller is mounted and in which group we are."""

    mount: str
    group: str
    version: int

    def folders(self) -> Iterator[str]:
        """Our group and every group above it: the tightest limit counts, wherever it stands.

        Inside a container the group named by ``/proc/self/cgroup`` may not exist below the mount; the reads of such
        folders find nothing, and the mount itself is the container's own group.
        """
        parts = [part for part in self.group.split("/") if part not in ("", "..")]
        for depth in range(len(parts), 0, -1):
            yield self.mount + "/" + "/".join(parts[:depth])
        yield self.mount


def _hierarchy(machine: Machine, controller: str) -> _Hierarchy | None:
    """The v1 hierarchy of ``controller`` where there is one, else the v2 tree."""
    groups = text_or_none(machine, "/proc/self/cgroup")
    mounts = text_or_none(machine, "/proc/self/mounts") or text_or_none(machine, "/proc/mounts")
    if groups is None or mounts is None:
        return None
    unified: _Hierarchy | None = None
    points = [fields for fields in (line.split() for line in mounts.splitlines()) if len(fields) >= 4]  # noqa: PLR2004
    for line in groups.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            mount = next((fields[1] for fields in points if fields[2] == "cgroup2"), None)
            unified = _Hierarchy(mount=mount, group=group, version=2) if mount else None
        elif controller in controllers.split(","):
            for fields in points:
                if fields[2] == "cgroup" and controller in fields[3].split(","):
                    return _Hierarchy(mount=fields[1], group=group, version=1)
    return unified


def cpu_quota(machine: Machine) -> tuple[float, str] | None:
    """The cgroup's share of CPU time in cores, with the file it stands in; None where there is no quota."""
    tree = _hierarchy(machine, "cpu")
    if tree is None:
        return None
    found: list[tuple[float, str]] = []
    for folder in tree.folders():
        if tree.version == 2:  # noqa: PLR2004 - the cgroup version
            file = f"{folder}/cpu.max"
            quota_text, _, period_text = (text_or_none(machine, file) or "").partition(" ")
        else:
            file = f"{folder}/cpu.cfs_quota_us"
            quota_text = text_or_none(machine, file) or ""
            period_text = text_or_none(machine, f"{folder}/cpu.cfs_period_us") or ""
        quota, period = whole_number(quota_text), whole_number(period_text)
        if quota and quota > 0 and period and period > 0:
            found.append((quota / period, file))
    return min(found, default=None)


def memory_limit(machine: Machine) -> MemoryLimit | None:
    """The tightest cgroup memory limit above us; None where there is none."""
    tree = _hierarchy(machine, "memory")
    if tree is None:
        return None
    limit_name, used_name, cache_key = (
        ("memory.max", "memory.current", "inactive_file")
        if tree.version == 2  # noqa: PLR2004 - the cgroup version
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    found: list[MemoryLimit] = []
    for folder in tree.folders():
        limit = whole_number(text_or_none(machine, f"{folder}/{limit_name}"))
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = whole_number(text_or_none(machine, f"{folder}/{used_name}")) or 0
        droppable = _stat(text_or_none(machine, f"{folder}/memory.stat"), cache_key)
        found.append(
            MemoryLimit(limit_bytes=limit, used_bytes=max(0, used - droppable), source=f"{folder}/{limit_name}")
        )
    return min(found, key=lambda each: each.limit_bytes - each.used_bytes, default=None)


def _stat(text: str | None, key: str) -> int:
    for line in (text or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return whole_number(value) or 0
    return 0


def batch_cores(env: Mapping[str, str]) -> tuple[float, str] | None:
    """The cores a batch system gave this job, with the variable that says so."""
    for name in _BATCH_CORES:
        count = whole_number(env.get(name))
        if count and count > 0:
            return float(count), name
    return None


def batch_memory_bytes(env: Mapping[str, str]) -> tuple[int, str] | None:
    """The memory SLURM gave this job on this node (its variables are in MiB), with the variable that says so."""
    node = whole_number(env.get("SLURM_MEM_PER_NODE"))
    if node and node > 0:
        return node << 20, "SLURM_MEM_PER_NODE"
    each, cores = whole_number(env.get("SLURM_MEM_PER_CPU")), batch_cores(env)
    if each and each > 0 and cores is not None:
        return int(each * cores[0]) << 20, "SLURM_MEM_PER_CPU"
    return None


def out_of_memory_kills(machine: Machine) -> int:
    """Kills the kernel counted in our cgroup so far; 0 where it keeps no count."""
    tree = _hierarchy(machine, "memory") if machine.system == "Linux" else None
    if tree is None:
        return 0
    name = "memory.events" if tree.version == 2 else "memory.oom_control"  # noqa: PLR2004 - the cgroup version
    folder = next(tree.folders())
    return _stat(text_or_none(machine, f"{folder}/{name}") or text_or_none(machine, f"{tree.mount}/{name}"), "oom_kill")
