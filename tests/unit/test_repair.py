"""A damaged, foreign, newer, older, full, locked or read-only database: one clear sentence, and nothing lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from llmopt.errors import DataError, StorageError
from llmopt.records import Configuration, InferenceParams, Outcome
from llmopt.store import Store
from llmopt.store.migrations import APPLICATION_ID, MIGRATIONS
from llmopt.store.repair import problems, repair


def configuration(n: int) -> Configuration:
    return Configuration(engine="fake", launch={"threads": n, "note": "x" * 400}, request=InferenceParams())


def filled(path: Path, trials: int = 60) -> None:
    with Store.open(path) as store:
        study = store.create_study("study", {"trials": trials}, fingerprint="f")
        for n in range(trials):
            store.finish_trial(study, store.start_trial(study, configuration(n), origin="grid"), Outcome.DONE, score=n)
        store.history.record_error("oom", study_id=study)
        store.history.record_event(study, "began")
        store.start_trial(study, configuration(trials), origin="grid")


def key_of(action) -> str:
    with pytest.raises(StorageError) as caught:
        action()
    assert caught.value.what
    assert caught.value.next_step
    assert caught.value.exit_code == 7
    return caught.value.key


def test_a_sound_database_has_no_problems(tmp_path):
    filled(tmp_path / "llmopt.db")
    assert problems(tmp_path / "llmopt.db") == ()


@pytest.mark.parametrize(
    "content", [b"this is no database at all, but long enough to be one" * 40, b"SQLite format 3\0" + b"\xff" * 4000]
)
def test_a_file_that_is_no_database_says_so_and_can_be_replaced(tmp_path, content):
    path = tmp_path / "llmopt.db"
    path.write_bytes(content)
    assert key_of(lambda: Store.open(path)) == "store.corrupt"
    done = repair(path)
    assert done.aside.read_bytes() == content
    assert (done.kept_trials, problems(path)) == (0, ())
    with Store.open(path) as store:
        assert store.studies() == []


@pytest.mark.parametrize("page", [3, 5, 8, 11, 14])
def test_a_damaged_page_costs_only_what_was_on_it(tmp_path, page):
    path = tmp_path / "llmopt.db"
    filled(path)
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)
    assert problems(path)
    done = repair(path)
    assert problems(path) == ()
    assert done.aside.name == "llmopt.db.damaged"
    with Store.open(path) as store:
        studies = store.studies()
        if studies:  # unless the page was the studies' own
            kept = list(store.trials(studies[0].id))
            assert len(kept) == done.kept_trials
            assert len(kept) >= 40 or done.lost_rows
            assert all(trial.configuration == configuration(trial.number) for trial in kept)
            assert all(trial.outcome in (Outcome.DONE, Outcome.ABANDONED) for trial in kept)
            assert studies[0].state == "interrupted"
            store.claim_study(studies[0].id)
            assert store.start_trial(studies[0].id, configuration(99), origin="grid") > kept[-1].number


def test_repairing_twice_keeps_both_old_files(tmp_path):
    path = tmp_path / "llmopt.db"
    for name in ("llmopt.db.damaged", "llmopt.db.damaged-1"):
        path.write_bytes(b"not a database" * 100)
        assert repair(path).aside.name == name


def test_another_programs_database_is_left_alone(tmp_path):
    path = tmp_path / "llmopt.db"
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE theirs (x)")
    raw.commit()
    raw.close()
    before = path.read_bytes()
    assert key_of(lambda: Store.open(path)) == "store.not_ours"
    assert key_of(lambda: problems(path)) == "store.not_ours"
    assert path.read_bytes()[100:] == before[100:]


def test_a_newer_database_is_not_touched(tmp_path):
    path = tmp_path / "llmopt.db"
    filled(path, 1)
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    raw.close()
    assert key_of(lambda: Store.open(path)) == "store.newer"


def test_a_missing_file_is_not_made_for_reading(tmp_path):
    path = tmp_path / "llmopt.db"
    with pytest.raises(DataError) as caught:
        Store.open(path, read_only=True)
    assert caught.value.key == "store.missing"
    assert not path.exists()


def test_reading_beside_a_writer_changes_nothing(tmp_path):
    path = tmp_path / "llmopt.db"
    filled(path, 3)
    with Store.open(path) as writer, Store.open(path, read_only=True) as reader:
        number = writer.start_trial(1, configuration(9), origin="grid")
        assert [t.number for t in reader.trials(1)] == [0, 1, 2, 3, number]
        assert key_of(lambda: reader.start_trial(1, configuration(8), origin="grid")) == "store.read_only"


def test_a_locked_database_is_waited_for_and_then_named(tmp_path):
    path = tmp_path / "llmopt.db"
    filled(path, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store.open(path, busy_s=0.05) as store:
        assert key_of(lambda: store.start_trial(1, configuration(1), origin="grid")) == "store.locked"
        other.execute("COMMIT")
        other.close()
        store.start_trial(1, configuration(1), origin="grid")


def test_a_full_disk_is_named_and_loses_nothing(tmp_path):
    path = tmp_path / "llmopt.db"
    with Store.open(path) as store:
        study = store.create_study("study", {}, fingerprint="f")
        pages = store.connection.row("PRAGMA page_count")[0]
        store.connection.execute(f"PRAGMA max_page_count={pages + 4}")

        def fill():
            for n in range(1000):
                store.finish_trial(study, store.start_trial(study, configuration(n), origin="grid"), Outcome.DONE)

        assert key_of(fill) == "store.disk_full"
        done = [t.number for t in store.trials(study, outcomes=[Outcome.DONE])]
        store.connection.execute("PRAGMA max_page_count=100000")
        assert done == list(range(len(done)))
        store.start_trial(study, configuration(2000), origin="grid")
    assert problems(path) == ()


def test_a_path_that_cannot_be_one_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    assert key_of(lambda: Store.open(tmp_path / "file" / "llmopt.db")) == "store.unusable"
    assert key_of(lambda: Store.open(tmp_path)) == "store.unusable"


READ_ONLY_SCRIPT = """
import os, sys
from pathlib import Path
from llmopt.errors import StorageError
from llmopt.store import Store
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
path = Path(sys.argv[1])
try:
    Store.open(path / "new" / "llmopt.db")
