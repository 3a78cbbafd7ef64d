"""What past studies in the store teach: forecasts as a prior, and memory corrections that only ever raise."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from llmopt.models.catalogue import built_in_models
from llmopt.models.memory_fit import memory_fit
from llmopt.objective import parse_constraint, parse_objectives
from llmopt.predict.machine import MachineSpeed, save_speed
from llmopt.predict.study import Prompt, Scene, StudyForecast
from llmopt.records import (
    Configuration,
    Cpu,
    Estimate,
    Hardware,
    HostMemory,
    InferenceParams,
    Load,
    Measurement,
    Outcome,
    Task,
)
from llmopt.search.proposer import Prior
from llmopt.store.database import Store
from llmopt.study.foresight import (
    Foresight,
    Surroundings,
    correction_of,
    plain_model,
    prompts_of,
    seen_runs,
    tokens_per_byte,
)
from llmopt.workload.datasets import load_dataset

GIB = 1 << 30
HARDWARE = Hardware(
    cpu=Cpu(model="x", architecture="x86_64", physical_cores=4, logical_cores=4, usable_cores=4.0),
    memory=HostMemory(total_bytes=32 * GIB, available_bytes=24 * GIB),
)
SPEED = MachineSpeed(threads=4, bandwidth_one=10e9, bandwidth_all=25e9, flops_one=50e9, flops_all=180e9)
MODEL = replace(
    built_in_models()["llama3.1-8b"].facts, name="small", format="gguf", layers=16, hidden_size=1024, heads=16,
    kv_heads=4, head_dim=64, feed_forward=3072, vocabulary=32000, parameters=300_000_000, weight_bytes=180_000_000,
    quantization="Q4_K_M", context_length=8192,
)  # fmt: skip
AROUND = Surroundings(engine="llamacpp", hardware=HARDWARE)


def configuration(slots=4, threads=4) -> Configuration:
    launch = {
        "threads": threads, "threads_batch": threads, "slots": slots, "context": 4096, "batch": 512, "ubatch": 512,
        "cache_type_k": "f16", "cache_type_v": "f16", "flash_attention": "on", "kv_unified": True,
    }  # fmt: skip
    return Configuration(engine="llamacpp", launch=launch, request=InferenceParams(prompt_form="zero_shot"))


def peak(one: Configuration, factor: float) -> float:
    """A measured peak whose uncertain part is ``factor`` times the estimated one."""
    fit = memory_fit(
        "llamacpp", MODEL, one.launch, HARDWARE, Task(load=Load(streams=4), max_tokens=64, prompt_tokens=130)
    )
    exact = fit.bytes_of("weights", "kv")
    return exact + factor * (fit.total_bytes - exact)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    save_speed(SPEED, hardware=HARDWARE.fingerprint)
    with Store.open(tmp_path / "studies.db") as store:
        yield store


def study(store, name, *, rates, factor=1.0, engine="llamacpp", hardware=HARDWARE, valid=True, facts=MODEL):
    spec = {"streams": 4, "max_tokens": 64, "circumstances": {"engine": engine, "engine_version": "1"}}
    if facts is not None:
        spec["model_facts"] = plain_model(facts)
    number = store.create_study(
        name, spec, fingerprint="f", model="small", engine=engine, dataset="d", hardware=hardware.fingerprint
    )
    for slots, rate in rates.items():
        one = configuration(slots)
        trial = store.start_trial(number, one, origin="gp", phase="search", hardware=hardware.fingerprint)
        figures = {
            "answers_per_minute": Estimate(value=rate, unit="answers/min", n=8),
            "prompt_tokens_mean": Estimate(value=100.0, unit="tokens", n=8),
            "output_tokens_mean": Estimate(value=40.0, unit="tokens", n=8),
            "memory_bytes": Estimate(value=peak(one, factor), unit="B", n=1),
        }
        measurement = Measurement(estimates=figures, valid=valid)
        store.finish_trial(number, trial, Outcome.DONE, measurement=measurement, objectives=(rate,), score=rate)
    return number


def scene() -> Scene:
    return Scene(
        model=MODEL, engine="llamacpp", engine_version="1", hardware=HARDWARE,
        task=Task(load=Load(streams=4), max_tokens=64, prompt_tokens=130),
        prompts={"zero_shot": Prompt(tokens=100)}, answer_tokens=40, speed=SPEED,
    )  # fmt: skip


def test_runs_of_this_machine_and_engine_come_back_as_they_were(store):
    first = study(store, "one", rates={1: 10.0, 2: 18.0, 4: 30.0})
    study(store, "elsewhere", rates={1: 99.0}, hardware=replace(HARDWARE, cpu=replace(HARDWARE.cpu, model="y")))
    study(store, "other-engine", rates={1: 99.0}, engine="vllm")
    study(store, "doubtful", rates={1: 99.0}, valid=False)
    study(store, "of-an-older-version", rates={1: 99.0}, facts=None)
    runs = seen_runs(store, AROUND)
    assert sorted(run.answers_per_minute for run in runs) == [10.0, 18.0, 30.0]
    assert all(run.scene.model == MODEL for run in runs)
    assert runs[0].scene.task.load.streams == 4
    assert seen_runs(store, AROUND, without=first) == []


def test_the_prior_foresees_speed_and_limits_and_no_quality(store):
    study(store, "one", rates={1: 10.0, 2: 18.0, 4: 30.0})
    objectives = parse_objectives("quality,answers_per_minute")
    limits = (parse_constraint("answers_per_minute>20"), parse_constraint("quality>0.5"))
    prior = Foresight(StudyForecast(scene(), seen_runs(store, AROUND)), objectives, limits)
    _: Prior = prior
    many, few = prior.predict(configuration(4)), prior.predict(configuration(1))
    assert math.isnan(many.objectives[0])
    assert many.objectives[1] == pytest.approx(30.0, rel=0.2)
    assert few.objectives[1] == pytest.approx(10.0, rel=0.2)
    assert many.violations[0] < 0 < few.violations[0]
    assert math.isnan(many.violations[1])
    assert all(math.isfinite(spread) and spread > 0 for spread in many.spread)
    assert many.fits > 0.9


def test_without_runs_the_prior_says_that_it_does_not_know(store):
    prior = Foresight(StudyForecast(scene(), seen_runs(store, AROUND)), parse_objectives("answers_per_minute"))
    assert prior.predict(configuration()) is None
    study(store, "one", rates={1: 10.0, 2: 18.0, 4: 30.0})
    only_quality = Foresight(StudyForecast(scene(), seen_runs(store, AROUND)), parse_objectives("quality"))
    assert only_quality.predict(configuration()) is None


def test_a_guess_has_an_order_but_holds_nothing_against_a_limit(store):
    limits = (parse_constraint("answers_per_minute>20"), parse_constraint("memory<1GB"))
    objectives = parse_objectives("answers_per_minute")
    prior = Foresight(StudyForecast(scene(), seen_runs(store, AROUND), guess=True), objectives, limits)
    many, few = prior.predict(configuration(4)), prior.predict(configuration(1))
    assert many.objectives[0] > few.objectives[0]
    assert math.isnan(many.violations[0])
    assert math.isfinite(many.violations[1]), "memory is estimated, not guessed"
    assert not prior.knows(configuration())
    study(store, "one", rates={1: 10.0, 2: 18.0, 4: 30.0})
    taught = Foresight(StudyForecast(scene(), seen_runs(store, AROUND), guess=True), objectives, limits)
    assert taught.knows(configuration())
    assert math.isfinite(taught.predict(configuration()).violations[0])


@pytest.mark.parametrize(("factor", "least", "most"), [(0.5, 1.0, 1.0), (1.0, 1.0, 1.02), (1.5, 1.45, 1.6)])
def test_memory_corrections_are_learned_upward_only(store, factor, least, most):
    study(store, "one", rates={1: 10.0, 2: 18.0, 4: 30.0}, factor=factor)
    correction = correction_of(store, AROUND)
    assert least <= correction.factor <= most
    task = scene().task
    plain = memory_fit("llamacpp", MODEL, configuration().launch, HARDWARE, task)
    learnt = memory_fit("llamacpp", MODEL, configuration().launch, HARDWARE, task, correction=correction)
    assert learnt.total_bytes >= plain.total_bytes
    assert learnt.bytes_of("weights", "kv") == plain.bytes_of("weights", "kv")


def test_prompts_are_as_long_as_rendered_and_share_their_examples(tmp_path):
    from llmopt.paths import Workspace

    dataset = load_dataset("korean_math", workspace=Workspace(root=tmp_path), seed=0, columns=None)
    items = dataset.split("search")[:8]
    found = prompts_of(dataset, items, 0.5)
    assert found["examples"].tokens > found["zero_shot"].tokens
    assert found["examples"].shared > found["zero_shot"].shared
    for prompt in found.values():
        assert 0 <= prompt.shared < prompt.tokens
    assert tokens_per_byte(dataset, items, found["zero_shot"].tokens) == pytest.approx(0.5)
    assert tokens_per_byte(dataset, items, None) == 0.5
