"""One SQLite connection, opened safely: WAL, full synchronisation, an untrusted schema, and errors a user can read."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from llmopt.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

__all__ = ["Connection", "readable_errors"]

_BUSY_S = 30.0
"""How long a writer waits for another one before it gives up."""

_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_REFUSED = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite and the system raise about ``path`` into a StorageError that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(_message_key(error, path), path=str(path), reason=str(error)) from error
    except OSError as error:
        raise StorageError(_system_key(error), path=str(path), reason=error.strerror or str(error)) from error


def _system_key(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "store.disk_full"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "store.read_only"
    return "store.unusable"


def _message_key(error: sqlite3.Error, path: Path) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in _CORRUPT:
        return "store.corrupt"
    if primary in _BUSY:
        return "store.locked"
    if primary == sqlite3.SQLITE_FULL:
        return "store.disk_full"
    if primary in _REFUSED:
        return "store.read_only"
    if primary == sqlite3.SQLITE_CANTOPEN and not path.exists() and path.parent.is_dir():
        return "store.read_only"
    return "store.unusable"


class Connection:
    """A connection that any thread may use, one at a time; statements run in autocommit unless in ``writing``."""

    def __init__(self, path: Path, *, read_only: bool = False, busy_s: float = _BUSY_S) -> None:
        self.path = path
        self.read_only = read_only
        self._lock = threading.RLock()
        with readable_errors(path):
            self._raw = _connect(path, read_only=read_only, busy_s=busy_s)
            try:
                self._prepare()
            except BaseException:
                self._raw.close()
                raise

    def _prepare(self) -> None:
        self._raw.row_factory = sqlite3.Row
        for pragma in ("trusted_schema=OFF", "foreign_keys=ON", "cell_size_check=ON"):
            self._raw.execute(f"PRAGMA {pragma}")
        if not self.read_only:
            # WAL lets `list` and `status` read while a study writes; FULL makes a committed trial survive power loss
            self._raw.execute("PRAGMA journal_mode=WAL")
            self._raw.execute("PRAGMA synchronous=FULL")
        self._raw.execute("SELECT COUNT(*) FROM sqlite_schema")

    def close(self) -> None:
        """Close the file; further use raises StorageError."""
        with self._lock:
            self._raw.close()

    def rows(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        with self._lock, readable_errors(self.path):
            return self._raw.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def execute(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> int:
        """Run one statement; the number of rows it changed."""
        with self._lock, readable_errors(self.path):
            return self._raw.execute(sql, values).rowcount

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed at the end, rolled back whatever is raised inside. Nesting joins the outer one."""
        with self._lock, readable_errors(self.path):
            if self._raw.in_transaction:
                yield self._raw
                return
            self._raw.execute("BEGIN IMMEDIATE")
            try:
                yield self._raw
                self._raw.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        # SQLite itself has already rolled back after some errors (disk full)
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")

    def copy_to(self, target: Path) -> None:
        """A consistent copy of the whole database, complete under its name or absent."""
        part = target.with_name(target.name + ".part")
        with self._lock, readable_errors(target):
            part.unlink(missing_ok=True)
            copy = sqlite3.connect(part)
            try:
                self._raw.backup(copy)
            finally:
                copy.close()
            part.replace(target)


def _connect(path: Path, *, read_only: bool, busy_s: float) -> sqlite3.Connection:
    location = f"file:{quote(str(path.absolute()))}"
    if read_only:
        # without a WAL beside it, a file in a folder we may not write to is readable only as immutable
        still = not path.with_name(path.name + "-wal").exists()
        mode = "?mode=ro&immutable=1" if still and not _writable(path.parent) else "?mode=ro"
    else:
        mode = "?mode=rwc"
    return sqlite3.connect(location + mode, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False)


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)
