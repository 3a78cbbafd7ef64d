"""One whole search on the real embedded llama.cpp: plan, trials, verdict, and the questions asked afterwards.

Two minutes on two quiet cores: ``python -m pytest -m long tests/e2e/test_search_real.py``. Beside other jobs an answer may
take ten times as long; where the time limit then leaves fewer trials, what depends on their number is not asked for.
"""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(1700)]


def notes(events):
    return {event["key"] for event in events if event["event"] == "note"}


def plans(events):
    return [event for event in events if event["event"] == "plan"]


def test_a_real_engine_is_searched_and_the_result_explained(cli, demo_model):
    ran = cli.run(
        "optimize", "--model", str(demo_model), "--dataset", "korean_math_easy", "--engine", "llamacpp",
        "--objective", "answers_per_minute", "--samples", "4", "--max-tokens", "8", "--streams", "2", "--trials", "8",
        "--timeout", "1500", "--name", "real", "--json", patience_s=1600,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    events = ran.events
    # of a processor nothing is foretold before there were runs on it
    assert "study.foreseen" not in notes(events)
    first, *later = plans(events)
    assert 1 <= first["trials"] <= 7
    assert first["limit_s"] == 1500
    assert 0 < first["finish_s"] <= 1500
    assert all(plan["finish_s"] > 0 and plan["trials"] < 7 for plan in later)

    result = events[-1]["result"]
    trials = [trial for trial in result["trials"] if trial["phase"] != "confirm"]
    ended = [trial for trial in trials if trial["outcome"] in {"done", "raced_out"}]
    assert len({trial["configuration"]["key"] for trial in ended}) == len(ended) >= 3
    assert result["stopped_by"] in {"trials", "time", "no_progress"}
    if result["stopped_by"] == "trials":
        assert len(ended) == 8
        assert later
        assert {trial["origin"] for trial in trials} >= {"baseline", "gp"}
    assert result["verdict"]["kind"] in {"better", "worse", "tie", "undecided"}
    cli.wait_until_clean()

    searched = {parameter["name"] for parameter in result["space"]["parameters"]}
    other = next(t for t in ended if t["number"] != result["best"]["trial"] and t["origin"] != "baseline")
    changed = {
        name: value
        for name, value in {**other["configuration"]["launch"], **other["configuration"]["request"]}.items()
        if {**result["best"]["configuration"]["launch"], **result["best"]["configuration"]["request"]}.get(name)
        != value
        and name in searched
        and value is not None
    }
    asked = ("--why-not", ",".join(f"{n}={_typed(v)}" for n, v in changed.items()), "--why-not", "context=16")
    told = cli.run("explain", "real", *asked, "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    objective = found["objectives"][0]
    assert objective["name"] == "answers_per_minute"
    enough = found["measured"] >= found["needed"]
    assert found["measured"] == sum(trial["objectives"] is not None for trial in trials) >= 3
    assert all(one["low"] <= one["share"] <= one["high"] for one in objective["importance"])
    assert any(one["share"] > 0 for one in objective["importance"]) == enough
    assert {one["kind"] for one in found["binds"]} == {"memory", "bandwidth", "compute", "batch", "client"}
    kinds = [answer["kind"] for answer in found["why_not"]]
    assert kinds[0] in {"measured", "estimated" if enough else "untried"}
    assert kinds[1] == "illegal"
    for language, words, few in (
        ("en", "What holds the winner back", "trials were measured; what matters"),
        ("ko", "무엇이 승자를 막고 있는가", "번뿐입니다"),
    ):
        spoken = cli.run("explain", "real", *asked, env={"LLMOPT_LANG": language})
        assert spoken.code == 0, spoken.err
        assert words in spoken.out
        assert (few in spoken.out) != enough


def _typed(value):
    return {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
