"""What follows a failure: a derived trial with changed or equal settings, at most a few, then infeasible; also later."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from llmopt.failures import classify
from llmopt.hardware.supervision import LaunchMemory
from llmopt.records import Configuration, InferenceParams, Outcome
from llmopt.search.trial import Failed, TrialResult
from llmopt.store import Store
from llmopt.store.rows import TrialRow
from llmopt.study.recovery import MEMORY_ENDED, MOST_ATTEMPTS, Recovery, Remedies

OUT_OF_MEMORY = "llama_kv_cache: failed to allocate buffer for kv cache\n"
PORT_TAKEN = "srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080\n"
LAUNCH = {"slots": 8, "context": 8192, "cache_type_k": "f16", "cache_type_v": "f16"}
CONFIGURATION = Configuration(engine="llamacpp", launch=LAUNCH, request=InferenceParams())


class Taken:
    """Remembers which remedies were taken."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def remedies(self) -> Remedies:
        async def free_memory() -> None:
            self.names.append("free_memory")

        async def fetch_again() -> None:
            self.names.append("fetch_again")

        return Remedies(free_memory=free_memory, fetch_again=fetch_again)


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def recovery(taken: Taken) -> Recovery:
    return Recovery(taken.remedies(), context_per_slot=lambda: 512)


def failed(log: str, engine: str = "llamacpp") -> TrialResult:
    failure = classify(log, engine=engine, exit_status=1)
    assert failure.known
    told = Failed(id=failure.id, category=failure.category, text=failure.what)
    return TrialResult(outcome=Outcome.FAILED, failed=told, failure=failure)


def chain(recovery: Recovery, result: TrialResult, configuration: Configuration = CONFIGURATION) -> list[TrialResult]:
    """The same failure again and again until nothing more is derived."""
    results, followed = [], []
    while True:
        judged = recovery.judged(configuration, result, followed=followed)
        results.append(judged)
        proposal = recovery.next(len(results), configuration, judged)
        if proposal is None:
            return results
        assert proposal.derived_from == len(results)
        assert proposal.origin == "recovery"
        configuration, followed = proposal.configuration, list(proposal.sampler["advice"])


def test_too_much_memory_becomes_a_smaller_trial_and_the_failed_one_is_infeasible(recovery: Recovery) -> None:
    judged = recovery.judged(CONFIGURATION, failed(OUT_OF_MEMORY), followed=[])
    assert judged.outcome is Outcome.INFEASIBLE
    derived = recovery.next(7, CONFIGURATION, judged)
    assert derived.derived_from == 7
    assert derived.configuration.launch != LAUNCH
    assert derived.configuration.request == CONFIGURATION.request
    assert judged.failed.done
    assert CONFIGURATION.launch == LAUNCH  # the trial itself is never edited


@pytest.mark.parametrize("log", [OUT_OF_MEMORY, PORT_TAKEN])
def test_a_chain_ends_after_a_few_attempts(recovery: Recovery, log: str) -> None:
    results = chain(recovery, failed(log))
    assert 2 <= len(results) <= MOST_ATTEMPTS + 1
    assert results[-1].failed.advice is None
    assert results[-1].outcome in {Outcome.INFEASIBLE, Outcome.FAILED}


def test_the_memory_watch_itself_leads_to_smaller_trials(recovery: Recovery) -> None:
    ended = TrialResult(outcome=Outcome.INFEASIBLE, failed=Failed(id=MEMORY_ENDED, category="memory", text="x"))
    results = chain(recovery, ended)
    slots = [each.failed.advice["launch"]["slots"] for each in results if each.failed.advice]
    assert slots[0] == 4
    assert all(each.outcome is Outcome.INFEASIBLE for each in results)


def test_what_nobody_knows_a_way_around_is_left(recovery: Recovery) -> None:
    unknown = replace(failed(OUT_OF_MEMORY), failure=classify("gibberish", exit_status=3))
    judged = recovery.judged(CONFIGURATION, unknown, followed=[])
    assert judged.outcome is Outcome.INFEASIBLE
    assert recovery.next(1, CONFIGURATION, judged) is None
    done = TrialResult(outcome=Outcome.DONE)
    assert recovery.judged(CONFIGURATION, done, followed=[]) is done


@pytest.mark.parametrize(
    "case",
    [
        ("error loading model: tensor 'a' data is not within the file bounds, model is corrupted or incomplete",
         "llamacpp", "redownload", ["fetch_again"]),
        ("AssertionError: Error in memory profiling. Initial free memory 20.1 GiB, current free memory 21.9 GiB.", "vllm", "wait", ["free_memory"]),
        ("ValueError: Free memory on device cuda:0 (3.1/23.5 GiB) on startup is less than desired GPU memory",
         "vllm", "free_gpu", ["free_memory"]),
        (PORT_TAKEN, "llamacpp", "new_port", []),
    ],
)  # fmt: skip
async def test_the_remedy_is_taken_before_the_derived_trial(
    taken: Taken, monkeypatch, case: tuple[str, str, str, list[str]]
) -> None:
    log, engine, step, remedies = case
    recovery = Recovery(taken.remedies())
    configuration = replace(CONFIGURATION, engine=engine, launch={"gpu_memory_utilization": 0.9})
    proposal = recovery.next(1, configuration, recovery.judged(configuration, failed(log, engine), followed=[]))
    assert proposal.sampler["step"] == step
    assert proposal.configuration.launch == configuration.launch
    monkeypatch.setattr("llmopt.study.recovery.LONGEST_WAIT_S", 0.0)
    await recovery.prepare(proposal)
    assert taken.names == remedies


def row(number: int, result: TrialResult, *, derived_from: int | None = None) -> TrialRow:
    """The trial as it comes back from a database."""
    store = Store.open(PATHS[-1])
    with store:
        study = store.find_study("s")
        study_id = study.id if study else store.create_study("s", {}, fingerprint="f")
        found = store.start_trial(study_id, CONFIGURATION, origin="x", derived_from=derived_from)
        assert found == number
        failure = json.loads(json.dumps(asdict(result.failed))) if result.failed else None
        if result.outcome is not Outcome.RUNNING:
            store.finish_trial(study_id, number, result.outcome, failure=failure)
        return store.trial(study_id, number)


PATHS = []


def test_advice_that_was_not_followed_before_a_kill_is_followed_later(recovery: Recovery, tmp_path) -> None:
    PATHS.append(tmp_path / "db")
    judged = recovery.judged(CONFIGURATION, failed(OUT_OF_MEMORY), followed=[])
    wanted = recovery.next(0, CONFIGURATION, judged)
    first = row(0, judged)
    assert recovery.open([first]) == [wanted]
    abandoned = row(1, TrialResult(outcome=Outcome.ABANDONED), derived_from=0)
    assert recovery.open([first, abandoned]) == [wanted]
    ended = row(2, TrialResult(outcome=Outcome.DONE), derived_from=0)
    assert recovery.open([first, abandoned, ended]) == []


async def test_memory_is_waited_for_until_it_is_calm(monkeypatch) -> None:
    monkeypatch.setattr("llmopt.hardware.supervision._LOOK_S", 0.0)
    now, readings = [0.0], iter([0, 10 << 30, 5 << 30, 0])

    class Sinking(LaunchMemory):
        def _held(self) -> tuple[int, ...]:
            now[0] += 1.0
            return (next(readings, 0),)

    memory = Sinking(now_s=lambda: now[0], libraries=())
    assert await memory.settled(calm_s=2.0)
    assert now[0] >= 5
    readings = iter(range(0, 1 << 40, 1 << 30))
    assert not await memory.settled(calm_s=2.0, cap_s=10.0)
