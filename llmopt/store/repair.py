"""Checking a database, and saving what can be read of a damaged one into a new file."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmopt.errors import StorageError
from llmopt.store.connection import Connection, readable_errors
from llmopt.store.database import Store
from llmopt.store.migrations import schema_version

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Repair", "problems", "repair"]

_TABLES = ("studies", "trials", "errors", "events")
"""In the order that references allow; leases are not saved, their trials become abandoned."""

_MOST_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What a repair saved: ``lost_rows`` is a lower bound, ``aside`` where the damaged file is now."""

    kept_trials: int
    lost_rows: int
    aside: Path


def problems(path: Path, *, quick: bool = False) -> tuple[str, ...]:
    """What SQLite finds wrong in the file, empty where it is sound; raises StorageError where it cannot be read.

    ``quick`` leaves out whether indexes agree with their tables, the slow half of the check.
    """
    connection = Connection(path, read_only=True)
    try:
        schema_version(connection)
        check = "quick_check" if quick else "integrity_check"
        found = [str(row[0]) for row in connection.rows(f"PRAGMA {check}({_MOST_PROBLEMS})")]
        strays = [f"{row[0]} {row[1]}: no {row[2]}" for row in connection.rows("PRAGMA foreign_key_check")]
    except StorageError as error:
        if error.key != "store.corrupt":
            raise
        return (str(error.values.get("reason", "")),)
    finally:
        connection.close()
    return tuple([line for line in found if line != "ok"] + strays[:_MOST_PROBLEMS])


def repair(path: Path) -> Repair:
    """Put a damaged database aside (nothing of it is deleted) and build a new one of every row that can be read."""
    with readable_errors(path):
        aside = _free_name(path)
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        kept = lost = 0
        with Store.open(path) as store, contextlib.closing(sqlite3.connect(aside)) as old:
            old.row_factory = sqlite3.Row
            for table in _TABLES:
                rows, missing = _readable_rows(old, table)
                lost += missing
                saved = _insert(store, table, rows)
                lost += len(rows) - saved
                kept += saved if table == "trials" else 0
            with store.connection.writing() as db:
                db.execute("UPDATE trials SET outcome = 'abandoned' WHERE outcome = 'running'")
                db.execute(
                    """UPDATE studies SET owner_pid = NULL, owner_start = NULL, owner_boot = NULL, heartbeat_s = NULL,
                       state = CASE state WHEN 'running' THEN 'interrupted' ELSE state END"""
                )
    return Repair(kept_trials=kept, lost_rows=lost, aside=aside)


def _free_name(path: Path) -> Path:
    candidates = (path.with_name(f"{path.name}.damaged{'' if n == 0 else f'-{n}'}") for n in range(1000))
    return next(name for name in candidates if not name.exists())


def _readable_rows(old: sqlite3.Connection, table: str) -> tuple[list[dict[str, Any]], int]:
    """Every row that can be read, from both ends towards the damage; how many are known to be missing."""
    found: dict[int, dict[str, Any]] = {}
    broken = False
    for order in ("ASC", "DESC"):
        try:
            # a damaged page ends the walk from one side; the other side reaches what lies behind it
            for row in old.execute(f"SELECT * FROM {table} ORDER BY id {order}"):  # noqa: S608 - names of ours
                found[row["id"]] = dict(row)
        except sqlite3.Error:
            broken = True
        if not broken:
            break
    if not broken:
        return list(found.values()), 0
    ids = sorted(found)
    gap = ids[-1] - ids[0] + 1 - len(ids) if ids else 0
    return [found[i] for i in ids], max(gap, 1)


def _insert(store: Store, table: str, rows: list[dict[str, Any]]) -> int:
    """Rows that the new tables accept; a damaged row may break a rule (its study is lost) and is left out."""
    known = [row[1] for row in store.connection.rows(f"PRAGMA table_info({table})")]
    saved = 0
    with store.connection.writing() as db:
        for row in rows:
            fields = [name for name in known if name in row]
            marks = ", ".join("?" * len(fields))
            with contextlib.suppress(sqlite3.IntegrityError):
                db.execute(
                    f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({marks})",  # noqa: S608 - names of ours
                    [row[name] for name in fields],
                )
                saved += 1
    return saved
