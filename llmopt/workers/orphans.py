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

Json = dict[str, Any]


def sweep(folder: Path) -> Json:
    """Remove what dead guardians left: ``removed`` process ids, and ``strangers`` that were named and left alone."""
    removed: list[int] = []
    strangers: list[Json] = []
    boot = proc.boot_id()
    for file in sorted(folder.glob("*.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            old_boot = record["boot"] != boot
            dead = old_boot or proc.identity(record["guardian"][0]) != record["guardian"]
        except (OSError, ValueError, KeyError, TypeError):
            file.unlink(missing_ok=True)  # not a record (or half of one): there is nothing it could prove
            continue
        if not dead:
            continue
        if not old_boot:
            removed += _end_orphans(record)
            strangers += _strangers(record)
        tidy(record["sockets"], record["segments"])
        if record["cgroup"]:
            proc.Cgroup(Path(record["cgroup"])).remove()
        file.unlink(missing_ok=True)
    return {"removed": removed, "strangers": strangers}


def _orphans(record: Json, table: dict[int, proc.Process]) -> list[proc.Process]:
    """The processes of this record: our user's, and tagged by environment, by cgroup, or by record and start time."""
    if record["user"] != os.getuid():
        return []
    members = {int(pid): start for pid, start in record["members"]}
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


def _strangers(record: Json) -> list[Json]:
    table = proc.read_table()
    members = {int(pid): start for pid, start in record["members"]}
    return [
        {"pid": pid, "command": proc.command_of(pid)}
        for pid, start in members.items()
        if pid in table and table[pid].start != start
    ]


def tidy(sockets: Collection[str], segments: Collection[str]) -> None:
    """Delete the sockets, and the shared-memory files that no process uses any more."""
    for name in sockets:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(Path(name).lstat().st_mode):
                Path(name).unlink()
    left = {name for name in segments if Path(name).exists()}
    if left:
        for name in left - proc.segments_of(proc.read_table()):
            Path(name).unlink(missing_ok=True)
