"""Who holds a lease: a process told apart from every other, also after a restart or a reused process number."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOREIGN_LEASE_S", "Owner"]

FOREIGN_LEASE_S = 120.0
"""How old the heartbeat of an owner we cannot look up (another host, another container) may be."""


_HAS_PROC: bool = sys.platform == "linux"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process: number, start (in the kernel's own ticks where it tells), and the boot and namespace it lives in."""

    pid: int
    start: str
    boot: str

    @classmethod
    def this_process(cls) -> Owner:
        """The process that asks."""
        pid = os.getpid()
        return cls(pid=pid, start=_start(pid) or "", boot=_boot())

    def alive(self, *, heartbeat_age_s: float) -> bool:
        """Whether the process still runs; one we cannot look up counts as alive while its heartbeat is fresh."""
        if self.boot != _boot():
            return abs(heartbeat_age_s) < FOREIGN_LEASE_S
        start = _start(self.pid)
        return start is not None and start == self.start


def _start(pid: int) -> str | None:
    """When a process started, None where there is none (or only its unreaped remains)."""
    if _HAS_PROC:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # the command name, in parentheses, may itself hold spaces and parentheses
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in {"Z", "X"} else fields[19]
    import psutil  # noqa: PLC0415 - only where /proc does not tell

    try:
        return f"{psutil.Process(pid).create_time():.1f}"
    except psutil.Error:
        return None


def _boot() -> str:
    """This boot of this machine, and the process-number namespace we see (containers share the boot, not that)."""
    if _HAS_PROC:
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
            return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
        except OSError:
            return "linux"
    import psutil  # noqa: PLC0415 - only where /proc does not tell

    return f"{int(psutil.boot_time())}"
