"""Databases of every earlier version, kept as files, open in this one with everything that was in them."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llmopt.records import Outcome
from llmopt.store import Store
from llmopt.store.migrations import MIGRATIONS
from llmopt.store.repair import problems

FOLDER = Path(__file__).parents[1] / "fixtures" / "store"
TABLES = ("studies", "trials", "errors", "events")


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything in the tables that are never swept."""
    with closing(sqlite3.connect(path)) as db:
        wanted = {
            "studies": "id, name, spec, summary",
            "trials": "id, number, key, configuration, measurement, failure",
        }
        return {
            name: db.execute(f"SELECT {wanted.get(name, '*')} FROM {name} ORDER BY id").fetchall() for name in TABLES
        }


def schema(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as db:
        return {row[0] for row in db.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}


def test_a_file_of_every_earlier_version_is_kept() -> None:
    assert [path.stem for path in sorted(FOLDER.glob("v*.db"))] == [f"v{n}" for n in range(1, len(MIGRATIONS))]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_an_old_file_opens_with_all_that_was_in_it(version: int, tmp_path: Path) -> None:
    path = Path(shutil.copy(FOLDER / f"v{version}.db", tmp_path / "llmopt.db"))
    before = rows(path)
    with Store.open(path) as store:
        finished, interrupted = store.study("finished"), store.study("interrupted")
        assert (finished.state, finished.summary["verdict"]) == ("finished", "better")
        assert interrupted.state == "interrupted"  # its process died long ago
        trials = list(store.trials(finished.id))
        assert [trial.outcome for trial in trials[:4]] == [Outcome.DONE] * 3 + [Outcome.INFEASIBLE]
        assert trials[3].failure["id"] == "MEM-010"
        assert [row.number for row in store.trials(finished.id, phase="baseline")] == [0]
        assert store.history.error_counts() == {"MEM-010": 1}
        assert store.connection.row("PRAGMA user_version")[0] == len(MIGRATIONS)
        store.claim_study(interrupted.id)
    assert rows(path) == before
    assert problems(path) == ()
    assert rows(path.with_name(f"llmopt.db.v{version}.bak")) == before


def test_a_migrated_file_has_the_same_tables_as_a_new_one(tmp_path: Path) -> None:
    old = Path(shutil.copy(FOLDER / "v1.db", tmp_path / "old.db"))
    for path in (old, tmp_path / "new.db"):
        Store.open(path).close()
    assert schema(old) == schema(tmp_path / "new.db")
