"""RAM and swap as this process may use them."""

from __future__ import annotations

from llmopt.hardware.limits import batch_memory_bytes, memory_limit
from llmopt.hardware.machine import Machine, text_or_none
from llmopt.records import HostMemory

__all__ = ["host_memory"]


def host_memory(machine: Machine, sources: dict[str, str], unread: dict[str, str]) -> HostMemory:
    """RAM, swap and the tightest limit (cgroup, batch system); what may still be taken respects the limit too."""
    total, available, swap_total, swap_free = _memory(machine, sources, unread)
    limit: int | None = None
    group = memory_limit(machine)
    if group is not None and 0 < group.limit_bytes < (total or group.limit_bytes + 1):
        limit = group.limit_bytes
        available = min(available, max(0, limit - group.used_bytes)) if total else max(0, limit - group.used_bytes)
        sources["memory.limit"] = group.source
    batch = batch_memory_bytes(machine.env)
    if batch is not None and batch[0] < (limit or total or batch[0] + 1):
        limit, sources["memory.limit"] = batch
        available = min(available, limit)
    return HostMemory(
        total_bytes=total or (limit or 0),
        available_bytes=available,
        limit_bytes=limit,
        swap_total_bytes=swap_total,
        swap_free_bytes=swap_free,
    )


def _memory(machine: Machine, sources: dict[str, str], unread: dict[str, str]) -> tuple[int, int, int, int]:
    if machine.system != "Linux":
        try:
            figures = machine.psutil_memory()
        except ImportError:
            unread["memory.total"] = "hardware.no_psutil"
            return 0, 0, 0, 0
        sources["memory.total"] = "psutil"
        return figures
    text = text_or_none(machine, "/proc/meminfo")
    if text is None:
        unread["memory.total"] = "hardware.no_proc"
        return 0, 0, 0, 0
    sources["memory.total"] = "/proc/meminfo"
    figures_kib: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number = rest.split(maxsplit=1)[0] if rest.strip() else ""
        if number.isdigit():
            figures_kib[name] = int(number) << 10
    total = figures_kib.get("MemTotal", 0)
    # kernels before 3.14 print no MemAvailable; free plus page cache is its usual estimate
    guess = figures_kib.get("MemFree", 0) + figures_kib.get("Cached", 0) + figures_kib.get("Buffers", 0)
    available = figures_kib.get("MemAvailable", min(total, guess))
    return total, available, figures_kib.get("SwapTotal", 0), figures_kib.get("SwapFree", 0)
