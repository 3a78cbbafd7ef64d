"""Errors of studies and of a caller's own functions stand in one list, newest first, with counts."""

from __future__ import annotations

import pytest

from llmopt.failures import History, WorkspaceSink, safe_execute, set_history
from llmopt.records import Configuration, InferenceParams
from llmopt.store import Store
from llmopt.store.troubles import recent_troubles, trouble_counts


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOPT_HOME", str(tmp_path))
    before = set_history(History(WorkspaceSink()))
    yield tmp_path
    set_history(before)


def test_both_sources_are_one_list(workspace) -> None:
    database = workspace / "optimization_results" / "llmopt.db"

    @safe_execute(fallback_result="fallback")
    def risky() -> str:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB")

    assert recent_troubles(database) == []
    assert not list(workspace.iterdir())  # looking makes nothing
    assert risky() == risky() == "fallback"
    with Store.open(database, clock=lambda: 5e9) as store:
        study = store.create_study("study", {}, fingerprint="f")
        number = store.start_trial(study, Configuration(engine="f", launch={}, request=InferenceParams()), origin="x")
        data = {"text": "why", "remedy": "what to do", "done": "what was done"}
        store.history.record_error("MEM-010", category="memory", engine="f", study_id=study, number=number, data=data)
    newest, *others = recent_troubles(database)
    assert (newest.id, newest.where, newest.remedy, newest.done) == (
        "MEM-010",
        "study #0",
        "what to do",
        "what was done",
    )
    assert len(others) == 2
    assert "risky" in others[0].where
    assert others[0].done
    counts = {one.id: one.count for one in trouble_counts(database)}
    assert counts == {"MEM-010": 1, others[0].id: 2}
    assert recent_troubles(database, limit=1) == [newest]
