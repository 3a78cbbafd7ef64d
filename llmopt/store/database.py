"""The only truth about studies and trials: SQLite tables of our own, one transaction a step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

from llmopt.errors import DataError, StorageError, UsageError
from llmopt.messages import t
from llmopt.paths import ensure
from llmopt.records import Outcome
from llmopt.store.connection import Connection, readable_errors
from llmopt.store.encoding import configuration_to_json, measurement_to_json, to_text
from llmopt.store.history import History
from llmopt.store.migrations import bring_up_to_date
from llmopt.store.owner import Owner
from llmopt.store.rows import POINT_COLUMNS, StudyRow, TrialPoint, TrialRow, point_from, study_from, trial_from

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from llmopt.records import Configuration, Measurement

__all__ = ["Store"]

_CHUNK = 500
"""Rows fetched at a time: a stream never holds the lock, or a study, for long."""

_FINISH = """
    UPDATE trials SET outcome = :outcome, measurement = :measurement, objectives = :objectives,
      violations = :violations, score = :score, failure = :failure, samples = :samples,
      fidelity = COALESCE(:fidelity, fidelity), sampler = COALESCE(:sampler, sampler),
      hardware = COALESCE(:hardware, hardware), ended_s = :now,
      launch_s = :launch_s, warmup_s = :warmup_s, measure_s = :measure_s
    WHERE study_id = :study_id AND number = :number"""


class Store:
    """Studies and trials on disk. Safe to use from several threads; other processes may read and write beside us.

    Everything raises StorageError where the file cannot be used.
    """

    def __init__(self, connection: Connection, *, clock: Callable[[], float] = time.time) -> None:
        self.connection = connection
        self.path = connection.path
        self.owner = Owner.this_process()
        self.history = History(connection, clock)
        self.swept: list[tuple[int, int]] = []
        """Trials of dead runs that were found open and marked abandoned when the file was opened."""
        self._clock = clock

    @classmethod
    def open(
        cls, path: Path, *, read_only: bool = False, busy_s: float = 30.0, clock: Callable[[], float] = time.time
    ) -> Store:
        """Open (and unless ``read_only`` make, migrate and sweep) the database at ``path``."""
        if read_only and not path.exists():
            raise DataError("store.missing", path=str(path))
        if not read_only:
            with readable_errors(path):
                ensure(path.parent)
        connection = Connection(path, read_only=read_only, busy_s=busy_s)
        try:
            bring_up_to_date(connection)
            store = cls(connection, clock=clock)
            if not read_only:
                store.swept = store.sweep()
        except BaseException:
            connection.close()
            raise
        return store

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── studies ────────────────────────────────────────────────────────────────────────────────────────────────────

    def create_study(
        self,
        name: str,
        spec: Mapping[str, Any],
        *,
        fingerprint: str,
        model: str = "",
        engine: str = "",
        dataset: str = "",
        hardware: str = "",
    ) -> int:
        """Begin a study held by this process; its id. Raises UsageError where the name is taken."""
        now = self._clock()
        with self.connection.writing() as db:
            taken = db.execute("SELECT fingerprint FROM studies WHERE name = ?", (name,)).fetchone()
            if taken is not None:
                same = taken["fingerprint"] == fingerprint
                raise UsageError("store.study_exists" if same else "store.study_differs", name=name)
            cursor = db.execute(
                """INSERT INTO studies (name, spec, fingerprint, model, engine, dataset, hardware, state, created_s,
                   updated_s, owner_pid, owner_start, owner_boot, heartbeat_s)
                   VALUES (?, ?, ?, ?, ?, ?, ?, 'running', ?, ?, ?, ?, ?, ?)""",
                (name, to_text(spec), fingerprint, model, engine, dataset, hardware, now, now, *self._lease(), now),
            )
            return int(cursor.lastrowid or 0)

    def claim_study(self, study_id: int, *, fingerprint: str | None = None) -> list[int]:
        """Take a study over to continue it; the numbers of trials that thereby count as abandoned.

        Raises UsageError while another living process holds it, or where ``fingerprint`` is not the study's own.
        """
        now = self._clock()
        with self.connection.writing() as db:
            row = db.execute("SELECT * FROM studies WHERE id = ?", (study_id,)).fetchone()
            if row is None:
                raise DataError("store.study_unknown", name=str(study_id), near=t("data.none"))
            if fingerprint is not None and row["fingerprint"] != fingerprint:
                raise UsageError("store.study_differs", name=row["name"])
            holder = _owner_of(row)
            ours = holder == self.owner
            if holder is not None and not ours and holder.alive(heartbeat_age_s=now - row["heartbeat_s"]):
                raise UsageError("store.study_busy", name=row["name"], pid=holder.pid)
            open_trials = db.execute(
                "SELECT number FROM trials WHERE study_id = ? AND outcome = 'running' ORDER BY number", (study_id,)
            ).fetchall()
            numbers = [int(found["number"]) for found in open_trials]
            for number in numbers:
                _abandon(db, study_id, number, now)
            db.execute(
                """UPDATE studies SET state = 'running', updated_s = ?, owner_pid = ?, owner_start = ?, owner_boot = ?,
                   heartbeat_s = ? WHERE id = ?""",
                (now, *self._lease(), now, study_id),
            )
        return numbers

    def end_study(self, study_id: int, state: str, *, summary: Mapping[str, Any] | None = None) -> None:
        """Let a study go as ``finished``, ``interrupted`` or ``failed``; an earlier summary stays if none is given."""
        now = self._clock()
        with self.connection.writing() as db:
            db.execute(
                """UPDATE studies SET state = ?, updated_s = ?, summary = COALESCE(?, summary), owner_pid = NULL,
                   owner_start = NULL, owner_boot = NULL, heartbeat_s = NULL WHERE id = ?""",
                (state, now, None if summary is None else to_text(summary), study_id),
            )

    def delete_study(self, study_id: int) -> None:
        """Remove a study and all its trials from the tables; its files are the caller's."""
        with self.connection.writing() as db:
            db.execute("DELETE FROM studies WHERE id = ?", (study_id,))

    def studies(self, *, limit: int | None = None) -> list[StudyRow]:
        """All studies, newest first, with their counts; fast also beside 100,000 trials."""
        rows = self.connection.rows(
            "SELECT * FROM studies ORDER BY created_s DESC, id DESC LIMIT ?", (-1 if limit is None else limit,)
        )
        counts: dict[int, dict[str, int]] = {}
        for row in self.connection.rows("SELECT study_id, outcome, COUNT(*) FROM trials GROUP BY study_id, outcome"):
            counts.setdefault(row[0], {})[row[1]] = row[2]
        return [study_from(row, counts.get(row["id"], {})) for row in rows]

    def find_study(self, name: str) -> StudyRow | None:
        """The study of that name, or None."""
        row = self.connection.row("SELECT * FROM studies WHERE name = ?", (name,))
        return None if row is None else study_from(row, self._counts(row["id"]))

    def study(self, name: str) -> StudyRow:
        """The study of that name; raises DataError with the nearest names where there is none."""
        found = self.find_study(name)
        if found is None:
            import difflib  # noqa: PLC0415 - only on the way to an error

            names = [
                row[0] for row in self.connection.rows("SELECT name FROM studies ORDER BY created_s DESC LIMIT 500")
            ]
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
            raise DataError("store.study_unknown", name=name, near=", ".join(near) or t("data.none"))
        return found

    def latest_unfinished(self) -> StudyRow | None:
        """The newest optimisation that did not finish: what ``--resume`` without a name means.

        Benchmarks and comparisons (their spec names a ``kind``) are run anew, never continued.
        """
        row = self.connection.row(
            """SELECT * FROM studies WHERE state != 'finished' AND json_extract(spec, '$.kind') IS NULL
               ORDER BY updated_s DESC, id DESC LIMIT 1"""
        )
        return None if row is None else study_from(row, self._counts(row["id"]))

    def _counts(self, study_id: int) -> dict[str, int]:
        rows = self.connection.rows(
            "SELECT outcome, COUNT(*) FROM trials WHERE study_id = ? GROUP BY outcome", (study_id,)
        )
        return {row[0]: row[1] for row in rows}

    # ── trials ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def start_trial(
        self,
        study_id: int,
        configuration: Configuration,
        *,
        origin: str,
        phase: str = "search",
        position: int | None = None,
        derived_from: int | None = None,
        fidelity: float = 1.0,
        sampler: Mapping[str, Any] | None = None,
        hardware: str = "",
    ) -> int:
        """Record that a trial begins, leased to this process; its number (0 for the first of a study)."""
        now = self._clock()
        with self.connection.writing() as db:
            found = db.execute("SELECT MAX(number) FROM trials WHERE study_id = ?", (study_id,)).fetchone()
            number = 0 if found[0] is None else int(found[0]) + 1
            db.execute(
                """INSERT INTO trials (study_id, number, key, launch_key, configuration, origin, phase, position,
                   derived_from, fidelity, outcome, sampler, hardware, started_s)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', ?, ?, ?)""",
                (
                    study_id, number, configuration.key, configuration.launch_key,
                    configuration_to_json(configuration), origin, phase, position, derived_from, fidelity,
                    None if sampler is None else to_text(sampler), hardware, now,
                ),
            )  # fmt: skip
            db.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?)", (study_id, number, *self._lease(), now))
        return number

    def finish_trial(
        self,
        study_id: int,
        number: int,
        outcome: Outcome,
        *,
        measurement: Measurement | None = None,
        objectives: Sequence[float] | None = None,
        violations: Sequence[float] | None = None,
        score: float | None = None,
        failure: Mapping[str, Any] | None = None,
        samples: str | None = None,
        fidelity: float | None = None,
        sampler: Mapping[str, Any] | None = None,
        hardware: str | None = None,
        launch_s: float | None = None,
        warmup_s: float | None = None,
        measure_s: float | None = None,
    ) -> bool:
        """Commit a trial's end, its measurement and the return of its lease in one transaction.

        ``score`` orders trials for a resume (more is better; the gain in the first objective). False where the trial
        already has a result: the first one stands. Raises StorageError where the lease was lost meanwhile.
        """
        now = self._clock()
        with self.connection.writing() as db:
            row = db.execute(
                """SELECT outcome, owner_pid, owner_start, owner_boot
                   FROM trials LEFT JOIN leases USING (study_id, number) WHERE study_id = ? AND number = ?""",
                (study_id, number),
            ).fetchone()
            if row is not None and row["outcome"] not in (Outcome.RUNNING.value, Outcome.ABANDONED.value):
                return False
            if row is None or _owner_of(row) != self.owner:
                raise StorageError("store.lease_lost", number=number, path=str(self.path))
            values = {
                "outcome": outcome.value,
                "measurement": None if measurement is None else measurement_to_json(measurement),
                "objectives": None if objectives is None else to_text(list(objectives)),
                "violations": None if violations is None else to_text(list(violations)),
                "score": score,
                "failure": None if failure is None else to_text(failure),
                "samples": samples,
                "fidelity": fidelity,
                "hardware": hardware,
                "sampler": None if sampler is None else to_text(sampler),
                "launch_s": launch_s,
                "warmup_s": warmup_s,
                "measure_s": measure_s,
            }
            db.execute(_FINISH, {**values, "now": now, "study_id": study_id, "number": number})
            db.execute("DELETE FROM leases WHERE study_id = ? AND number = ?", (study_id, number))
            db.execute("UPDATE studies SET updated_s = ? WHERE id = ?", (now, study_id))
        return True

    def trial(self, study_id: int, number: int) -> TrialRow | None:
        """One trial, or None."""
        row = self.connection.row("SELECT * FROM trials WHERE study_id = ? AND number = ?", (study_id, number))
        return None if row is None else trial_from(row)

    def trials(
        self, study_id: int, *, outcomes: Sequence[Outcome] = (), phase: str | None = None, after: int = -1
    ) -> Iterator[TrialRow]:
        """The trials of a study in order of their numbers, streamed; a trial written meanwhile may be among them."""
        wanted, values = _filter(outcomes, phase)
        last = after
        while True:
            rows = self.connection.rows(
                f"SELECT * FROM trials WHERE study_id = ? AND number > ?{wanted} ORDER BY number LIMIT ?",  # noqa: S608
                (study_id, last, *values, _CHUNK),
            )
            if not rows:
                return
            yield from map(trial_from, rows)
            last = rows[-1]["number"]

    def points(self, study_id: int) -> Iterator[TrialPoint]:
        """All trials of a study in short form, streamed: what plots, lists and a resume read of 100,000 trials."""
        last = -1
        while rows := self.connection.rows(
            f"SELECT {POINT_COLUMNS} FROM trials WHERE study_id = ? AND number > ? ORDER BY number LIMIT ?",  # noqa: S608
            (study_id, last, 10 * _CHUNK),
        ):
            yield from map(point_from, rows)
            last = rows[-1]["number"]

    def best_and_newest(self, study_id: int, *, limit: int = 1000) -> list[TrialRow]:
        """At most ``limit`` ended trials before the confirmation, by number: half the best by score, the newest."""
        half = limit // 2
        found = self.connection.rows(
            """SELECT * FROM trials WHERE id IN (
                 SELECT id FROM (
                   SELECT id FROM trials WHERE study_id = :study AND score IS NOT NULL AND phase != 'confirm'
                   ORDER BY score DESC LIMIT :half)
                 UNION SELECT id FROM (
                   SELECT id FROM trials WHERE study_id = :study AND outcome != 'running' AND phase != 'confirm'
                   ORDER BY number DESC LIMIT :rest))
               ORDER BY number""",
            {"study": study_id, "half": half, "rest": limit - half},
        )
        return [trial_from(row) for row in found]

    def spent(self, study_id: int, *, since_s: float) -> dict[str, float]:
        """Seconds of the trials begun since that time of day: by launch, warm-up, measuring, and those given up."""
        row = self.connection.row(
            """SELECT COALESCE(SUM(launch_s), 0) AS launch_s, COALESCE(SUM(warmup_s), 0) AS warmup_s,
                 COALESCE(SUM(measure_s), 0) AS measure_s,
                 COALESCE(SUM(CASE WHEN outcome = 'abandoned' THEN ended_s - started_s END), 0) AS cut_off_s
               FROM trials WHERE study_id = ? AND started_s >= ?""",
            (study_id, since_s),
        )
        return {} if row is None else {name: float(row[name]) for name in row.keys()}  # noqa: SIM118 - a sqlite3.Row

    # ── leases ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def beat(self, study_id: int) -> None:
        """Say that we are alive: needed only by processes of other hosts and containers, every 30 seconds."""
        now, lease = self._clock(), self._lease()
        with self.connection.writing() as db:
            db.execute(
                """UPDATE studies SET heartbeat_s = ? WHERE id = ? AND owner_pid = ? AND owner_start = ?
                   AND owner_boot = ?""",
                (now, study_id, *lease),
            )
            db.execute(
                """UPDATE leases SET heartbeat_s = ? WHERE study_id = ? AND owner_pid = ? AND owner_start = ?
                   AND owner_boot = ?""",
                (now, study_id, *lease),
            )

    def sweep(self) -> list[tuple[int, int]]:
        """Abandon the running trials of processes that are gone and mark their studies interrupted; which trials."""
        if not (self._dead("leases") or self._dead("studies")):
            return []
        now = self._clock()
        with self.connection.writing() as db:
            # looked up again inside the transaction: a trial may have ended since
            trials = [(row["study_id"], row["number"]) for row in self._dead("leases")]
            for study_id, number in trials:
                _abandon(db, study_id, number, now)
            for row in self._dead("studies"):
                db.execute(
                    """UPDATE studies SET state = 'interrupted', owner_pid = NULL, owner_start = NULL,
                       owner_boot = NULL, heartbeat_s = NULL WHERE id = ?""",
                    (row["id"],),
                )
        return trials

    def held(self) -> list[tuple[str, int]]:
        """The studies that a living process works on, each with that process."""
        now = self._clock()
        rows = self.connection.rows("SELECT * FROM studies WHERE owner_pid IS NOT NULL")
        owners = [(row, _owner_of(row)) for row in rows]
        return [
            (str(row["name"]), owner.pid)
            for row, owner in owners
            if owner is not None and owner.alive(heartbeat_age_s=now - row["heartbeat_s"])
        ]

    def _dead(self, table: str) -> list[sqlite3.Row]:
        now = self._clock()
        rows = self.connection.rows(f"SELECT * FROM {table} WHERE owner_pid IS NOT NULL")  # noqa: S608 - two literals
        dead = []
        for row in rows:
            owner = _owner_of(row)
            if owner is not None and not owner.alive(heartbeat_age_s=now - row["heartbeat_s"]):
                dead.append(row)
        return dead

    def _lease(self) -> tuple[int, str, str]:
        return (self.owner.pid, self.owner.start, self.owner.boot)


def _owner_of(row: sqlite3.Row) -> Owner | None:
    if row["owner_pid"] is None:
        return None
    return Owner(pid=row["owner_pid"], start=row["owner_start"], boot=row["owner_boot"])


def _abandon(db: sqlite3.Connection, study_id: int, number: int, now: float) -> None:
    db.execute(
        """UPDATE trials SET outcome = 'abandoned', ended_s = ?
           WHERE study_id = ? AND number = ? AND outcome = 'running'""",
        (now, study_id, number),
    )
    db.execute("DELETE FROM leases WHERE study_id = ? AND number = ?", (study_id, number))


def _filter(outcomes: Sequence[Outcome], phase: str | None) -> tuple[str, list[str]]:
    wanted, values = "", []
    if outcomes:
        wanted += f" AND outcome IN ({', '.join('?' * len(outcomes))})"
        values += [outcome.value for outcome in outcomes]
    if phase is not None:
        wanted += " AND phase = ?"
        values.append(phase)
    return wanted, values
