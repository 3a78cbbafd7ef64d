"""A study's forecast: what was measured comes back, what was never seen is not known, order and intervals hold."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import correlation, mean

import pytest

from llmopt.models.catalogue import built_in_models
from llmopt.predict.forecast import Unknown
from llmopt.predict.machine import MachineSpeed
from llmopt.predict.study import Expectation, Prompt, Scene, SeenRun, StudyForecast
from llmopt.records import (
    Configuration,
    Cpu,
    Device,
    DeviceType,
    Hardware,
    HostMemory,
    InferenceParams,
    Load,
    ModelInfo,
    Task,
)

GIB = 1 << 30
CPU = Hardware(
    cpu=Cpu(model="x", architecture="x86_64", physical_cores=4, logical_cores=8, usable_cores=4.0),
    memory=HostMemory(total_bytes=32 * GIB, available_bytes=24 * GIB),
)
SPEED = MachineSpeed(threads=4, bandwidth_one=10e9, bandwidth_all=25e9, flops_one=50e9, flops_all=180e9)
LLAMA = built_in_models()["llama3.1-8b"].facts
SMALL = replace(
    LLAMA, name="small", format="gguf", layers=16, hidden_size=1024, heads=16, kv_heads=4, head_dim=64,
    feed_forward=3072, vocabulary=32000, parameters=300_000_000, weight_bytes=180_000_000, quantization="Q4_K_M",
    context_length=8192,
)  # fmt: skip
SCENE = Scene(
    model=SMALL,
    engine="llamacpp",
    engine_version="1",
    hardware=CPU,
    task=Task(load=Load(streams=4), max_tokens=64, prompt_tokens=400),
    prompts={"zero_shot": Prompt(tokens=60, shared=20), "examples": Prompt(tokens=300, shared=260)},
    answer_tokens=40,
    speed=SPEED,
)


def configuration(*, form="zero_shot", **launch) -> Configuration:
    base = {
        "threads": 4, "threads_batch": 4, "slots": 4, "context": 4096, "batch": 512, "ubatch": 512,
        "cache_type_k": "f16", "cache_type_v": "f16", "flash_attention": "on", "kv_unified": True,
    }  # fmt: skip
    return Configuration(engine="llamacpp", launch={**base, **launch}, request=InferenceParams(prompt_form=form))


def grid():
    for threads in (1, 2, 4):
        for slots in (1, 2, 4):
            for form in ("zero_shot", "examples"):
                for attention in ("on", "off"):
                    yield configuration(threads=threads, slots=slots, form=form, flash_attention=attention)


def truth(one: Configuration, source: random.Random) -> float:
    """A machine that follows other laws than the forecast's: a fixed cost, saturating threads, a slow attention."""
    threads, slots = int(one.launch["threads"]), int(one.launch["slots"])
    power = threads**0.8
    prompt_s = SCENE.prompts[one.request.prompt_form].tokens * 0.012 / power
    step_s = (0.03 + 0.008 * slots) / power + 0.004
    slow = 1.25 if one.launch["flash_attention"] == "off" else 1.0
    return 60 * slots / (slots * prompt_s + 40 * step_s) / slow * math.exp(source.gauss(0, 0.03))


