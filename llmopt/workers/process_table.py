"""What the guardian knows about processes: who descends from whom, who carries a run tag, and how to end one safely.

Standard library only; it lies beside ``guardian.py``, which is started by path. A process is known by its id *and* its
start time, because ids are used again. Linux is read from /proc; elsewhere ``ps`` is asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "LINUX",
    "TAG_VARIABLE",
    "Cgroup",
    "Process",
    "adopt_orphans",
    "boot_id",
    "command_of",
    "descendants",
    "die_with_parent",
    "identity",
    "in_container",
    "own_cgroup",
    "read_process",
    "read_table",
    "segments_of",
    "send_signal",
    "tag_of",
    "user_of",
]

TAG_VARIABLE = "LLMOPT_RUN_TAG"
LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SHARED_MEMORY = "/dev/shm/"  # noqa: S108 - read only here; segments are matched by who mapped them


@dataclass(frozen=True)
class Process:
    """One row of the table; ``start`` is an opaque text, equal only for the same process of the same boot."""

    pid: int
    parent: int
    group: int
    session: int
    start: str
    zombie: bool


def read_table() -> dict[int, Process]:
    """Every process visible to us, by id."""
    if not LINUX:
        return _table_from_ps()
    rows = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - only names
    return {row.pid: row for row in rows if row}


def read_process(pid: int) -> Process | None:
    """One row of the table (Linux); None when there is no such process."""
    try:
        handle = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None  # it ended meanwhile
    try:
        text = os.read(handle, 4096)
    except OSError:
        return None
    finally:
        os.close(handle)
    fields = text[text.rfind(b")") + 2 :].split()  # the name may itself hold spaces and brackets
    parent, group, session = int(fields[1]), int(fields[2]), int(fields[3])
    return Process(pid, parent, group, session, fields[19].decode(), fields[0] in b"ZX")


def _table_from_ps() -> dict[int, Process]:
    out = subprocess.run(
        ["/bin/ps", "-axo", "pid=,ppid=,pgid=,sess=,stat=,lstart="], capture_output=True, text=True, check=False
    ).stdout
    rows = (line.split(None, 5) for line in out.splitlines())
    table = {}
    for pid, parent, group, session, state, start in (row for row in rows if len(row) == 6):  # noqa: PLR2004
        number = int(session, 16) if session.isalnum() else 0
        table[int(pid)] = Process(int(pid), int(parent), int(group), number, start.strip(), state.startswith("Z"))
    return table


def identity(pid: int) -> list[int | str] | None:
    """Id and start time of a living process, as they stand in a record; None when there is none."""
    row = read_process(pid) if LINUX else _table_from_ps().get(pid)
    return [row.pid, row.start] if row and not row.zombie else None


def descendants(table: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """The ids of everything below ``roots`` (and the roots that exist)."""
    children: dict[int, list[int]] = {}
    for row in table.values():
        children.setdefault(row.parent, []).append(row.pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in table]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting.extend(children.get(pid, ()))
    return found


def in_container(ident: str, pids: Iterable[int]) -> set[int]:
    """Those of ``pids`` that lie in the container of this id: the names of their cgroups tell, to everybody."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if ident in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace"):
                found.add(pid)
    return found


def tag_of(pid: int) -> str | None:
    """The run tag in a process's environment; None where it has none or may not be read."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    prefix = f"{TAG_VARIABLE}=".encode()
    return next(
        (e[len(prefix) :].decode(errors="replace") for e in environment.split(b"\0") if e.startswith(prefix)), None
    )


def user_of(pid: int) -> int | None:
    """Whose process it is (real user id of its /proc entry); None when it is gone or cannot be told."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}").stat().st_uid
    return None


def command_of(pid: int) -> str:
    """The program a stranger runs, to name it; only the first word, since arguments may hold secrets."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    return ""


@functools.cache
def boot_id() -> str:
    """A text that changes with every boot of the machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return subprocess.run(
        ["/usr/sbin/sysctl", "-n", "kern.boottime"], capture_output=True, text=True, check=False
    ).stdout.strip()


