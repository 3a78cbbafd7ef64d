"""``status`` mends a damaged database or explains why not; nothing is deleted, nobody else's file is touched."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from llmopt.records import Configuration, InferenceParams, Outcome
from llmopt.runtime.locks import measuring_lock
from llmopt.store import Store
from llmopt.store.health import health
from llmopt.store.repair import problems


def filled(path: Path, trials: int = 60) -> None:
    with Store.open(path) as store:
        study = store.create_study("study", {}, fingerprint="f")
        for n in range(trials):
            launch = {"n": n, "pad": "x" * 900}
            configuration = Configuration(engine="fake", launch=launch, request=InferenceParams())
            number = store.start_trial(study, configuration, origin="grid")
            store.finish_trial(study, number, Outcome.DONE, score=n)
        store.end_study(study, "finished")
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def damage(path: Path) -> None:
    """Overwrite a page in the middle of the trials."""
    with path.open("r+b") as file:
        file.seek(10 * 4096)
        file.write(os.urandom(4096))


def test_before_the_first_study_and_after_it(tmp_path) -> None:
    path = tmp_path / "llmopt.db"
    assert health(path).state == "none"
    assert not path.exists()
    filled(path)
    assert health(path).state == health(path, thorough=True).state == "sound"


def test_a_damaged_one_is_mended_and_the_old_file_kept(tmp_path) -> None:
    path = tmp_path / "llmopt.db"
    filled(path)
    damage(path)
    broken = path.read_bytes()
    found = health(path)
    assert found.state == "repaired"
    assert found.details
    assert str(path.with_name("llmopt.db.damaged")) in found.text
    assert path.with_name("llmopt.db.damaged").read_bytes() == broken
    assert problems(path) == ()
    with Store.open(path) as store:
        assert 30 < store.study("study").trials <= 60
    assert health(path).state == "sound"


def test_while_somebody_measures_it_only_explains(tmp_path) -> None:
    path = tmp_path / "llmopt.db"
    filled(path)
    damage(path)
    broken = path.read_bytes()
    with measuring_lock("a study"):
        found = health(path)
    assert found.state == "unusable"
    assert str(os.getpid()) in found.text
    assert path.read_bytes() == broken


def test_what_is_not_ours_or_newer_is_explained_and_left(tmp_path) -> None:
    foreign, newer = tmp_path / "foreign.db", tmp_path / "newer.db"
    with closing(sqlite3.connect(foreign)) as db:
        db.execute("CREATE TABLE somebody_elses (x)")
        db.commit()
    filled(newer, 1)
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version=99")
    for path in (foreign, newer):
        before = path.read_bytes()
        found = health(path)
        assert found.state == "unusable"
        assert str(path) in found.text
        assert path.read_bytes() == before


def test_open_trials_of_a_dead_run_are_closed(tmp_path) -> None:
    path = tmp_path / "llmopt.db"
    with Store.open(path) as store:
        study = store.create_study("study", {}, fingerprint="f")
        store.start_trial(study, Configuration(engine="f", launch={}, request=InferenceParams()), origin="grid")
        store.connection.execute("UPDATE leases SET owner_pid = 2147483647")
        store.connection.execute("UPDATE studies SET owner_pid = 2147483647")
    found = health(path)
    assert found.state == "sound"
    assert "1" in found.text
    with Store.open(path, read_only=True) as store:
        assert store.study("study").state == "interrupted"
