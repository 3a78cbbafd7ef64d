"""How the database came to its present shape: one function a step, a backup before the first of them.

The version lives in SQLite's ``user_version``; ``application_id`` says that a file is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmopt.errors import StorageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from llmopt.store.connection import Connection

__all__ = ["APPLICATION_ID", "MIGRATIONS", "bring_up_to_date", "schema_version"]

APPLICATION_ID = 0x6C6C6D6F
"""The letters ``llmo``."""


def _to_1(db: sqlite3.Connection) -> None:
    """Studies, trials with their leases, the history of errors, and events."""
    for statement in (
        """CREATE TABLE studies (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            spec TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            model TEXT NOT NULL,
            engine TEXT NOT NULL,
            dataset TEXT NOT NULL,
            hardware TEXT NOT NULL,
            state TEXT NOT NULL,
            created_s REAL NOT NULL,
            updated_s REAL NOT NULL,
            summary TEXT,
            owner_pid INTEGER,
            owner_start TEXT,
            owner_boot TEXT,
            heartbeat_s REAL
        ) STRICT""",
        """CREATE TABLE trials (
            id INTEGER PRIMARY KEY,
            study_id INTEGER NOT NULL REFERENCES studies(id) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            key TEXT NOT NULL,
            launch_key TEXT NOT NULL,
            configuration TEXT NOT NULL,
            origin TEXT NOT NULL,
            phase TEXT NOT NULL,
            position INTEGER,
            derived_from INTEGER,
            fidelity REAL NOT NULL,
            outcome TEXT NOT NULL,
            objectives TEXT,
            violations TEXT,
            score REAL,
            measurement TEXT,
            failure TEXT,
            sampler TEXT,
            samples TEXT,
            hardware TEXT NOT NULL,
            started_s REAL NOT NULL,
            ended_s REAL,
            launch_s REAL,
            warmup_s REAL,
            measure_s REAL,
            UNIQUE (study_id, number)
        ) STRICT""",
        "CREATE INDEX trials_by_outcome ON trials (study_id, outcome)",
        "CREATE INDEX trials_by_score ON trials (study_id, score)",
        "CREATE INDEX trials_by_key ON trials (study_id, key)",
        """CREATE TABLE leases (
            study_id INTEGER NOT NULL,
            number INTEGER NOT NULL,
            owner_pid INTEGER NOT NULL,
            owner_start TEXT NOT NULL,
            owner_boot TEXT NOT NULL,
            heartbeat_s REAL NOT NULL,
            PRIMARY KEY (study_id, number),
            FOREIGN KEY (study_id, number) REFERENCES trials (study_id, number) ON DELETE CASCADE
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE errors (
            id INTEGER PRIMARY KEY,
            time_s REAL NOT NULL,
            study_id INTEGER REFERENCES studies(id) ON DELETE SET NULL,
            number INTEGER,
            signature TEXT NOT NULL,
            category TEXT NOT NULL,
            engine TEXT NOT NULL,
            data TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX errors_by_signature ON errors (signature)",
        "CREATE INDEX errors_by_study ON errors (study_id)",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY,
            time_s REAL NOT NULL,
            study_id INTEGER NOT NULL REFERENCES studies(id) ON DELETE CASCADE,
            kind TEXT NOT NULL,
            data TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX events_by_study ON events (study_id, id)",
    ):
        db.execute(statement)


def _to_2(db: sqlite3.Connection) -> None:
    """The baseline and the confirmation of a long study are found without reading its whole search."""
    db.execute("CREATE INDEX trials_by_phase ON trials (study_id, phase, number)")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_to_1, _to_2)
"""``MIGRATIONS[n]`` takes version n to n + 1."""


def schema_version(connection: Connection) -> int:
    """The version a file is at; 0 for an empty one. Raises StorageError where the file is another program's."""
    found = connection.row("SELECT application_id, user_version FROM pragma_application_id, pragma_user_version")
    application, version = (found[0], found[1]) if found is not None else (0, 0)
    used = connection.row("SELECT 1 FROM sqlite_schema LIMIT 1") is not None
    if application != APPLICATION_ID and (used or application):
        raise StorageError("store.not_ours", path=str(connection.path))
    return int(version)


def bring_up_to_date(connection: Connection) -> None:
    """Run the missing steps in one transaction, after keeping a copy ``NAME.vN.bak`` of a file that has data.

    Raises StorageError for a file written by a newer version, and for an old file that fails its integrity check.
    """
    version, newest = schema_version(connection), len(MIGRATIONS)
    if version > newest:
        raise StorageError("store.newer", path=str(connection.path), version=version, known=newest)
    if version == newest:
        return
    if connection.read_only:
        raise StorageError("store.older_read_only", path=str(connection.path), version=version, known=newest)
    if version > 0:
        _require_intact(connection)
        connection.copy_to(connection.path.with_name(f"{connection.path.name}.v{version}.bak"))
    with connection.writing() as db:
        # another process may have migrated while we waited for the lock
        for step in MIGRATIONS[schema_version(connection) :]:
            step(db)
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={newest}")


def _require_intact(connection: Connection) -> None:
    found = connection.row("PRAGMA quick_check(1)")
    if found is None or found[0] != "ok":
        reason = "" if found is None else str(found[0])
        raise StorageError("store.corrupt", path=str(connection.path), reason=reason)
