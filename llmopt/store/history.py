"""The history of errors and of a study's events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmopt.store.encoding import to_text
from llmopt.store.rows import ErrorRow, EventRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmopt.store.connection import Connection

__all__ = ["History"]

_KEPT_ERRORS = 10_000
"""Older errors leave the history: it explains recent trouble, it is not an archive."""


class History:
    """Errors of this workspace and events of its studies, in the store's own tables."""

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock

    def record_error(
        self,
        signature: str,
        *,
        category: str = "",
        engine: str = "",
        study_id: int | None = None,
        number: int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep one error; ``data`` is whatever explains it, already without secrets."""
        with self._connection.writing() as db:
            cursor = db.execute(
                """INSERT INTO errors (time_s, study_id, number, signature, category, engine, data)
                   VALUES (?, ?, ?, ?, ?, ?, ?)""",
                (self._clock(), study_id, number, signature, category, engine, to_text(data or {})),
            )
            db.execute("DELETE FROM errors WHERE id <= ?", ((cursor.lastrowid or 0) - _KEPT_ERRORS,))

    def errors(self, *, limit: int = 100) -> list[ErrorRow]:
        """The newest errors, newest first."""
        rows = self._connection.rows(
            """SELECT errors.*, studies.name AS study FROM errors LEFT JOIN studies ON studies.id = errors.study_id
               ORDER BY errors.id DESC LIMIT ?""",
            (limit,),
        )
        return [
            ErrorRow(
                **{name: row[name] for name in ("time_s", "signature", "category", "engine", "study", "number")},
                data=json.loads(row["data"]),
            )
            for row in rows
        ]

    def error_counts(self) -> dict[str, int]:
        """How often each signature is in the history, most frequent first."""
        rows = self._connection.rows("SELECT signature, COUNT(*) FROM errors GROUP BY signature ORDER BY 2 DESC, 1")
        return {row[0]: row[1] for row in rows}

    def record_event(self, study_id: int, kind: str, data: Mapping[str, Any] | None = None) -> None:
        """Keep something that happened in a study."""
        self._connection.execute(
            "INSERT INTO events (time_s, study_id, kind, data) VALUES (?, ?, ?, ?)",
            (self._clock(), study_id, kind, to_text(data or {})),
        )

    def events(self, study_id: int, *, after: int = 0, limit: int = 1000) -> list[EventRow]:
        """The events of a study after the given id, oldest first."""
        rows = self._connection.rows(
            "SELECT * FROM events WHERE study_id = ? AND id > ? ORDER BY id LIMIT ?", (study_id, after, limit)
        )
        return [
            EventRow(id=row["id"], time_s=row["time_s"], kind=row["kind"], data=json.loads(row["data"])) for row in rows
        ]
