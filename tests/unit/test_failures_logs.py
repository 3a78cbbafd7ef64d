"""Whole logs with their noise: each failing one named as it should be, no healthy one blamed.

Logs named ``llamacpp_…`` of broken files and limits are the real engine's own; the others are written after its kind.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.failures import advise, classify, find_failure, find_notices
from llmopt.failures.catalogue import catalogue
from llmopt.failures.classify import UNKNOWN
from llmopt.logs import mask

FOLDER = Path(__file__).parent.parent / "fixtures" / "logs"
INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
FAILING, HEALTHY = INDEX["failing"], INDEX["healthy"]


def text(kind: str, name: str) -> str:
    return (FOLDER / kind / f"{name}.log").read_text(encoding="utf-8")


def test_there_are_enough_logs() -> None:
    assert len(FAILING) >= 40
    assert len(HEALTHY) >= 20
    assert {path.stem for path in (FOLDER / "failing").glob("*.log")} == set(FAILING)
    assert {path.stem for path in (FOLDER / "healthy").glob("*.log")} == set(HEALTHY)


@pytest.mark.parametrize("name", sorted(FAILING))
def test_a_failing_log_is_named(name: str) -> None:
    case = dict(FAILING[name])
    wanted = case.pop("expect")
    failure = classify(text("failing", name), **case)
    assert failure.id == wanted
    assert failure.what
    assert failure.why
    assert failure.remedy
    assert advise(failure, {}).text
    if wanted == UNKNOWN:
        assert failure.last_lines
        assert failure.last_lines[-1] in failure.explain()


@pytest.mark.parametrize("name", sorted(HEALTHY))
def test_no_healthy_log_is_blamed(name: str) -> None:
    engine = HEALTHY[name]["engine"]
    assert find_failure(text("healthy", name), engine=engine) is None
    assert find_failure(text("healthy", name)) is None
    failure = classify(text("healthy", name), engine=engine)
    assert failure.role in ("notice", "weak") or failure.id == UNKNOWN


@pytest.mark.parametrize("name", sorted(HEALTHY))
def test_a_crash_after_a_healthy_time_is_not_blamed_on_its_start(name: str) -> None:
    failure = classify(text("healthy", name), engine=HEALTHY[name]["engine"], exit_status=-11)
    assert failure.id == "RUN-019"


def test_a_healthy_start_does_not_hide_a_later_cause() -> None:
    healthy = text("healthy", "vllm_plain")
    for name, case in FAILING.items():
        if case["engine"] == "vllm" and catalogue_role(case["expect"]) == "root" and "kernel_log" not in case:
            later = healthy + text("failing", name).replace("Application startup complete", "still starting")
            assert classify(later, engine="vllm", exit_status=1).id == case["expect"], name


def test_an_engine_the_catalogue_never_met_may_say_anything() -> None:
    log = text("failing", "llamacpp_kv")
    wanted = FAILING["llamacpp_kv"]["expect"]
    failure = classify(log, engine="somebody_elses", exit_status=1)
    assert (failure.id, failure.engine) == (wanted, "somebody_elses")
    assert classify(log, engine="vllm", exit_status=1).id != wanted


def catalogue_role(identifier: str) -> str:
    return "unknown" if identifier == UNKNOWN else catalogue()[identifier].role


def test_notices_are_kept_for_the_result() -> None:
    notices = find_notices(text("healthy", "llamacpp_cpu_build"), engine="llamacpp")
    assert [notice.id for notice in notices] == ["OK-006"]
    assert not notices[0].is_error


def test_the_guardians_status_is_understood() -> None:
    class Ended:
        code = None
        signal = 9
        memory_kills = 2

    assert classify("loading", exit_status=Ended()).id == "MEM-016"
    Ended.memory_kills = 0
    assert classify("loading", exit_status=Ended()).id == "MEM-017"
    Ended.signal, Ended.code = None, 3
    assert classify("loading", exit_status=Ended()).values == {"code": "3"}


def test_figures_are_read_from_the_log() -> None:
    log = text("failing", "vllm_context_too_long")
    assert classify(log, engine="vllm").values["estimated"] == "15360"


def test_the_line_that_gave_it_away_is_shown_with_its_number() -> None:
    log = text("failing", "llamacpp_trunc")
    failure = classify(log, engine="llamacpp", exit_status=1)
    assert "not within the file bounds" in failure.line
    assert log.splitlines()[failure.line_number - 1].strip() == failure.line
    assert failure.id in failure.explain()


def test_secrets_in_a_log_are_masked_in_the_failure() -> None:
    log = "started with --api-key verysecretkey1 HF_TOKEN=hf_abcdefghijk\n" * 3 + "gibberish hf_abcdefghijk\n"
    failure = classify(log, exit_status=1)
    shown = failure.explain() + str(failure.last_lines)
    assert "verysecretkey1" not in shown
    assert "hf_abcdefghijk" not in shown


def test_very_long_logs_are_read_at_both_ends() -> None:
    noise = "INFO all is well, 200 OK\n" * 100_000
    cause = "ValueError: No available memory for the cache blocks.\n"
    assert classify(cause + noise, engine="vllm").id == "MEM-002"
    assert classify(noise + cause, engine="vllm").id == "MEM-002"


@given(st.text(max_size=2000), st.one_of(st.none(), st.integers(-70, 300)))
def test_any_text_gets_an_answer(log: str, status: int | None) -> None:
    failure = classify(log, exit_status=status)
    assert failure.explain()
    assert mask(failure.explain()) == failure.explain()


@given(st.integers(0, 2**32))
def test_losing_random_lines_of_noise_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    name = rng.choice(sorted(FAILING))
    case = dict(FAILING[name])
    wanted = case.pop("expect")
    failure = classify(text("failing", name), **case)
    if failure.line_number is None:
        return
    marker = {"Application startup complete", "listening on", "ready to roll"}
    lines = text("failing", name).splitlines()
    kept = [
        line
        for number, line in enumerate(lines, 1)
        if rng.random() < 0.5 or number == failure.line_number or any(word in line for word in marker)
    ]
    found = classify("\n".join(kept), **case).id
    assert found == wanted or wanted in catalogue()[found].refines or catalogue_role(wanted) != "root"