def ranks(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    return [order.index(i) for i in range(len(values))]


@pytest.mark.parametrize("peak", [1.0, 6.0])
def test_five_runs_teach_a_cpu_that_was_never_described(peak):
    """Whatever share of the processor's peak the engine's kernels reach."""
    scene = replace(SCENE, speed=replace(SPEED, flops_one=peak * SPEED.flops_one, flops_all=peak * SPEED.flops_all))
    source = random.Random(4)
    points = list(grid())
    figures = {point.key: truth(point, source) for point in points}
    errors, orders = [], []
    for seed in range(5):
        known = random.Random(seed).sample(points, 5)
        seen = [SeenRun(scene=scene, configuration=p, answers_per_minute=figures[p.key]) for p in known]
        forecast = StudyForecast(scene, seen)
        others = [p for p in points if p not in known]
        said = [forecast.of(p).figures["answers_per_minute"].value for p in others]
        errors.append(mean(abs(s / figures[p.key] - 1) for s, p in zip(said, others, strict=True)))
        orders.append(correlation(ranks(said), ranks([figures[p.key] for p in others])))
    assert mean(errors) < 0.25
    assert mean(orders) > 0.85


@pytest.mark.parametrize("speed", [SPEED, None])
def test_where_nothing_was_measured_an_order_is_guessed_and_called_a_guess(speed):
    scene = replace(SCENE, speed=speed)
    points = list(grid())
    source = random.Random(4)
    forecast = StudyForecast(scene, guess=True)
    found = [forecast.of(p) for p in points]
    assert all(isinstance(one, Expectation) and one.guessed and one.runs == 0 for one in found)
    said = [one.figures["answers_per_minute"].value for one in found]
    assert correlation(ranks(said), ranks([truth(p, source) for p in points])) > 0.7
    assert isinstance(StudyForecast(scene).of(points[0]), Unknown), "a person is told that it is not known"


def test_what_was_measured_is_no_guess():
    source = random.Random(4)
    runs = [SeenRun(scene=SCENE, configuration=p, answers_per_minute=truth(p, source)) for p in list(grid())[:5]]
    taught, sure = (
        StudyForecast(SCENE, runs, guess=True).of(configuration()),
        StudyForecast(SCENE, runs).of(configuration()),
    )
    assert taught == sure
    assert not sure.guessed


def test_a_measured_point_comes_back_within_its_interval_and_narrower():
    point = configuration()
    truth_per_minute = truth(point, random.Random(1))
    runs = [
        SeenRun(scene=SCENE, configuration=p, answers_per_minute=truth(p, random.Random(1)))
        for p in (point, configuration(slots=1), configuration(threads=1), configuration(form="examples"))
    ]
    known = StudyForecast(SCENE, runs).of(point)
    assert isinstance(known, Expectation)
    figure = known.figures["answers_per_minute"]
    assert figure.low < truth_per_minute < figure.high
    assert figure.value == pytest.approx(truth_per_minute, rel=0.15)
    assert known.runs == 4
    elsewhere = StudyForecast(replace(SCENE, model=replace(SMALL, name="another", parameters=400_000_000)), runs)
    assert elsewhere.of(point).figures["answers_per_minute"].spread > figure.spread


def test_what_nothing_is_known_of_is_said_so():
    assert StudyForecast(replace(SCENE, speed=None)).of(configuration()).reason == "predict.unmeasured_device"
    shapeless = ModelInfo(name="x", path="x", format="gguf")
    assert StudyForecast(replace(SCENE, model=shapeless)).of(configuration()).reason == "predict.unknown_shape"
    other = replace(SCENE, engine="another")
    run = SeenRun(scene=other, configuration=configuration(), answers_per_minute=10.0)
    answer = StudyForecast(replace(SCENE, engine="yet-another"), [run] * 3).of(configuration())
    assert isinstance(answer, Unknown) or answer.runs == 0


def test_a_described_gpu_is_foreseen_without_a_run_and_memory_bounds_it():
    gpu = Device(
        index=0, uuid="GPU-1", vendor="nvidia", kind=DeviceType.CUDA, name="NVIDIA H100 80GB HBM3",
        total_bytes=80 * 10**9, free_bytes=79 * 10**9,
    )  # fmt: skip
    scene = replace(SCENE, engine="vllm", model=LLAMA, hardware=replace(CPU, devices=(gpu,)), speed=None)
    scene = replace(scene, task=replace(SCENE.task, load=Load(streams=64)))
    fast = Configuration(engine="vllm", launch={"max_num_seqs": 64}, request=InferenceParams(prompt_form="zero_shot"))
    slow = replace(fast, launch={"max_num_seqs": 2})
    forecast = StudyForecast(scene)
    many, few = (forecast.of(one).figures for one in (fast, slow))
    assert many["answers_per_minute"].value > 3 * few["answers_per_minute"].value
    assert few["ttft_p95_ms"].value > many["ttft_p95_ms"].value  # the others wait for a slot
    assert forecast.of(fast).fits > 0.9
    tiny = replace(scene, hardware=replace(CPU, devices=(replace(gpu, total_bytes=8 * 10**9, free_bytes=7 * 10**9),)))
    assert StudyForecast(tiny).of(fast).fits < 0.02


def test_a_cached_beginning_is_not_computed_again():
    runs = [
        SeenRun(scene=SCENE, configuration=p, answers_per_minute=truth(p, random.Random(1))) for p in list(grid())[:6]
    ]
    forecast = StudyForecast(SCENE, runs)
    cold, warm = (configuration(form="examples", prefix_cache=caching) for caching in (False, True))
    said = [forecast.of(one).figures["ttft_p50_ms"].value for one in (cold, warm)]
    assert said[0] > 1.5 * said[1]


def test_the_first_request_of_every_slot_finds_an_empty_cache():
    runs = [SeenRun(scene=SCENE, configuration=p, answers_per_minute=truth(p, random.Random(1))) for p in grid()]
    point = configuration(form="examples", prefix_cache=True)
    warm, mixed, cold = (
        StudyForecast(replace(SCENE, requests=requests), runs).of(point).figures["answers_per_minute"].value
        for requests in (None, 16, 4)
    )
    assert cold < mixed < warm


def test_an_open_loop_answers_no_more_than_is_asked():
    scene = replace(SCENE, task=replace(SCENE.task, load=Load(streams=None, rate=0.01, arrival="poisson")))
    runs = [SeenRun(scene=SCENE, configuration=p, answers_per_minute=truth(p, random.Random(1))) for p in grid()]
    figures = StudyForecast(scene, runs).of(configuration()).figures
    assert figures["answers_per_minute"].value == pytest.approx(0.6)
