"""Our side of the guardian: start it when first needed, ask it to start and stop engines, notice when it is gone.

The guardian is a process of its own (``workers/guardian.py``) and the parent of every engine. Ours is only its client:
it adopts nobody's children and may die at any moment without leaving anything behind. All calls are thread-safe and
blocking; from asyncio use ``asyncio.to_thread``. After a fork the child has no guardian and starts one if it asks.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeAlias, cast

from llmopt.errors import EngineDied, EngineError, EngineStartError, StorageError
from llmopt.paths import runtime_folder
from llmopt.records import ContainerRun
from llmopt.runtime.environment import child_environment

__all__ = [
    "Child",
    "Containment",
    "ExitStatus",
    "Guardian",
    "StopReport",
    "Swept",
    "containment_level",
    "sweep_orphans",
]

Containment: TypeAlias = Literal["cgroup", "tag", "group"]
"""``cgroup``: a cgroup v2 for each engine; ``tag``: session, adoption and run tag; ``group``: process group only.

Message ``guardian.level_…`` says it to a user.
"""

SCRIPT = Path(__file__).resolve().parent.parent / "workers" / "guardian.py"
START_CAP_S = 30.0
ANSWER_CAP_S = 30.0
STOP_MARGIN_S = 25.0  # what the ladder takes beyond the grace: the tree's terms, the kill, the reaping
LOG_CAP_BYTES = 64 << 20
COMPLAINTS = "guardian.err"
DETAIL_LETTERS = 2000
STACK_S = 0.2
SLICE_S = 1.0
ASLEEP_S = 5.0
"""A wait of one slice that took this much longer was no waiting: our process stood still."""


@dataclass(frozen=True, kw_only=True)
class ExitStatus:
    """How a child's main process ended: by ``code``, by ``signal``, or ``lost`` together with its guardian."""

    code: int | None = None
    signal: int | None = None
    lost: bool = False
    memory_kills: int = 0
    """How often the kernel killed in its cgroup for lack of memory, where that is counted."""
    peak_rss_bytes: int = 0
    cpu_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StopReport:
    """How a child's whole tree went.

    ``exited`` before we asked, after TERM to its main process or to the tree, by KILL, or ``lost`` with the guardian.
    ``survivors`` are what even KILL did not end (stuck in the kernel).
    """

    how: Literal["exited", "terminated", "terminated_tree", "killed", "lost"]
    seconds: float
    survivors: tuple[int, ...] = ()
    status: ExitStatus | None = None


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep for orphans found: the processes it removed, and strangers (id, program) it named and left."""

    removed: tuple[int, ...] = ()
    strangers: tuple[tuple[int, str], ...] = ()


class Child:
    """One engine under guard. Made by ``Guardian.spawn``; a context manager that stops it."""

    def __init__(self, guardian: Guardian, *, pid: int, tag: str, argv: Sequence[str], log_path: Path) -> None:
        self.pid = pid
        self.tag = tag
        self.argv = tuple(argv)
        self.log_path = log_path
        self._guardian = guardian
        self._status: ExitStatus | None = None
        self._ended = threading.Event()
        self._calls: list[Callable[[ExitStatus], object]] = []
        self._lock = threading.Lock()

    def poll(self) -> ExitStatus | None:
        """How its main process ended; None while it runs."""
        return self._status

    def wait(self, timeout_s: float | None = None) -> ExitStatus | None:
        """Wait for its main process; None when ``timeout_s`` passed first."""
        self._ended.wait(timeout_s)
        return self._status

    def pids(self) -> tuple[int, ...]:
        """Every living process of its tree, whatever session or parent it moved to; empty when all is gone."""
        if self._guardian.gone:
            return ()
        return tuple(self._guardian.ask({"op": "pids", "tag": self.tag})["pids"])

    def stop(self, grace_s: float = 10.0) -> StopReport:
        """Bring the whole tree down and wait until it is reaped; safe to repeat.

        TERM to the main process, after ``grace_s`` (or when it ended without its children) TERM to the tree, then KILL.
        """
        before = self._status
        began_s = time.monotonic()
        try:
            answer = self._guardian.ask(
                {"op": "stop", "tag": self.tag, "grace_s": grace_s}, cap_s=grace_s + STOP_MARGIN_S
            )
        except EngineDied:
            self._ended.wait(STOP_MARGIN_S)  # set when everything of a lost guardian is gone
            return StopReport(how="lost", seconds=time.monotonic() - began_s, status=self._status)
        how: Literal["exited", "terminated", "terminated_tree", "killed"]
        if answer["how"] == "kill":
            how = "killed"
        elif before is not None or answer["how"] == "exited":
            how = "exited"
        else:
            how = "terminated" if answer["how"] == "main" else "terminated_tree"
        return StopReport(how=how, seconds=answer["seconds"], survivors=tuple(answer["survivors"]), status=self._status)

    def when_ended(self, call: Callable[[ExitStatus], object]) -> None:
        """Have ``call`` called once its main process has ended (from another thread, or at once); it must not block."""
        with self._lock:
            if self._status is None:
                self._calls.append(call)
                return
        call(self._status)

    def ended(self, status: ExitStatus) -> None:
        """Note the end; called by the guardian's client, once."""
        with self._lock:
            self._status = status
            calls, self._calls = self._calls, []
        self._ended.set()
        for call in calls:
            call(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Guardian:
    """A running guardian process. Use ``Guardian.shared()``; make one of your own only to end it yourself."""

    _shared: ClassVar[Guardian | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()
    _living: ClassVar[weakref.WeakSet[Guardian]] = weakref.WeakSet()
    _hooked: ClassVar[bool] = False

    @classmethod
    def shared(cls) -> Guardian:
        """The guardian of this process, started when first asked for, and again when it or its folder was lost."""
        with cls._lock:
            if cls._shared is None or cls._shared.gone or not cls._shared.folder.is_dir():
                cls._shared = cls()
            return cls._shared

    def __init__(self, folder: Path | None = None, *, cgroups: bool = True) -> None:
        if os.name != "posix":
            raise EngineError("guardian.unsupported", system=sys.platform)
        self.folder = _guard_folder(folder)
        self._owner = os.getpid()
        self._children: dict[str, Child] = {}
        self._answers: dict[int, Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._state = threading.Lock()
        self._hello: Future[dict[str, Any]] = Future()
        self._closing = False
        self._lost = False
        self._channel, theirs = socket.socketpair()
        level = "best" if cgroups else "tag"
        with theirs, (self.folder / COMPLAINTS).open("ab") as complaints:
            self._process = subprocess.Popen(
                [*_python(), str(SCRIPT), "serve", str(self.folder), str(theirs.fileno()), str(self._owner), level],
                stdin=subprocess.DEVNULL,
                stdout=complaints,
                stderr=complaints,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # the terminal's Ctrl-C is ours alone
                env=child_environment({}),
            )
        self.pids: tuple[int, ...] = (self._process.pid,)
        self._reader = threading.Thread(target=self._listen, name="llmopt-guardian", daemon=True)
        self._reader.start()
        self._hook()
        Guardian._living.add(self)
        try:
            hello = self._await(self._hello, START_CAP_S)
        except EngineError as error:
            self.close()
            error.detail = self._complaints()
            raise
        self.containment: Containment = hello["containment"]
        self.pids = (self._process.pid, hello["guardian"])
        """The two halves of the guardian."""
        self.swept = _swept(hello)
        """What an earlier crash had left, removed when this guardian started."""

    @property
    def gone(self) -> bool:
        """Whether it cannot be used (any more) by this process."""
        return self._lost or self._closing or os.getpid() != self._owner

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        cwd: Path,
        stdin: str | None = None,
        oom_score_adj: int | None = 500,
        sockets: Sequence[Path] = (),
        container: ContainerRun | None = None,
        log_cap_bytes: int = LOG_CAP_BYTES,
    ) -> Child:
        """Start a program under guard: own session, allow-listed environment plus ``env``, output to ``log_path``.

        ``stdin`` is the whole of its standard input. ``sockets`` and ``container`` are removed when it is gone, also
        after a crash; the processes of the container belong to it.
        Raises EngineStartError when the program cannot be run at all.
        """
        tag = secrets.token_hex(16)
        child = Child(self, pid=0, tag=tag, argv=argv, log_path=log_path)
        self._children[tag] = child  # before the answer: its end may be told right behind
        request = {
            "op": "spawn",
            "tag": tag,
            "argv": list(argv),
            "env": child_environment(env),
            "log": str(log_path),
            "log_cap_bytes": log_cap_bytes,
            "cwd": str(cwd),
            "stdin": stdin,
            "oom_score_adj": oom_score_adj,
            "sockets": [str(path) for path in sockets],
            "container": {"id_file": container.id_file, "remove": list(container.remove)} if container else None,
        }
        try:
            child.pid = self.ask(request)["pid"]
        except EngineStartError:
            self._children.pop(tag, None)
            raise
        except BaseException:  # boundary: interrupted or unanswered, it may be started all the same
            with contextlib.suppress(EngineError):
                self._send({"op": "stop", "tag": tag, "grace_s": 0.0, "id": 0})
            raise
        return child

    def ask(self, request: Mapping[str, Any], *, cap_s: float | None = None) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises EngineDied when the guardian is gone."""
        answer: Future[dict[str, Any]] = Future()
        number = next(self._numbers)
        self._answers[number] = answer
        try:
            self._send({**request, "id": number})
            return self._await(answer, ANSWER_CAP_S if cap_s is None else cap_s)
        finally:
            self._answers.pop(number, None)

    def close(self, cap_s: float = 20.0) -> None:
        """Stop every child and end the guardian; safe to repeat, and nothing in a forked process."""
        if os.getpid() != self._owner:
            return
        with self._state:
            self._closing = True
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        self._reader.join(cap_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(cap_s)

    def forget(self) -> None:
        """In a forked child: close what was inherited, without a word to the guardian."""
        os.close(self._channel.detach())
        self._process.returncode = 0  # it is not our child: never wait for it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, request: Mapping[str, Any]) -> None:
        if os.getpid() != self._owner:
            raise EngineError("guardian.other_process")
        line = json.dumps(request).encode() + b"\n"
        with self._state:
            if self._lost or self._closing:
                raise EngineDied("guardian.lost")
            try:
                self._channel.sendall(line)
            except OSError:
                raise EngineDied("guardian.lost") from None

    def _await(self, answer: Future[dict[str, Any]], cap_s: float) -> dict[str, Any]:
        left_s = cap_s
        while left_s > 0:
            began_s, wait_s = time.monotonic(), min(SLICE_S, left_s)
            with contextlib.suppress(FutureTimeout):
                return answer.result(wait_s)
            took_s = time.monotonic() - began_s
            # where we were stopped, or the machine slept, nobody could answer in that time: it does not count
            left_s = cap_s if took_s > wait_s + ASLEEP_S else left_s - took_s
        raise EngineError("guardian.silent", seconds=round(cap_s), detail=self._where_it_is())

    def _where_it_is(self) -> str:
        """Why it may not answer: what the system says it does, and its own stack where it still handles signals."""
        said = []
        for pid in self.pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGUSR1)
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                where = Path(f"/proc/{pid}/wchan").read_text(encoding="utf-8")
                said.append(f"{pid}: {status.partition('State:')[2].partition(chr(10))[0].strip()} {where}")
        time.sleep(STACK_S)
        return "\n".join([*said, self._complaints()])

    def _complaints(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / COMPLAINTS).read_text(encoding="utf-8", errors="replace")[-DETAIL_LETTERS:]
        return ""

    def _listen(self) -> None:
        """Take in answers and events until the other end closes; runs in its own thread."""
        with contextlib.suppress(OSError), self._channel.makefile("rb") as lines:
            for line in lines:
                self._take(json.loads(line))
        self._part()

    def _take(self, message: dict[str, Any]) -> None:
        event = message.get("event")
        if event == "hello":
            self._hello.set_result(message)
        elif event == "exit":
            child = self._children.get(message["tag"])
            if child:
                fields = ("code", "signal", "memory_kills", "peak_rss_bytes", "cpu_s")
                child.ended(ExitStatus(**{name: message[name] for name in fields}))
        elif event == "gone":
            self._children.pop(message["tag"], None)
        elif answer := self._answers.get(message["id"]):
            if "ok" in message:
                answer.set_result(message["ok"])
            else:
                answer.set_exception(_refusal(message["error"]))

    def _part(self) -> None:
        """The guardian ended, as asked or not: clear up what it may have left, then let nobody wait any longer."""
        with self._state:
            self._lost = True
            waiting = [self._hello, *self._answers.values()]
        self._channel.close()
        if (
            not self._closing
        ):  # both halves may have been killed: then a sweep is all that stands between us and orphans
            with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
                self._process.wait(ANSWER_CAP_S)
                sweep_orphans(self.folder)
        for child in list(self._children.values()):
            if child.poll() is None:
                child.ended(ExitStatus(lost=True))
        self._children.clear()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(EngineDied("guardian.lost"))

    @classmethod
    def _hook(cls) -> None:
        if not cls._hooked:
            cls._hooked = True
            os.register_at_fork(after_in_child=cls._after_fork)
            atexit.register(cls._at_exit)

    @classmethod
    def _after_fork(cls) -> None:
        """In a forked child: let go of the parent's guardian, or its end would not be noticed while we live."""
        cls._lock = threading.Lock()
        cls._shared = None
        for guardian in list(cls._living):
            guardian.forget()
        cls._living.clear()

    @classmethod
    def _at_exit(cls) -> None:
        for guardian in list(cls._living):
            guardian.close(cap_s=10.0)


def sweep_orphans(folder: Path | None = None) -> Swept:
    """Remove what guardians that were killed left behind (also done whenever one starts). Raises StorageError."""
    place = _guard_folder(folder)
    done = subprocess.run(
        [*_python(), str(SCRIPT), "sweep", str(place)], capture_output=True, timeout=60, check=True, text=True
    )
    return _swept(json.loads(done.stdout))


def containment_level() -> Containment:
    """How well an engine can be held here, for ``status``: asks a guardian script that starts nothing (50 ms)."""
    done = subprocess.run([*_python(), str(SCRIPT), "level"], capture_output=True, timeout=60, check=True, text=True)
    return cast("Containment", done.stdout.strip())


def _swept(answer: Mapping[str, Any]) -> Swept:
    strangers = tuple((entry["pid"], entry["command"]) for entry in answer["strangers"])
    return Swept(removed=tuple(answer["removed"]), strangers=strangers)


def _refusal(error: Mapping[str, Any]) -> EngineError:
    key = "guardian.not_found" if error["errno"] == errno.ENOENT else "guardian.spawn_failed"
    return EngineStartError(key, why=error["text"])


def _python() -> list[str]:
    """This interpreter, isolated and without site: the guardian needs the standard library only and starts at once."""
    return [sys.executable, "-I", "-S"]


def _guard_folder(folder: Path | None) -> Path:
    return _private(folder or _private(runtime_folder()) / "guard")


def _private(folder: Path) -> Path:
    """Make ``folder`` ours alone: what it says is acted upon with signals, so nobody else may write there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise StorageError("guardian.folder_not_private", folder=str(folder))
    except OSError as error:
        raise StorageError("guardian.folder_unusable", folder=str(folder), why=error.strerror or str(error)) from error
    return folder
