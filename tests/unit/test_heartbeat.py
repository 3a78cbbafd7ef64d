"""A running study says that it lives, and a beat that cannot be written harms nothing."""

from __future__ import annotations

import threading

from llmopt.errors import StorageError
from llmopt.store import Store
from llmopt.store.heartbeat import BEAT_S, beating
from llmopt.store.owner import FOREIGN_LEASE_S


def test_it_beats_while_the_block_runs_and_then_no_more(tmp_path) -> None:
    times = iter(range(1_000_000))
    with Store.open(tmp_path / "db", clock=lambda: float(next(times))) as store:
        study = store.create_study("s", {}, fingerprint="f")

        def heartbeat() -> float:
            return float(store.connection.row("SELECT heartbeat_s FROM studies")[0])

        first, moved = heartbeat(), threading.Event()
        beat = store.beat

        def noticed(study_id: int) -> None:
            beat(study_id)
            moved.set()

        store.beat = noticed
        with beating(store, study, every_s=0.001):
            assert moved.wait(30)
        last = heartbeat()
        assert last > first
        assert not [thread for thread in threading.enumerate() if thread.name == "llmopt-heartbeat"]
        assert heartbeat() == last
    assert BEAT_S * 3 < FOREIGN_LEASE_S


def test_a_beat_that_fails_is_logged_and_followed_by_the_next(tmp_path, caplog) -> None:
    with Store.open(tmp_path / "db") as store:
        twice, calls = threading.Event(), []

        def fails(study_id: int) -> None:
            calls.append(study_id)
            if len(calls) == 2:
                twice.set()
            raise StorageError("store.locked", path="db", reason="busy")

        store.beat = fails
        with beating(store, 7, every_s=0.001):
            assert twice.wait(30)
    assert set(calls) == {7}
    assert "db" in caplog.text
