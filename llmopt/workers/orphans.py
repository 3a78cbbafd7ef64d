"""Orphans of an earlier crash: found by what dead guardians wrote down, proved to be ours, and ended.

A process is ours when its user, this boot and its run tag match; the tag is seen in its environment, in the name of its
cgroup, or stands in the record with the start time of this very process. Everything else is a stranger: named, never
touched. Standard library only; used by ``guardian.py``, which is started by path.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmopt.workers import process_table as proc
else:  # beside this file; guardian.py put the folder on the search path
    import process_table as proc

__all__ = ["sweep", "tidy"]

REAP_CAP_S = 10.0
STEP_S = 0.05
DRAFT_AGE_S = 60.0

Json = dict[str, Any]


def sweep(folder: Path) -> Json:
    """Remove what dead guardians left: ``removed`` process ids, and ``strangers`` that were named and left alone."""
    removed: list[int] = []
    strangers: list[Json] = []
    known: set[str] = set()
    boot = proc.boot_id()
    _remove_drafts(folder)
    for file in sorted(folder.glob("*.json")):
        record = _read(file)
        if record is None:
            _remove(file)  # not a record (or half of one): there is nothing it could prove
            continue
        known.add(record["tag"])
        this_boot = record["boot"] == boot
        if this_boot and proc.identity(record["guardian"][0]) == record["guardian"]:
            continue  # its guardian lives
        if this_boot:
            removed += _end_orphans(record)
            strangers += _strangers(record)
        _remove_container(record)
        tidy(record["sockets"], record["segments"])
        if record["cgroup"]:
            proc.Cgroup(Path(record["cgroup"])).remove()
        _remove(file)
    strangers += _tagged_by_others(known)
    return {"removed": removed, "strangers": strangers}


def _read(file: Path) -> Json | None:
    """The record, or None where anything in it is not as we write it."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        whole = (
            all(isinstance(record[name], str) for name in ("tag", "boot"))
            and isinstance(record["user"], int)
            and isinstance(record["guardian"][0], int)
            and all(isinstance(pid, int) and isinstance(start, str) for pid, start in record["members"])
            and all(isinstance(path, str) for name in ("sockets", "segments") for path in record[name])
            and all(isinstance(word, str) for word in record.get("remove", ()))
            and isinstance(record["cgroup"], str | None)
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return record if whole else None


def _orphans(record: Json, table: dict[int, proc.Process]) -> list[proc.Process]:
    """The processes of this record: our user's, and tagged by environment, by cgroup, or by record and start time."""
    if record["user"] != os.getuid():
        return []
    members = dict(record["members"])
    inside = proc.Cgroup(Path(record["cgroup"])).pids() if record["cgroup"] else set()
    found = []
    for row in table.values():
        if row.zombie or proc.user_of(row.pid) not in {record["user"], None}:
            continue
        if members.get(row.pid) == row.start or row.pid in inside or proc.tag_of(row.pid) == record["tag"]:
            found.append(row)
    return found


def _end_orphans(record: Json) -> list[int]:
    ended: set[int] = set()
    deadline = time.monotonic() + REAP_CAP_S
    while living := _orphans(record, proc.read_table()):
        for row in living:
            if proc.send_signal(row, signal.SIGKILL):
                ended.add(row.pid)
        if time.monotonic() > deadline:
            break
        time.sleep(STEP_S)
    return sorted(ended)


def _remove_container(record: Json) -> None:
    """Run the command that takes its container away: that outlives us, and even a boot."""
    command = record.get("remove")
    if not command or record["user"] != os.getuid():
        return
    quiet = subprocess.DEVNULL
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=REAP_CAP_S, check=False)


def _strangers(record: Json) -> list[Json]:
    table = proc.read_table()
    members = dict(record["members"])
    return [
        {"pid": pid, "command": proc.command_of(pid)}
        for pid, start in members.items()
        if pid in table and table[pid].start != start
    ]


def _tagged_by_others(known: Collection[str]) -> list[Json]:
    """Processes with a run tag that no record here explains: perhaps another folder's, so they are only named."""
    tags = ((pid, proc.tag_of(pid)) for pid, row in proc.read_table().items() if not row.zombie)
    return [{"pid": pid, "command": proc.command_of(pid)} for pid, tag in tags if tag and tag not in known]


def _remove_drafts(folder: Path) -> None:
    """A record half-written when its guardian was killed; a living guardian needs its draft for a moment only."""
    for draft in folder.glob("*.draft"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > DRAFT_AGE_S:
                draft.unlink()


def tidy(sockets: Collection[str], segments: Collection[str]) -> None:
    """Delete the sockets, and the shared-memory files that no process uses any more."""
    for name in sockets:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(Path(name).lstat().st_mode):
                Path(name).unlink()
    left = {name for name in segments if Path(name).exists()}
    if left:
        for name in left - proc.segments_of(proc.read_table()):
            _remove(Path(name))


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
