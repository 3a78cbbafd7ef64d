"""One engine under guard: spawned, surveyed, its log kept short, recorded on disk, and brought down step by step.

Standard library only; used by ``guardian.py``, which is started by path.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmopt.workers import process_table as proc
    from llmopt.workers.orphans import tidy
else:  # beside this file; guardian.py put the folder on the search path
    import process_table as proc
    from orphans import tidy

__all__ = ["Json", "Ladder", "Ward"]

TREE_GRACE_S = 5.0
REAP_CAP_S = 10.0
OPEN_FILES = 65_536
SCHEMA = 1

Json = dict[str, Any]


@dataclass
class Ladder:
    """How far the stopping of one engine has come: main → tree → kill."""

    began_s: float
    grace_s: float
    step: str
    deadline_s: float
    callers: list[int] = field(default_factory=list)


class Container:
    """The container of an engine, if it has one: who lies in it, and how it is taken away."""

    def __init__(self, request: Json) -> None:
        told = request.get("container") or {"id_file": "", "remove": []}
        self.remove: list[str] = told["remove"]
        self.remover = 0
        self._id_file: str = told["id_file"]
        self._env: dict[str, str] = request["env"]
        self._ident = ""

    def pids(self, table: dict[int, proc.Process]) -> set[int]:
        """Its processes; none before its tool has written its id."""
        if self._id_file and not self._ident:
            with contextlib.suppress(OSError):
                self._ident = Path(self._id_file).read_text(encoding="ascii").strip()
        return proc.in_container(self._ident, table) if self._ident else set()

    def start_removal(self, tag: str) -> bool:
        """Start the command that removes it, once; whether that was now. It carries ``tag``, so that it is awaited."""
        if not self.remove or self.remover:
            return False
        quiet = subprocess.DEVNULL  # that it is gone already is no news
        env = {**self._env, proc.TAG_VARIABLE: tag}
        with contextlib.suppress(OSError):
            popen = subprocess.Popen(
                self.remove, env=env, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
            )
            popen.returncode = 0  # reaped by the loop, as every child
            self.remover = popen.pid
        self.remover = self.remover or -1
        return True


class Ward:
    """One engine under guard: its process tree, its log, its record on disk and, when it must go, its ladder."""

    def __init__(self, request: Json, folder: Path, cgroups: Path | None) -> None:
        self.tag: str = request["tag"]
        self.main = 0
        self.status: Json | None = None
        self.ladder: Ladder | None = None
        self.members: dict[int, str] = {}
        self.segments: set[str] = set()
        self.sockets: list[str] = request.get("sockets", [])
        self.container = Container(request)
        self.surveyed_s = 0.0
        self.began_s = time.monotonic()
        self._file = folder / f"{self.tag}.json"
        self._log_cap: int = request["log_cap_bytes"]
        self._log_path: str = request["log"]
        self._state = "starting"
        self._saved = ""
        self.leaf = proc.Cgroup(cgroups / f"llmopt-{self.tag}") if cgroups else None
        if self.leaf and not self.leaf.make():
            self.leaf = None
        self._guardian = proc.identity(os.getpid())
        self._log = -1
        try:
            self.save()
            self._log = os.open(self._log_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            self._spawn(request)
        except BaseException:
            self.close()
            raise
        self._state = "running"
        self.look_closely(proc.read_table(), alone=False)

    def _spawn(self, request: Json) -> None:
        guardian, leaf = os.getpid(), self.leaf
        adjustment = request.get("oom_score_adj")

        def prepare() -> None:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            proc.die_with_parent(signal.SIGKILL)
            if os.getppid() != guardian:
                os._exit(127)  # the guardian died before the kernel was told to watch it
            with contextlib.suppress(OSError):
                if leaf:
                    leaf.enter()
            with contextlib.suppress(OSError):
                if adjustment is not None:
                    Path("/proc/self/oom_score_adj").write_text(str(adjustment), encoding="ascii")
            _raise_open_files()

        with _stdin_of(request.get("stdin")) as stdin:
            popen = subprocess.Popen(
                request["argv"],
                env={**request["env"], proc.TAG_VARIABLE: self.tag},
                cwd=request["cwd"],
                stdin=stdin,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 - this process has one thread
            )
        popen.returncode = 0  # the loop reaps every child; the object must never wait for this id itself
        self.main = popen.pid
        if leaf and self.main not in leaf.pids():
            leaf.remove()
            self.leaf = None

    def survey(self, table: dict[int, proc.Process], *, alone: bool) -> set[int]:
        """Who belongs to this engine now (zombies included); remembered with start times, and on disk.

        ``alone``: no other engine is here, so every orphan that came to the guardian is this one's.
        """
        seeds = {pid for pid, start in self.members.items() if pid in table and table[pid].start == start}
        if self.status is None:
            seeds.add(self.main)
        seeds |= self.leaf.pids() if self.leaf else set()
        seeds |= self.container.pids(table)
        me = os.getpid()
        below = proc.descendants(table, [me]) - {me}
        near = below if proc.LINUX else set(table)  # elsewhere orphans do not come to us
        seeds |= {pid for pid in near if self.main in {table[pid].session, table[pid].group}}
        adopted = (pid for pid in below if table[pid].parent == me and pid not in seeds)
        seeds |= {pid for pid in adopted if alone or proc.tag_of(pid) == self.tag}
        found = proc.descendants(table, seeds)
        self.members = {pid: table[pid].start for pid in found}
        self.save()
        return found

    def look_closely(self, table: dict[int, proc.Process], *, alone: bool) -> None:
        """Survey, and note the shared memory in use: once its users are dead nobody can tell whose it was."""
        self.segments |= proc.segments_of(self.survey(table, alone=alone))
        self.surveyed_s = time.monotonic()
        self.save()

    def save(self) -> None:
        """Put what is known on disk, whole or not at all, before it is acted on."""
        record = {
            "schema": SCHEMA,
            "state": self._state,
            "tag": self.tag,
            "user": os.getuid(),
            "boot": proc.boot_id(),
            "guardian": self._guardian,
            "main": self.main,
            "members": sorted(self.members.items()),
            "segments": sorted(self.segments),
            "sockets": self.sockets,
            "remove": self.container.remove,
            "cgroup": str(self.leaf.folder) if self.leaf else None,
            "log": self._log_path,
        }
        text = json.dumps(record)
        if text != self._saved:
            try:
                draft = self._file.with_suffix(".draft")
                draft.write_text(text, encoding="utf-8")
                draft.replace(self._file)
            except OSError:
                if self._state == "starting":
                    raise
                return  # a full disk or a folder removed under us must not end the guard; the first record still serves
            self._saved = text

    def begin(self, grace_s: float, *, step: str = "main") -> None:
        """Start down the ladder; asked again with less patience it hurries."""
        now = time.monotonic()
        if self.ladder:
            self.ladder.grace_s = min(self.ladder.grace_s, grace_s)
            if self.ladder.step != "kill":
                self.ladder.deadline_s = min(self.ladder.deadline_s, now + grace_s)
            return
        self._state = "stopping"
        table = proc.read_table()
        self.look_closely(table, alone=False)
        self.ladder = Ladder(now, grace_s, step, now + grace_s)
        if step == "main" and self.status is None and self.main in table:
            proc.send_signal(table[self.main], signal.SIGTERM)
        elif step == "tree":
            self._signal_tree(table, signal.SIGTERM)

    def climb(self, table: dict[int, proc.Process], *, alone: bool) -> Json | None:
        """Take the next step if it is due; the report once nothing is left, or when nothing more can be done."""
        ladder = self.ladder
        assert ladder is not None
        now = time.monotonic()
        living = self.survey(table, alone=alone)
        if not living and self.status is not None:
            if self.container.start_removal(self.tag):
                return None  # the command is one of the family until it has ended
            return self._report(ladder, now, ())
        if ladder.step == "main" and (self.status is not None or now >= ladder.deadline_s):
            hurried = now >= ladder.deadline_s
            ladder.step = "tree" if hurried or self._outlived(table) else "main"
            if ladder.step == "tree":
                self._signal_tree(table, signal.SIGTERM)
                ladder.deadline_s = now + min(TREE_GRACE_S, ladder.grace_s / 2)
        elif ladder.step == "tree" and now >= ladder.deadline_s:
            ladder.step, ladder.deadline_s = "kill", now + REAP_CAP_S
        if ladder.step == "kill":
            if self.leaf:
                self.leaf.kill()
            self._signal_tree(table, signal.SIGKILL)
            self.container.start_removal(self.tag)  # its processes may be another user's, beyond our signals
            if now >= ladder.deadline_s:
                return self._report(ladder, now, tuple(living))
        return None

    def _outlived(self, table: dict[int, proc.Process]) -> bool:
        return any(not table[pid].zombie for pid in self.members if pid in table and pid != self.container.remover)

    def _signal_tree(self, table: dict[int, proc.Process], number: int) -> None:
        for pid, start in self.members.items():
            row = table.get(pid)
            if row and row.start == start and not row.zombie and pid != self.container.remover:
                proc.send_signal(row, number)

    def _report(self, ladder: Ladder, now: float, survivors: tuple[int, ...]) -> Json:
        return {"how": ladder.step, "seconds": now - ladder.began_s, "survivors": sorted(survivors)}

    def rotate_log(self) -> None:
        """Keep the log below its cap with one older generation; the engine appends, so it goes on at the new end.

        No pipe is between, so the engine never waits for us; lines written between the last read and the cut are lost.
        """
        with contextlib.suppress(OSError):
            size = os.fstat(self._log).st_size
            if size <= self._log_cap:
                return
            offset = max(0, size - self._log_cap)
            older_log = os.open(f"{self._log_path}.1", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(older_log, "wb") as older:
                # bounded: an engine that writes faster than we copy must not keep us here
                while offset < 2 * size and (chunk := os.pread(self._log, 1 << 20, offset)):
                    older.write(chunk)
                    offset += len(chunk)
            os.ftruncate(self._log, 0)

    def close(self) -> None:
        """Remove what only made sense while it ran: record, sockets, cgroup, unused shared memory."""
        if self._log >= 0:
            os.close(self._log)
        tidy(self.sockets, self.segments)
        if self.leaf:
            self.leaf.remove()
        with contextlib.suppress(OSError):
            self._file.unlink()


@contextlib.contextmanager
def _stdin_of(text: str | None) -> Any:
    """A file with the text (no pipe: nobody has to read it for us to go on), or nothing."""
    if text is None:
        yield subprocess.DEVNULL
        return
    in_memory = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("stdin"), "w+b") if in_memory else tempfile.TemporaryFile() as handle:
        handle.write(text.encode())
        handle.flush()
        handle.seek(0)
        yield handle


def _raise_open_files() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
