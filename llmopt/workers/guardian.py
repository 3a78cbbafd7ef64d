"""The guardian: parent of every engine, so that none outlives us, whoever is killed and however.

Started by path as ``guardian.py serve FOLDER SOCKET_FD CLIENT_PID LEVEL``; speaks JSON lines over the socket. Three
lines of defence: (1) it stops every engine when the socket closes or the client's process ends; (2) it runs as a pair,
and each half ends everything when the other dies: the engines' main processes by the kernel (parent-death signal),
their orphans because the surviving half adopts them; (3) what was intended stands in FOLDER before it is done, so that
the next start (or ``guardian.py sweep FOLDER``) finds the orphans of a crash by user, boot, start time and run tag.
Strangers are named, never touched.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import json
import os
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmopt.workers import process_table as proc
    from llmopt.workers.orphans import sweep
    from llmopt.workers.ward import Json, Ward
else:  # started by path and isolated: the folder of this script is not on the search path
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import process_table as proc
    from orphans import sweep
    from ward import Json, Ward

REAP_CAP_S = 10.0
FAREWELL_GRACE_S = 1.0  # when our client is gone the whole tree must be down within 5 s
STEP_S = 0.05  # while something is being stopped
TICK_S = 1.0  # while something runs
SURVEY_S = 5.0


class Guardian:
    """The loop of the serving half: requests, ended children, ladders; one thread, nothing blocks."""

    def __init__(self, folder: Path, channel: socket.socket, client: int, *, cgroups: Path | None) -> None:
        self.wards: dict[str, Ward] = {}
        self._folder = folder
        self._channel = channel
        self._cgroups = cgroups
        self._inbox = b""
        self._outbox = b""
        self._closing = False
        self._told_to_end = False
        self._witness = os.getppid()
        self._selector = selectors.DefaultSelector()
        channel.setblocking(False)  # noqa: FBT003 - the standard name
        self._selector.register(channel, selectors.EVENT_READ, self._converse)
        self._watch_signals()
        if hasattr(os, "pidfd_open"):
            try:
                self._selector.register(os.pidfd_open(client), selectors.EVENT_READ, self._farewell)
            except OSError:
                self._farewell()

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)  # noqa: FBT003 - the standard name
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup = (reader, writer)
        self._selector.register(reader, selectors.EVENT_READ, lambda: reader.recv(4096))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._note_term)

    def _note_term(self, *_: object) -> None:
        self._told_to_end = True  # acted upon by the loop: a handler may interrupt anything

    def serve(self, swept: Json) -> None:
        """Work until the client is gone and nothing is left to guard."""
        self._say({"event": "hello", "containment": _level(self._cgroups), "guardian": os.getpid(), **swept})
        while self.wards or not self._closing:
            busy = any(ward.ladder for ward in self.wards.values())
            for key, _ in self._selector.select(STEP_S if busy else TICK_S if self.wards or not proc.LINUX else None):
                key.data()
            self._reap()
            self._tick()

    def _farewell(self) -> None:
        """The client is gone, or we were told to end: stop everything, quickly."""
        if self._closing:
            return
        self._closing = True
        for key in [k for k in self._selector.get_map().values() if k.fileobj != self._wakeup[0]]:
            self._selector.unregister(key.fileobj)
        for ward in self.wards.values():
            ward.begin(FAREWELL_GRACE_S)

    def _converse(self) -> None:
        if self._outbox:
            self._say(None)
        try:
            received = self._channel.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._farewell()
            return
        *lines, self._inbox = (self._inbox + received).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):  # half a line of an interrupted client; it will say nobody answered
                self._serve_one(json.loads(line))

    def _serve_one(self, request: Json) -> None:
        try:
            answer = self._answer(request)
        except OSError as error:
            self._say({"id": request["id"], "error": {"errno": error.errno, "text": str(error)}})
        except Exception as error:  # noqa: BLE001 - boundary: one bad request must not end the guard of the others
            self._say({"id": request["id"], "error": {"errno": None, "text": repr(error)}})
        else:
            if answer is not None:
                self._say({"id": request["id"], "ok": answer})

    def _answer(self, request: Json) -> Json | None:
        if request["op"] == "spawn":
            if self._closing:
                raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))
            ward = Ward(request, self._folder, self._cgroups)
            self.wards[ward.tag] = ward
            return {"pid": ward.main}
        if request["op"] == "sweep":
            return sweep(self._folder)
        found = self.wards.get(request["tag"])
        if found is None:
            return {"pids": [], "how": "exited", "seconds": 0.0, "survivors": []}
        if request["op"] == "pids":
            table = proc.read_table()
            living = found.survey(table, alone=len(self.wards) == 1)
            return {"pids": sorted(pid for pid in living if not table[pid].zombie)}
        found.begin(request["grace_s"])
        assert found.ladder is not None
        found.ladder.callers.append(request["id"])
        return None  # answered when the ladder has ended

    def _reap(self) -> None:
        mains = {ward.main: ward for ward in self.wards.values()}
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ward = mains.get(pid)
            if ward is not None:
                ward.status = {
                    "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
                    "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
                    "memory_kills": ward.leaf.memory_kills() if ward.leaf else 0,
                    "peak_rss_bytes": usage.ru_maxrss * (1024 if proc.LINUX else 1),
                    "cpu_s": usage.ru_utime + usage.ru_stime,
                }
                self._say({"event": "exit", "tag": ward.tag, **ward.status})
                if not ward.ladder:  # what it left behind has no right to stay
                    ward.begin(2.0, step="tree")

    def _tick(self) -> None:
        if self._told_to_end or os.getppid() != self._witness:  # or the other half died
            self._farewell()
        now = time.monotonic()
        table: dict[int, proc.Process] | None = None
        for ward in list(self.wards.values()):
            ward.rotate_log()
            every = TICK_S if now - ward.began_s < 2 * SURVEY_S else SURVEY_S
            if ward.ladder is None and now - ward.surveyed_s < every:
                continue
            table = table or proc.read_table()
            alone = len(self.wards) == 1
            if ward.ladder is None:
                ward.look_closely(table, alone=alone)
            elif (report := ward.climb(table, alone=alone)) is not None:
                del self.wards[ward.tag]
                ward.close()
                self._say({"event": "gone", "tag": ward.tag, **report})
                for caller in ward.ladder.callers:
                    self._say({"id": caller, "ok": report})

    def _say(self, message: Json | None) -> None:
        """Send without ever waiting for a client that does not read."""
        if message is not None:
            self._outbox += json.dumps(message).encode() + b"\n"
        try:
            sent = self._channel.send(self._outbox)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(self._outbox)  # nobody listens any more
        self._outbox = self._outbox[sent:]
        if not self._closing:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)
            self._selector.modify(self._channel, wanted, self._converse)


def witness(folder: Path, guardian: int) -> int:
    """The waiting half: when the serving half has ended, and however, end what is left of all it guarded."""
    handle = os.pidfd_open(guardian) if hasattr(os, "pidfd_open") else None

    def pass_on(*_: object) -> None:
        with contextlib.suppress(OSError):  # it has ended
            signal.pidfd_send_signal(handle, signal.SIGTERM) if handle else os.kill(guardian, signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)
    _, status = os.waitpid(guardian, 0)
    deadline = time.monotonic() + REAP_CAP_S
    while time.monotonic() < deadline:
        table = proc.read_table()
        orphans = proc.descendants(table, [os.getpid()]) - {os.getpid()}
        if not orphans:
            break
        for pid in orphans:
            proc.send_signal(table[pid], signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(STEP_S)
    sweep(folder)
    return 0 if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 else 1


def _level(cgroups: Path | None) -> str:
    return "cgroup" if cgroups else "tag" if proc.LINUX else "group"


def _usable_cgroup() -> Path | None:
    """Where to make one cgroup an engine; tried with a throw-away child, because rules differ between managers."""
    parent = proc.own_cgroup()
    if parent is None:
        return None
    trial = proc.Cgroup(parent / f"llmopt-probe-{os.getpid()}")
    entered = False
    if trial.make():
        pid = os.fork()
        if pid == 0:
            try:
                trial.enter()
                os._exit(0)
            except OSError:
                os._exit(1)
        entered = os.waitpid(pid, 0)[1] == 0
    trial.remove()
    return parent if entered else None


def main(arguments: list[str]) -> int:
    """Serve a client, sweep once and print what was found, or say which containment is possible here."""
    if arguments[0] == "level":
        print(_level(_usable_cgroup()))
        return 0
    folder = Path(arguments[1])
    if arguments[0] == "sweep":
        print(json.dumps(sweep(folder)))
        return 0
    faulthandler.register(signal.SIGUSR1)  # a client that waits in vain asks where we are
    channel = socket.socket(fileno=int(arguments[2]))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGHUP):  # the terminal's Ctrl-C is for our client; handlers, because an
        signal.signal(number, lambda *_: None)  # ignored signal would stay ignored in every engine
    proc.adopt_orphans()
    first = os.getpid()
    pid = os.fork()
    if pid:
        channel.close()
        return witness(folder, pid)
    proc.adopt_orphans()
    proc.die_with_parent(signal.SIGTERM)
    if os.getppid() != first:
        return 1
    cgroups = _usable_cgroup() if arguments[4] == "best" else None
    Guardian(folder, channel, int(arguments[3]), cgroups=cgroups).serve(sweep(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
