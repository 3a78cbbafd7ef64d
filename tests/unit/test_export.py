"""The export, as Optuna itself reads it."""

from __future__ import annotations

from datetime import UTC, datetime

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from llmopt.errors import StorageError, UsageError
from llmopt.objective import parse_constraints, parse_objectives
from llmopt.records import Configuration, Estimate, InferenceParams, Measurement, Outcome
from llmopt.report.export import export_study
from llmopt.store import Store

OBJECTIVES = parse_objectives("quality,ttft_p95")
LIMITS = parse_constraints(["memory<2GB"])


def configuration(threads, temperature=None, kv="f16") -> Configuration:
    return Configuration(
        engine="fake",
        launch={"threads": threads, "kv": kv, "alias": "m", "flash": True},
        request=InferenceParams(temperature=temperature),
    )


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "llmopt.db", clock=lambda: 1_700_000_000.0) as opened:
        study = opened.create_study("연구 1", {}, fingerprint="f", model="m", engine="fake")
        figures = Measurement(estimates={"accuracy": Estimate(value=0.5, unit="", n=16, low=0.3, high=0.7)})
        for c, outcome, objectives, violations in [
            (configuration(1), Outcome.DONE, (0.5, 100.0), (-0.5,)),
            (configuration(2, 0.5), Outcome.DONE, (0.9, 50.0), (0.5,)),
            (configuration(4, 0.0, "q8_0"), Outcome.DONE, (0.6, 80.0), None),
            (configuration(8, 0.0, "q8_0"), Outcome.INFEASIBLE, None, None),
            (configuration(8, 0.5), Outcome.FAILED, None, None),
            (configuration(4, 0.5), Outcome.RACED_OUT, (0.1, 90.0), (-0.2,)),
            (configuration(4, 1.0), Outcome.ABANDONED, None, None),
        ]:
            number = opened.start_trial(study, c, origin="tpe")
            opened.finish_trial(
                study, number, outcome, measurement=figures, objectives=objectives, violations=violations,
                failure={"key": "oom"} if outcome is Outcome.INFEASIBLE else None,
            )  # fmt: skip
        number = opened.start_trial(study, configuration(1), origin="confirm", phase="confirm")
        opened.finish_trial(study, number, Outcome.DONE, objectives=(1.0, 1.0))
        opened.start_trial(study, configuration(3), origin="tpe")
        yield opened


def load(url: str):
    storage = JournalStorage(JournalFileBackend(url)) if "://" not in url else url
    return optuna.load_study(study_name="연구 1", storage=storage)


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_optuna_reads_what_was_exported(store, tmp_path, kind):
    url = f"sqlite:///{tmp_path}/out.db" if kind == "sqlite" else str(tmp_path / "out.log")
    study = store.find_study("연구 1")
    assert export_study(store, study, url, objectives=OBJECTIVES, constraints=LIMITS) == 7
    loaded = load(url)
    assert [direction.name for direction in loaded.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert loaded.metric_names == ["quality", "ttft_p95"]
    states = [trial.state for trial in loaded.trials]
    assert states == [TrialState.COMPLETE] * 3 + [
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.PRUNED,
        TrialState.FAIL,
    ]
    first, second = loaded.trials[:2]
    assert first.values == [0.5, 100.0]
    assert first.params == {"threads": 1, "kv": "f16"}  # what never changed, or was not set, is no parameter of it
    assert second.params == {"threads": 2, "kv": "f16", "temperature": 0.5}
    assert first.user_attrs["fixed_settings"] == {"alias": "m", "flash": True}
    assert first.user_attrs["accuracy"]["low"] == 0.3
    assert loaded.trials[3].user_attrs["failure"] == {"key": "oom"}
    # Optuna shows the dashboard's list a second time, under numbers
    assert second.constraints == {"feasible": -1.0, "memory<2GB": 0.5, "0": -1.0, "1": 0.5}
    # the infeasible second trial, the best in both objectives, is not among the best
    assert [trial.number for trial in loaded.best_trials] == [2]
    moment = datetime.fromtimestamp(1_700_000_000, tz=UTC)
    assert abs(first.datetime_start.astimezone(UTC) - moment).total_seconds() < 1


def test_a_study_is_not_written_twice_to_one_place(store, tmp_path):
    study, url = store.find_study("연구 1"), str(tmp_path / "out.log")
    export_study(store, study, url, objectives=OBJECTIVES)
    with pytest.raises(UsageError) as caught:
        export_study(store, study, url, objectives=OBJECTIVES)
    assert caught.value.key == "export.exists"


@pytest.mark.parametrize(
    "url", ["sqlite:////no/such/folder/x.db", "nosuchdb://user:geheim@host/x", "/no/such/folder/x.log"]
)
def test_a_place_that_cannot_be_written_is_one_sentence_without_its_password(store, url):
    with pytest.raises(StorageError) as caught:
        export_study(store, store.find_study("연구 1"), url, objectives=OBJECTIVES)
    assert caught.value.key == "export.failed"
    assert caught.value.next_step
    assert "geheim" not in caught.value.what