def segments_of(pids: Collection[int]) -> set[str]:
    """The shared-memory files that these processes have mapped or open and that belong to our user."""
    found: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError), Path(f"/proc/{pid}/maps").open(encoding="utf-8", errors="replace") as maps:
            found.update(line.split(None, 5)[5].rstrip("\n") for line in maps if _SHARED_MEMORY in line)
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - only names
                with contextlib.suppress(OSError):
                    found.add(str(Path(f"/proc/{pid}/fd/{name}").readlink()))
    return {path for path in found if path.startswith(_SHARED_MEMORY) and _ours(path)}


def _ours(path: str) -> bool:
    try:
        return Path(path).lstat().st_uid == os.getuid()
    except OSError:
        return False


def send_signal(process: Process, number: int) -> bool:
    """Signal exactly this process, never a later one with the same id; False when it is gone."""
    if not hasattr(os, "pidfd_open"):
        current = read_table().get(process.pid)
        if current is None or current.start != process.start:
            return False
        os.kill(process.pid, number)
        return True
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:  # the handle is taken first: what is compared afterwards is what it points to
        current = read_process(process.pid)
        if current is None or current.start != process.start:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def adopt_orphans() -> bool:
    """Become the parent of every orphaned descendant (Linux only); says whether that worked."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int) -> bool:
    """Have the kernel signal this process when the thread that forked it ends (Linux only)."""
    return _prctl(_PR_SET_PDEATHSIG, number)


def _prctl(option: int, value: int) -> bool:
    if not LINUX:
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) == 0)


class Cgroup:
    """A cgroup v2 folder of our own: a process cannot leave it, and one write kills all that are in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> bool:
        """Create it; False where we may not."""
        try:
            self.folder.mkdir()
        except OSError:
            return False
        return (self.folder / "cgroup.kill").exists()

    def enter(self) -> None:
        """Move the calling process into it; raises OSError where that is not allowed."""
        (self.folder / "cgroup.procs").write_text("0", encoding="ascii")

    def pids(self) -> set[int]:
        """Everything in it and below it."""
        found: set[int] = set()
        for path in (self.folder, *(p for p in self.folder.rglob("*") if p.is_dir())):
            with contextlib.suppress(OSError):
                found.update(int(word) for word in (path / "cgroup.procs").read_text(encoding="ascii").split())
        return found

    def kill(self) -> None:
        """SIGKILL to everything in it at once."""
        with contextlib.suppress(OSError):
            (self.folder / "cgroup.kill").write_text("1", encoding="ascii")

    def memory_kills(self) -> int:
        """How often the kernel killed here for memory; 0 where it does not count for this cgroup."""
        with contextlib.suppress(OSError):
            rows = (line.split() for line in (self.folder / "memory.events").read_text(encoding="ascii").splitlines())
            return next((int(value) for name, value in rows if name == "oom_kill"), 0)
        return 0

    def remove(self) -> None:
        """Delete it and what is below; a cgroup that still holds a process stays."""
        for path in sorted((p for p in self.folder.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def own_cgroup() -> Path | None:
    """The cgroup v2 folder below which we were given leave to make our own; None where it was not delegated."""
    try:
        rows = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        mount = next(row.split()[4] for row in rows if " - cgroup2 " in row)
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        inside = next(line[3:] for line in lines if line.startswith("0::"))
        folder = Path(mount + inside.rstrip("/"))
        return folder if _delegated(folder, inside) and os.access(folder / "cgroup.procs", os.W_OK) else None
    except (OSError, StopIteration):
        return None


def _delegated(folder: Path, inside: str) -> bool:
    """A manager that gives a cgroup away marks it or hands it to the user; the root of a container is its own."""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(folder, name) == b"1"
    return inside == "/" or (folder.stat().st_uid == os.getuid() != 0)
