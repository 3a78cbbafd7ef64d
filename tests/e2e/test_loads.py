"""Loads from the command line: what was asked for is what the engine got, request by request, in every configuration."""

import json

import pytest

from llmopt.measure.arrivals import arrival_times
from llmopt.records import Load
from llmopt.store.beside import read_answers

ASKED = ("--dry-run", "--dataset", "korean_math_easy", "--samples", "8")
FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.05"}


def run(cli, name, *words, env=None):
    """A finished measurement: its result and the requests of each launch by planned start, from the first on."""
    ran = cli.run(*words, *ASKED, "--name", name, "--json", env={**FAST, **(env or {})})
    assert ran.code == 0, ran.err
    folder = cli.folder / "optimization_results" / name
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    trials = [launch["trial"] for side in found["sides"] for launch in side["launches"]]
    return found, [sorted(sample.planned_s for sample in read_answers(folder, number)[0]) for number in trials]


def scheduled(found, count):
    """When the seed says that requests are due, from the first on."""
    due = arrival_times(Load(**found["task"]["load"]), count)
    return [at_s - due[0] for at_s in due]


LOADS = {
    "poisson": (("--rate", "40"), {"arrival": "poisson", "rate": 40.0}),
    "constant": (("--rate", "40", "--arrival", "constant"), {"arrival": "constant"}),
    "bursty": (
        ("--rate", "40", "--arrival", "gamma", "--burstiness", "0.25"),
        {"arrival": "gamma", "burstiness": 0.25},
    ),
    "ramp": (("--rate", "80", "--ramp", "10:0.2"), {"arrival": "poisson", "ramp_from": 10.0, "ramp_s": 0.2}),
}


@pytest.mark.parametrize("name", LOADS)
def test_requests_start_when_the_seed_says(inline, name):
    words, load = LOADS[name]
    found, launches = run(inline, name, "benchmark", "--repeats", "1", "--slo", "ttft<5s,e2e<30s", *words)
    assert load.items() <= found["task"]["load"].items()
    (planned,) = launches
    assert [at_s - planned[0] for at_s in planned] == pytest.approx(scheduled(found, len(planned)), abs=1e-6)
    assert len(planned) == 8
    figures = found["sides"][0]["figures"]
    assert figures["attainment"]["value"] == 1
    assert figures["attainment"]["n"] == 8
    assert "lateness_p50_ms" in figures


def test_every_configuration_of_a_comparison_gets_the_same_schedule(inline):
    models = ("--models", "smollm2-135m", "smollm2-135m@threads=4")
    found, launches = run(inline, "same", "compare", "--rate", "60", "--repeats", "4", *models)
    assert len(launches) == 8
    spans = [[at_s - planned[0] for at_s in planned] for planned in launches]
    assert all(span == pytest.approx(scheduled(found, len(span)), abs=1e-6) for span in spans)


def test_a_shared_prefix_is_what_a_prefix_cache_finds_again(inline, tmp_path):
    script = tmp_path / "remembers.json"
    script.write_text(json.dumps({"remembers": True}))
    env = {"LLMOPT_FAKE_SCENARIO": str(script)}
    shares = {}
    for name, words in {"plain": (), "shared": ("--shared-prefix", "200:2")}.items():
        found, _ = run(inline, name, "benchmark", "--repeats", "1", "--streams", "1", *words, env=env)
        shares[name] = found["sides"][0]["figures"].get("cached_prompt_share", {"value": 0.0})["value"]
        assert found["task"]["load"]["streams"] == 1
    assert shares["shared"] > shares["plain"] + 0.3
