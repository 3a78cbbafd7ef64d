"""Groups here: order, failures, cancelling; and the conductor against an executor that loses and refuses groups."""

from __future__ import annotations

import sys
import threading
import types

import pytest

from llmopt.errors import UsageError
from llmopt.messages import set_language
from llmopt.objective import parse_objectives
from llmopt.records import Configuration, InferenceParams, Outcome, Parameter
from llmopt.search.conduct import conduct
from llmopt.search.coordinator import Coordinator
from llmopt.search.executor import Group, LocalExecutor, Report, Resources
from llmopt.search.proposer import Result
from llmopt.search.space import Space

SPEED = parse_objectives("answers_per_minute")


def make_space() -> Space:
    return Space(
        [
            Parameter(name="threads", level="launch", values=(1, 2, 3, 4, 5, 6), ordinal=True),
            Parameter(name="top_k", level="request", values=(1, 10, 100), ordinal=True),
        ],
        engine="fake",
    )


class Worker:
    hardware = "machine-1"
    log: list = []  # noqa: RUF012 - one log for all workers of a test
    gate: threading.Event | None = None

    def __init__(self, spec):
        self.spec = spec
        self.log.append(("build", spec.get("threads")))
        if spec.get("broken"):
            raise RuntimeError("no such engine")

    def run(self, trial):
        if self.gate is not None:
            self.gate.wait(10)
        if trial["launch"].get("threads") == self.spec.get("dies_at"):
            raise ValueError("it died")
        self.log.append(("run", trial["launch"]["threads"], trial["request"].get("top_k")))
        return {"speed": float(trial["launch"]["threads"])}

    def close(self):
        self.log.append(("close", self.spec.get("threads")))


@pytest.fixture
def work(monkeypatch):
    module = types.ModuleType("llmopt_test_worker")
    module.build = Worker
    monkeypatch.setitem(sys.modules, "llmopt_test_worker", module)
    monkeypatch.setattr(Worker, "log", [])
    monkeypatch.setattr(Worker, "gate", None)
    return "llmopt_test_worker:build"


def trial(threads: int, top_k: int = 1):
    return {"engine": "fake", "launch": {"threads": threads}, "request": {"top_k": top_k}}


def drain(executor, wanted="ended") -> list[Report]:
    found: list[Report] = []
    while not any(report.kind in (wanted, "failed") for report in found):
        new = executor.reports(10)
        assert new, "the executor went silent"
        found += new
    return found


def test_a_group_runs_in_order_and_is_closed(work):
    executor = LocalExecutor()
    executor.start(Group(id="g", work=work, spec={"threads": 1}, trials={"a": trial(1, 1), "b": trial(1, 10)}))
    found = drain(executor)
    assert [(r.kind, r.key, r.hardware) for r in found] == [
        ("result", "a", "machine-1"), ("result", "b", "machine-1"), ("ended", "", "machine-1"),
    ]  # fmt: skip
    assert Worker.log == [("build", 1), ("run", 1, 1), ("run", 1, 10), ("close", 1)]
    executor.close()


@pytest.mark.parametrize(("spec", "why"), [({"broken": True}, "no such engine"), ({"dies_at": 2}, "it died")])
def test_a_worker_that_raises_is_reported_and_closed(work, spec, why):
    executor = LocalExecutor()
    executor.start(Group(id="g", work=work, spec=spec, trials={"a": trial(1), "b": trial(2), "c": trial(3)}))
    found = drain(executor)
    assert found[-1].kind == "failed"
    assert why in found[-1].why
    assert [r.key for r in found if r.kind == "result"] == ([] if "broken" in spec else ["a"])
    executor.close()


def test_slots_are_counted_and_a_cancelled_group_says_nothing_more(work, monkeypatch):
    monkeypatch.setattr(Worker, "gate", threading.Event())
    executor = LocalExecutor(slots=2)
    assert executor.capacity() == 2
    executor.start(Group(id="g", work=work, spec={}, trials={"a": trial(1), "b": trial(2)}))
    assert executor.capacity() == 1
    executor.cancel("g")
    Worker.gate.set()
    executor.close()
    assert executor.reports(0.01) == []
    assert [entry[0] for entry in Worker.log] == ["build", "run", "close"]


# ── the conductor ──────────────────────────────────────────────────────────────────────────────────────────────────


class Ledger:
    def __init__(self):
        self.trials: list[tuple] = []
        self.state: dict[int, str] = {}
        self.hardware: dict[int, str] = {}

    def started(self, proposal):
        self.trials.append(proposal.configuration)
        number = len(self.trials) - 1
        self.state[number] = "running"
        return number

    def finished(self, number, value, *, hardware):
        assert self.state[number] == "running"
        self.state[number] = "done"
        self.hardware[number] = hardware
        return Result(outcome=Outcome.DONE, objectives=(value["speed"],))

    def failed(self, number, why, *, hardware):
        self.state[number] = f"failed: {why}"
        return Result(outcome=Outcome.FAILED)

    def abandoned(self, number, why):
        self.state[number] = "abandoned"

    def keys(self, state):
        return [self.trials[n].key for n, s in self.state.items() if s.startswith(state)]