except StorageError as error:
    print(error.key)
try:
    Store.open(path / "llmopt.db")
except StorageError as error:
    print(error.key)
with Store.open(path / "llmopt.db", read_only=True) as store:
    print(len(list(store.trials(1))))
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_read_only_folder_is_named_and_can_still_be_read():
    folder = Path(tempfile.mkdtemp())
    try:
        filled(folder / "llmopt.db", 3)
        folder.chmod(0o555)
        (folder / "llmopt.db").chmod(0o444)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY_SCRIPT, str(folder)], capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == ["store.read_only", "store.read_only", "4"], done.stderr
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_an_older_database_is_migrated_after_a_backup(tmp_path, monkeypatch):
    """Every step of the real chain runs on files of every earlier version that is kept, and on an invented next one."""
    path = tmp_path / "llmopt.db"
    filled(path, 3)

    def to_next(db):
        db.execute("ALTER TABLE trials ADD COLUMN invented TEXT NOT NULL DEFAULT 'x'")

    version = len(MIGRATIONS)
    monkeypatch.setattr("llmopt.store.migrations.MIGRATIONS", (*MIGRATIONS, to_next))
    assert key_of(lambda: Store.open(path, read_only=True)) == "store.older_read_only"
    with Store.open(path) as store:
        assert len(list(store.trials(1))) == 4
        assert store.connection.row("SELECT invented FROM trials")[0] == "x"
        assert store.connection.row("PRAGMA user_version")[0] == version + 1
    backup = path.with_name(f"llmopt.db.v{version}.bak")
    monkeypatch.undo()
    with Store.open(backup) as old:
        assert len(list(old.trials(1))) == 4


def test_a_step_that_fails_leaves_the_old_version(tmp_path, monkeypatch):
    path = tmp_path / "llmopt.db"
    filled(path, 3)

    def broken(db):
        db.execute("ALTER TABLE trials ADD COLUMN half TEXT")
        db.execute("THIS IS NOT SQL")

    monkeypatch.setattr("llmopt.store.migrations.MIGRATIONS", (*MIGRATIONS, broken))
    assert key_of(lambda: Store.open(path)) == "store.unusable"
    monkeypatch.undo()
    with Store.open(path) as store:
        assert len(list(store.trials(1))) == 4


def test_a_fresh_file_is_marked_as_ours(tmp_path):
    with Store.open(tmp_path / "results" / "llmopt.db") as store:
        assert store.connection.row("PRAGMA application_id")[0] == APPLICATION_ID
        assert store.connection.row("PRAGMA trusted_schema")[0] == 0
        assert store.connection.row("PRAGMA journal_mode")[0] == "wal"
    assert (tmp_path / "results" / ".llmopt").exists()
