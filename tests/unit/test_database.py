"""The store's behaviour: studies, trials, leases, resume; a state machine against a model of it."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from llmopt.errors import DataError, StorageError, UsageError
from llmopt.records import Configuration, Estimate, InferenceParams, Measurement, Outcome
from llmopt.store import Store
from llmopt.store.owner import Owner


def configuration(n: int = 0) -> Configuration:
    return Configuration(
        engine="fake", launch={"threads": n, "flag": True, "kv": None}, request=InferenceParams(temperature=0.5)
    )


def measurement(value: float = 0.5) -> Measurement:
    accuracy = Estimate(value=value, unit="", n=16, low=0.1, high=0.9, method="wilson")
    return Measurement(estimates={"accuracy": accuracy}, warnings=("measure.few",), certificate={"streams": 4})


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "results" / "llmopt.db") as opened:
        yield opened


def begin(store: Store, name: str = "study") -> int:
    return store.create_study(name, {"trials": 3}, fingerprint="f", model="m", engine="fake", dataset="d", hardware="h")


def test_a_trial_comes_back_as_it_was_committed(store):
    study = begin(store)
    number = store.start_trial(study, configuration(4), origin="tpe", position=7, sampler={"a": 1}, hardware="h")
    assert number == 0
    assert store.finish_trial(
        study, number, Outcome.DONE, measurement=measurement(), objectives=(0.5,), violations=(-1.0,), score=0.5,
        samples="samples/trial-0.jsonl.gz", launch_s=1.0, warmup_s=2.0, measure_s=3.0,
    )  # fmt: skip
    (trial,) = store.trials(study)
    assert trial.configuration == configuration(4)
    assert trial.configuration.key == configuration(4).key
    assert trial.measurement == measurement()
    assert (trial.objectives, trial.violations, trial.position, trial.sampler) == ((0.5,), (-1.0,), 7, {"a": 1})
    assert (trial.launch_s, trial.warmup_s, trial.measure_s) == (1.0, 2.0, 3.0)
    assert trial.outcome is Outcome.DONE
    assert store.trial(study, 0) == trial
    assert store.trial(study, 1) is None


def test_the_first_result_of_a_trial_stands(store):
    study = begin(store)
    number = store.start_trial(study, configuration(), origin="tpe")
    assert store.finish_trial(study, number, Outcome.DONE, score=1.0)
    assert not store.finish_trial(study, number, Outcome.FAILED)
    assert store.trial(study, number).outcome is Outcome.DONE


def test_figures_that_are_no_numbers_come_back_as_not_measured(store):
    study = begin(store)
    number = store.start_trial(study, configuration(), origin="tpe")
    estimate = Estimate(value=math.nan, unit="", n=0, low=-math.inf, high=math.inf)
    fine = Estimate(value=1.0, unit="", n=1, low=-math.inf, high=2.0)
    store.finish_trial(study, number, Outcome.DONE, measurement=Measurement(estimates={"a": estimate, "b": fine}))
    found = store.trial(study, number).measurement
    assert found.value("a") is None
    assert (found.value("b"), found.estimates["b"].low) == (1.0, None)


def test_studies_are_listed_newest_first_with_their_counts(store):
    first, second = begin(store, "one"), begin(store, "two")
    store.finish_trial(first, store.start_trial(first, configuration(), origin="tpe"), Outcome.DONE)
    store.start_trial(first, configuration(1), origin="tpe")
    store.end_study(second, "finished", summary={"verdict": "tie"})
    newest, oldest = store.studies()
    assert (newest.name, newest.state, newest.summary, newest.trials) == ("two", "finished", {"verdict": "tie"}, 0)
    assert (oldest.name, oldest.counts, oldest.spec) == ("one", {"done": 1, "running": 1}, {"trials": 3})
    assert store.studies(limit=1) == [newest]
    assert store.latest_unfinished().name == "one"


def test_a_name_is_used_once(store):
    begin(store)
    with pytest.raises(UsageError) as same:
        begin(store)
    with pytest.raises(UsageError) as different:
        store.create_study("study", {}, fingerprint="other")
    assert (same.value.key, different.value.key) == ("store.study_exists", "store.study_differs")


def test_an_unknown_study_is_answered_with_the_nearest_names(store):
    begin(store, "korean-math-1")
    with pytest.raises(DataError) as caught:
        store.study("korean-math-2")
    assert "korean-math-1" in caught.value.next_step
    assert store.find_study("korean-math-2") is None


def test_claiming_a_study_abandons_what_was_running_and_keeps_what_was_done(store):
    study = begin(store)
    store.finish_trial(study, store.start_trial(study, configuration(), origin="tpe"), Outcome.DONE)
    running = store.start_trial(study, configuration(1), origin="tpe")
    assert store.claim_study(study, fingerprint="f") == [running]
    assert [t.outcome for t in store.trials(study)] == [Outcome.DONE, Outcome.ABANDONED]
    with pytest.raises(StorageError) as caught:
        store.finish_trial(study, running, Outcome.DONE)
    assert caught.value.key == "store.lease_lost"


def test_a_study_with_another_space_is_not_continued(store):
    study = begin(store)
    with pytest.raises(UsageError) as caught:
        store.claim_study(study, fingerprint="other")
    assert caught.value.key == "store.study_differs"


def _give_to(store: Store, owner: Owner, heartbeat_s: float) -> None:
    values = (owner.pid, owner.start, owner.boot, heartbeat_s)
    for table in ("studies", "leases"):
        store.connection.execute(
            f"UPDATE {table} SET owner_pid = ?, owner_start = ?, owner_boot = ?, heartbeat_s = ?", values
        )


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({}, True),
        ({"start": "0"}, False),
        ({"pid": 2**22 + 1}, False),
        ({"boot": "another boot", "heartbeat_age": 10.0}, True),
        ({"boot": "another boot", "heartbeat_age": 1000.0}, False),
    ],
)
def test_only_the_trials_of_dead_owners_are_swept(tmp_path, change, alive):
    path = tmp_path / "llmopt.db"
    parent = os.getppid()  # a living process that is not us
    me = Owner.this_process()
    from llmopt.store.owner import _start

    owner = Owner(
        pid=change.get("pid", parent), start=change.get("start", _start(parent)), boot=change.get("boot", me.boot)
    )
    with Store.open(path, clock=lambda: 5000.0) as store:
        study = begin(store)
        store.start_trial(study, configuration(), origin="tpe")
        _give_to(store, owner, 5000.0 - change.get("heartbeat_age", 4000.0))
    with Store.open(path, clock=lambda: 5000.0) as store:
        (trial,) = store.trials(study)
        assert trial.outcome is (Outcome.RUNNING if alive else Outcome.ABANDONED)
        assert store.find_study("study").state == ("running" if alive else "interrupted")
        if alive:
            with pytest.raises(UsageError) as caught:
                store.claim_study(study)
            assert caught.value.key == "store.study_busy"
        else:
            assert store.claim_study(study) == []


def test_a_heartbeat_reaches_the_study_and_its_running_trials(tmp_path):
    now = [100.0]
    with Store.open(tmp_path / "llmopt.db", clock=lambda: now[0]) as store:
        study = begin(store)
        store.start_trial(study, configuration(), origin="tpe")
        now[0] = 200.0
        store.beat(study)
        for table in ("studies", "leases"):
            assert store.connection.row(f"SELECT heartbeat_s FROM {table}")[0] == 200.0


def test_a_resume_reads_the_best_and_the_newest(store):
    study = begin(store)
    for n in range(40):
        number = store.start_trial(study, configuration(n), origin="tpe")
        store.finish_trial(study, number, Outcome.DONE, score=float(-n))
    running = store.start_trial(study, configuration(99), origin="tpe")
    numbers = [trial.number for trial in store.best_and_newest(study, limit=10)]
    assert numbers == [0, 1, 2, 3, 4, 35, 36, 37, 38, 39]
    assert running not in numbers
    assert len(store.best_and_newest(study, limit=1000)) == 40


def test_streams_survive_writing_meanwhile_and_filter(store):
    study = begin(store)
    for n in range(3):
        store.finish_trial(study, store.start_trial(study, configuration(n), origin="grid"), Outcome.DONE)
    seen = []
    for trial in store.trials(study, outcomes=[Outcome.DONE], phase="search"):
        seen.append(trial.number)
        store.start_trial(study, configuration(trial.number + 50), origin="grid", phase="confirm")
    assert seen == [0, 1, 2]
    assert [point.outcome for point in store.points(study)] == ["done"] * 3 + ["running"] * 3
    assert [trial.number for trial in store.trials(study, after=3)] == [4, 5]


def test_deleting_a_study_takes_its_trials_along_and_leaves_others(store):
    first, second = begin(store, "one"), begin(store, "two")
    for study in (first, second):
        store.start_trial(study, configuration(), origin="tpe")
        store.history.record_event(study, "began")
    store.history.record_error("oom", study_id=first)
    store.delete_study(first)
    assert [study.name for study in store.studies()] == ["two"]
    assert list(store.trials(first)) == []
    assert store.history.events(first) == []
    assert len(list(store.trials(second))) == 1
    assert store.history.errors()[0].study is None


def test_errors_and_events_are_kept(store):
    study = begin(store)
    store.history.record_error("cuda-oom", category="memory", engine="vllm", study_id=study, number=3, data={"gb": 8})
    store.history.record_error("port-taken")
    store.history.record_error("cuda-oom")
    newest, _, oldest = store.history.errors()
    assert newest.signature == "cuda-oom"
    assert (oldest.study, oldest.number, oldest.data) == ("study", 3, {"gb": 8})
    assert store.history.error_counts() == {"cuda-oom": 2, "port-taken": 1}
    store.history.record_event(study, "launch", {"key": "k"})
    store.history.record_event(study, "stop")
    first, second = store.history.events(study)
    assert (first.kind, first.data, second.kind) == ("launch", {"key": "k"}, "stop")
    assert store.history.events(study, after=first.id) == [second]


class StoreMachine(RuleBasedStateMachine):
    """Any order of starting, finishing, claiming and reopening leaves exactly what a plain model says."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "llmopt.db"
        self.store = Store.open(self.path)
        self.study = begin(self.store)
        self.expected: dict[int, tuple[str, float | None]] = {}

    @rule(target=running, n=st.integers(0, 5))
    def start(self, n):
        number = self.store.start_trial(self.study, configuration(n), origin="tpe")
        assert number == len(self.expected)
        self.expected[number] = ("running", None)
        return number

    @rule(
        number=consumes(running),
        score=st.floats(-1, 1),
        outcome=st.sampled_from([Outcome.DONE, Outcome.INFEASIBLE, Outcome.FAILED, Outcome.RACED_OUT]),
    )
    def finish(self, number, score, outcome):
        if self.expected[number][0] == "abandoned":
            with pytest.raises(StorageError):
                self.store.finish_trial(self.study, number, outcome, score=score)
            return
        assert self.store.finish_trial(self.study, number, outcome, measurement=measurement(), score=score)
        assert not self.store.finish_trial(self.study, number, Outcome.FAILED)
        self.expected[number] = (outcome.value, score)

    @rule()
    def claim(self):
        open_ = [number for number, (outcome, _) in self.expected.items() if outcome == "running"]
        assert self.store.claim_study(self.study) == open_
        for number in open_:
            self.expected[number] = ("abandoned", None)

    @rule()
    def reopen(self):
        self.store.close()
        self.store = Store.open(self.path)  # we live: nothing is swept

    @rule()
    def fail_in_the_middle(self):
        with pytest.raises(ZeroDivisionError), self.store.connection.writing() as db:  # noqa: PT012 - the block is the subject
            db.execute("UPDATE trials SET outcome = 'failed'")
            db.execute("DELETE FROM leases")
            1 / 0  # noqa: B018

    @invariant()
    def the_tables_say_the_same(self):
        found = {
            row["number"]: (row["outcome"], row["score"])
            for row in self.store.connection.rows("SELECT number, outcome, score FROM trials")
        }
        assert found == self.expected
        leased = [row[0] for row in self.store.connection.rows("SELECT number FROM leases ORDER BY number")]
        assert leased == [number for number, (outcome, _) in self.expected.items() if outcome == "running"]

    def teardown(self):
        self.store.close()
        self.folder.cleanup()


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=15, stateful_step_count=20)