class Scripted:
    """Runs everything at once in its own order; ``script`` changes what becomes of the n-th group."""

    def __init__(self, script, slots=3):
        self.script, self.slots, self.groups, self.pending = script, slots, [], []

    def capacity(self):
        return self.slots - len({report.group for report in self.pending})

    def start(self, group):
        what = self.script.get(len(self.groups), "run")
        self.groups.append(group)
        say = []
        keys = list(group.trials)
        if what in ("run", "twice"):
            for key in keys:
                say += [Report(group=group.id, kind="result", key=key, value={"speed": 1.0}, hardware="h")] * (
                    2 if what == "twice" else 1
                )
            say.append(Report(group=group.id, kind="ended", hardware="h"))
        elif what == "lost":
            say.append(Report(group=group.id, kind="result", key=keys[0], value={"speed": 1.0}, hardware="h"))
            say.append(Report(group=group.id, kind="lost", why="node died"))
        else:
            say.append(Report(group=group.id, kind=what, why="8 GPU"))
        self.pending += say

    def reports(self, timeout_s):
        found, self.pending = self.pending[:2], self.pending[2:]
        return found

    def cancel(self, group_id): ...

    def close(self): ...


def run(script, trials=18, method="grid", **options):
    ledger, executor = Ledger(), Scripted(script)
    coordinator = Coordinator(make_space(), SPEED, method=method)
    done = conduct(
        coordinator, executor, ledger, study="s", work="m:f", spec=lambda c: dict(c.launch), trials=trials, per_group=3, **options
    )  # fmt: skip
    return done, ledger, executor


def test_everything_runs_once_in_groups_that_share_a_launch():
    done, ledger, executor = run({})
    assert done.finished == 18
    assert len(set(ledger.keys("done"))) == 18
    assert set(ledger.hardware.values()) == {"h"}
    for group in executor.groups:
        assert len({tuple(t["launch"].items()) for t in group.trials.values()}) == 1
    assert len({key for group in executor.groups for key in group.trials}) == 18


@pytest.mark.parametrize("method", ["grid", "random", "tpe", "auto"])
def test_no_more_trials_are_started_than_wanted(method):
    done, ledger, _ = run({}, trials=7, method=method)
    assert done.finished == len(ledger.trials) == 7


def test_a_lost_group_is_run_again_without_what_was_finished():
    done, ledger, executor = run({1: "lost"})
    assert done.lost_groups == 1
    assert done.finished == 18
    finished = ledger.keys("done")
    assert len(finished) == len(set(finished)) == 18
    assert len(ledger.keys("abandoned")) == 2
    assert set(ledger.keys("abandoned")) <= set(finished)
    keys = [key for group in executor.groups for key in group.trials]
    assert len(keys) == len(set(keys)) == 20


def test_a_group_that_is_always_lost_ends_as_failed():
    done, ledger, _ = run(dict.fromkeys(range(9), "lost"), trials=9, attempts=2)
    assert done.lost_groups == 6
    assert [s for s in ledger.state.values() if s == "running"] == []
    assert len(ledger.keys("failed")) == 9 - done.finished > 0


def test_a_result_that_comes_twice_counts_once():
    done, ledger, _ = run({0: "twice"})
    assert done.finished == len(ledger.keys("done")) == 18


def test_what_no_machine_can_hold_is_told_and_the_rest_goes_on():
    done, ledger, _ = run({0: "refused"})
    assert done.refused == ("8 GPU",)
    assert done.finished == 15
    assert len(ledger.keys("failed: 8 GPU")) == 3


@pytest.mark.parametrize(("language", "words"), [("en", "No machine"), ("ko", "클러스터의 어떤 장비도")])
def test_where_everything_is_refused_there_is_one_clear_error(language, words):
    set_language(language)
    try:
        with pytest.raises(UsageError) as caught:
            run(dict.fromkeys(range(9), "refused"))
        assert caught.value.key == "search.no_machine"
        assert "8 GPU" in caught.value.what
        assert words in caught.value.what
        assert "GPU" in caught.value.next_step
    finally:
        set_language(None)


def test_when_time_is_up_nothing_new_is_started():
    allowed = iter([True, True, False, False, False, False, False])
    done, ledger, _ = run({}, may_start=lambda: next(allowed, False))
    assert done.finished == len(ledger.trials) == 6


def test_resources_follow_the_configuration():
    ledger, executor = Ledger(), Scripted({})
    coordinator = Coordinator(make_space(), SPEED, method="grid")
    conduct(
        coordinator, executor, ledger, study="s", work="m:f", spec=lambda c: {}, trials=6, per_group=3,
        resources=lambda c: Resources(gpus=c.launch["threads"]),
    )  # fmt: skip
    for group in executor.groups:
        assert group.resources.gpus == next(iter(group.trials.values()))["launch"]["threads"]


def test_the_conductor_and_a_real_local_executor(work):
    ledger, executor = Ledger(), LocalExecutor(slots=2)
    coordinator = Coordinator(make_space(), SPEED, method="random", seed=1)
    done = conduct(
        coordinator, executor, ledger, study="s", work=work, spec=lambda c: {"threads": c.launch["threads"]}, trials=12
    )
    executor.close()
    assert done.finished == 12
    assert len(set(ledger.keys("done"))) == 12
    assert sum(entry[0] == "build" for entry in Worker.log) == sum(entry[0] == "close" for entry in Worker.log)


def test_a_configuration_put_back_is_the_next():
    coordinator = Coordinator(make_space(), SPEED, method="grid")
    first = coordinator.ask()
    coordinator.put_back(first)
    assert coordinator.ask() == first
    configuration = Configuration(engine="fake", launch={"threads": 1}, request=InferenceParams())
    assert configuration.launch_key
