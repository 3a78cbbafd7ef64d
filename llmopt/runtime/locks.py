"""One measuring run a machine: two at once would measure each other.

The lock is the kernel's (``flock``), so it is free again the moment its holder dies. Its file names the holder for the
message to the next one; it is shared by all users of the machine and lies in the system's temporary folder, or where
``LLMOPT_LOCK_FILE`` says (tests, or two containers that share a machine).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from llmopt.errors import StorageError, UsageError

__all__ = ["Holder", "MachineBusy", "current_holder", "measuring_lock"]

POLL_S = 0.5
GLANCES, GLANCE_S = 4, 0.02
NOTE_BYTES = 4096
COMMAND_LETTERS = 300
SHARED_MODE = 0o666
BEYOND_NOTE = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who measures: process id, what for, its command line, and since when (seconds since 1970)."""

    pid: int
    what: str
    command: str
    since_s: float


class MachineBusy(UsageError):
    """Another run measures on this machine; ``holder`` is None where it could not be read."""

    def __init__(self, holder: Holder | None) -> None:
        if holder is None:
            super().__init__("locks.busy_unknown", file=str(_lock_file()))
        else:
            since = datetime.fromtimestamp(holder.since_s).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            super().__init__("locks.busy", pid=holder.pid, what=holder.what, command=holder.command, since=since)
        self.holder = holder


class MeasuringLock:
    """Holds the machine while inside ``with`` or ``async with``; made by ``measuring_lock``."""

    def __init__(self, what: str, *, wait: bool, on_wait: Callable[[Holder | None], None] | None) -> None:
        self._what = what
        self._wait = wait
        self._on_wait = on_wait
        self._handle = -1

    def __enter__(self) -> Self:
        while not self._attempt():
            time.sleep(POLL_S)
        return self

    async def __aenter__(self) -> Self:
        while not self._attempt():  # noqa: ASYNC110 - the kernel tells nobody when another process lets go
            await asyncio.sleep(POLL_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _sign(self._handle, None)
        _unlock(self._handle)
        _Held.close(self._handle)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _attempt(self) -> bool:
        """Take it; False where it is held and we are willing to wait. Raises MachineBusy where we are not."""
        file = _lock_file()
        handle = _open(file)
        taken = _try_lock(handle)
        for _ in range(GLANCES if not taken else 0):
            time.sleep(GLANCE_S)  # ``current_holder`` of another process may hold it for a moment, only to look
            if taken := _try_lock(handle):
                break
        if taken:
            self._handle = handle
            _Held.keep(handle)
            _sign(handle, self._what)
            return True
        os.close(handle)
        if not self._wait:
            raise MachineBusy(_read(file))
        if self._on_wait is not None:
            self._on_wait(_read(file))
            self._on_wait = None
        return False


def measuring_lock(
    what: str, *, wait: bool = False, on_wait: Callable[[Holder | None], None] | None = None
) -> MeasuringLock:
    """The machine's measuring lock, to be entered with ``with`` or ``async with``; not re-entrant.

    Entering raises MachineBusy where another run (or another task of this one) holds it, unless ``wait``; then
    ``on_wait`` is told once for whom. Raises StorageError where no lock can be had.
    """
    return MeasuringLock(what, wait=wait, on_wait=on_wait)


def current_holder() -> Holder | None:
    """Who holds the lock now; None when it is free (or its note cannot be read)."""
    file = _lock_file()
    if not file.exists():
        return None
    handle = _open(file)
    try:
        if _try_lock(handle):
            _unlock(handle)
            return None
        return _read(file)
    finally:
        os.close(handle)


class _Held:
    """Handles that a forked child must close, or the lock would outlive the run that took it."""

    handles: ClassVar[set[int]] = set()
    hooked: ClassVar[bool] = False

    @classmethod
    def keep(cls, handle: int) -> None:
        cls.handles.add(handle)
        if not cls.hooked and hasattr(os, "register_at_fork"):
            cls.hooked = True
            os.register_at_fork(after_in_child=cls.release)

    @classmethod
    def close(cls, handle: int) -> None:
        cls.handles.discard(handle)
        os.close(handle)

    @classmethod
    def release(cls) -> None:
        """Point the handles at nothing; their numbers stay taken, so that a later close hits no other file."""
        nothing = os.open(os.devnull, os.O_RDWR)
        for handle in cls.handles:
            os.dup2(nothing, handle, inheritable=False)
        os.close(nothing)
        cls.handles.clear()


def _lock_file() -> Path:
    given = os.environ.get("LLMOPT_LOCK_FILE")
    if given:
        return Path(given)
    shared = Path("/tmp")  # noqa: S108 - one place for all users, whatever their TMPDIR; opened without following links
    return (shared if shared.is_dir() else Path(tempfile.gettempdir())) / "llmopt-measuring.lock"


def _open(file: Path) -> int:
    """A handle on the lock file, made if need be, writable where possible; another user's may only be readable."""
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    # an existing file is opened without O_CREAT: in a sticky folder Linux refuses that for another user's file
    failure = OSError()
    for attempt in (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CREAT):
        try:
            handle = os.open(file, attempt | flags, SHARED_MODE)
        except OSError as error:
            failure = error
        else:
            _share(handle, file)
            return handle
    raise StorageError("locks.unusable", file=str(file), why=failure.strerror or str(failure)) from failure


def _share(handle: int, file: Path) -> None:
    """Refuse what is no plain file; give one of ours to all users, because the umask took that away."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise StorageError("locks.unusable", file=str(file), why="not a regular file")
    if sys.platform != "win32" and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) != SHARED_MODE:
        os.fchmod(handle, SHARED_MODE)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        os.lseek(handle, BEYOND_NOTE, os.SEEK_SET)  # a byte others need not read: Windows locks forbid reading
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(handle: int) -> None:
        os.lseek(handle, BEYOND_NOTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _sign(handle: int, what: str | None) -> None:
    """Write who holds it (None: nobody); where the file is another user's the lock holds all the same, unsigned."""
    note = b""
    if what is not None:
        command = shlex.join(sys.argv)[:COMMAND_LETTERS]
        note = json.dumps(asdict(Holder(pid=os.getpid(), what=what, command=command, since_s=time.time()))).encode()
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, note)


def _read(file: Path) -> Holder | None:
    try:
        with file.open("rb") as source:
            return Holder(**json.loads(source.read(NOTE_BYTES)))
    except (OSError, ValueError, TypeError):
        return None
