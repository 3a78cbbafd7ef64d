"""Where facts about a machine are read: files, environment and system calls behind one Protocol.

A recorded machine (see ``recorded.py``) answers the same questions, so that every probe is tested on machines we do
not have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LiveMachine", "Machine", "text_or_none", "whole_number"]

_TEXT_LIMIT = 16 << 20  # a 512-thread /proc/cpuinfo has 1 MB; nothing we read is larger


@runtime_checkable
class Machine(Protocol):
    """The questions a probe may ask. ``text`` and ``names`` raise OSError as the system gives it."""

    system: str
    """``Linux``, ``Darwin`` or ``Windows``."""
    architecture: str

    @property
    def env(self) -> Mapping[str, str]:
        """The environment of this process."""
        ...

    def text(self, path: str) -> str:
        """The content of a small system file."""
        ...

    def names(self, folder: str) -> tuple[str, ...]:
        """The sorted names in a folder."""
        ...

    def affinity(self) -> frozenset[int] | None:
        """The logical CPUs this process may run on; None where the system cannot say."""
        ...

    def disk_free(self, path: str) -> int:
        """Free bytes where ``path`` lies."""
        ...

    def sysctl(self, name: str) -> str | int | None:
        """A value of the BSD sysctl tree (macOS), else None."""
        ...

    def psutil_memory(self) -> tuple[int, int, int, int]:
        """RAM total and available, swap total and free, for systems without ``/proc``; raises ImportError."""
        ...

    def library(self, name: str) -> Any:
        """A vendor's Python library (``pynvml``, ``amdsmi``), imported now; raises ImportError."""
        ...


class LiveMachine:
    """This machine. ``root`` serves tests and containers that mount the host's ``/proc`` elsewhere."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.system, self.architecture = _system()

    @property
    def env(self) -> Mapping[str, str]:
        """The environment of this process."""
        return os.environ

    def text(self, path: str) -> str:
        """A file below the root."""
        with (self.root / path.lstrip("/")).open(encoding="utf-8", errors="replace") as file:
            return file.read(_TEXT_LIMIT)

    def names(self, folder: str) -> tuple[str, ...]:
        """A folder below the root."""
        return tuple(sorted(os.listdir(self.root / folder.lstrip("/"))))  # noqa: PTH208 - no Path objects needed

    def affinity(self) -> frozenset[int] | None:
        """The CPUs the scheduler may use."""
        if hasattr(os, "sched_getaffinity"):
            return frozenset(os.sched_getaffinity(0))
        count = os.cpu_count()
        return frozenset(range(count)) if count else None

    def disk_free(self, path: str) -> int:
        """Free bytes where ``path`` lies."""
        if hasattr(os, "statvfs"):
            figures = os.statvfs(path)
            return figures.f_bavail * figures.f_frsize
        import shutil  # noqa: PLC0415 - Windows only

        return shutil.disk_usage(path).free

    def sysctl(self, name: str) -> str | int | None:
        """A value of the BSD tree."""
        return _sysctl(name) if self.system == "Darwin" else None

    def psutil_memory(self) -> tuple[int, int, int, int]:
        """Memory by psutil."""
        import psutil  # noqa: PLC0415 - 30 ms that Linux, with its /proc, does not need

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        return int(memory.total), int(memory.available), int(swap.total), int(swap.free)

    def library(self, name: str) -> Any:
        """The package, imported now."""
        import importlib  # noqa: PLC0415 - only machines with an accelerator need it

        return importlib.import_module(name)


def _system() -> tuple[str, str]:
    """Name and architecture of the system, without the 4 ms that the module ``platform`` takes where not needed."""
    if hasattr(os, "uname"):
        names = os.uname()
        return names.sysname, names.machine
    import platform  # noqa: PLC0415 - Windows only

    return platform.system(), platform.machine()


def _sysctl(name: str) -> str | int | None:
    """One value by ``sysctlbyname(3)``: no subprocess, as ``status`` must stay fast."""
    import ctypes  # noqa: PLC0415 - macOS only

    libc = ctypes.CDLL(None)
    size = ctypes.c_size_t(0)
    if libc.sysctlbyname(name.encode(), None, ctypes.byref(size), None, 0) != 0:
        return None
    buffer = ctypes.create_string_buffer(size.value)
    if libc.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, 0) != 0:
        return None
    raw = buffer.raw[: size.value]
    if size.value in (4, 8) and not name.endswith(("string", "model")):
        return int.from_bytes(raw, "little")
    return raw.rstrip(b"\0").decode(errors="replace")


def text_or_none(machine: Machine, path: str) -> str | None:
    """The stripped content of ``path``; None where it is missing or may not be read."""
    try:
        return machine.text(path).strip()
    except OSError:
        return None


def whole_number(text: str | None) -> int | None:
    """The integer a system file holds (decimal or 0x…); None for anything else, such as ``max``."""
    if text is None:
        return None
    try:
        return int(text.strip(), 0)
    except ValueError:
        return None
