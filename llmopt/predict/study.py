"""What a study may expect of its configurations before they run: figures with intervals, or *I do not know*.

A ``StudyForecast`` is made once a study (after its baseline, which tells how long prompts and answers are) and asked
for any legal configuration. It knows runs of the same engine on the same machine that came before: their constants
and their leftovers correct the physics. It is not told the study's own trials: a search corrects predictions itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmopt.models.memory_fit import MARGIN, NO_CORRECTION, Correction, MemoryFit, memory_fit
from llmopt.predict.devices import DeviceSpec, device_spec
from llmopt.predict.forecast import NINETY, Cell, Forecaster, PastRun, Unknown
from llmopt.predict.machine import MachineSpeed, cpu_spec, usual_speed
from llmopt.predict.physics import Constants, answer_seconds, output_token_seconds, prompt_seconds, step_seconds
from llmopt.predict.queue import Service, Waiting, simulate_closed_loop, simulate_open_loop
from llmopt.predict.settings import as_memory_allows, features_of_settings, serving_of
from llmopt.predict.work import Work, work_of
from llmopt.records import Configuration, Hardware, ModelInfo, Task

if TYPE_CHECKING:
    from llmopt.predict.work import Serving

__all__ = ["Expectation", "Figure", "Prompt", "Scene", "SeenRun", "StudyForecast"]

_FIT_SPREAD = 0.05
"""Standard deviation of the logarithm of measured over estimated memory (docs/measurements/memory-fit.md)."""
_SIMULATED = 64
"""Requests of one simulated run: enough for a median and a 95th percentile that are not drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """How long prompts of one form are, in tokens; ``shared`` is what all of them begin with (worked examples …)."""

    tokens: float
    shared: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What all configurations of a study have in common. ``prompts`` is by prompt form."""

    model: ModelInfo
    engine: str
    engine_version: str
    hardware: Hardware
    task: Task
    prompts: Mapping[str, Prompt]
    answer_tokens: float
    """Tokens of a mean answer, as the baseline gave them."""
    requests: int | None = None
    """In one pass. A cache holds no beginning yet for the first of each slot; without it, for all of them."""
    speed: MachineSpeed | None = None
    """This machine's own peaks (see ``machine``); without them nothing is said about its CPU."""
    correction: Correction = NO_CORRECTION


@dataclass(frozen=True, kw_only=True)
class SeenRun:
    """One measured configuration of an earlier study on this machine, under that study's scene."""

    scene: Scene
    configuration: Configuration
    answers_per_minute: float
    prompt_tokens: float | None = None
    answer_tokens: float | None = None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A predicted figure in the unit of the measured one; ``spread`` is the standard deviation of its logarithm."""

    value: float
    spread: float

    @property
    def low(self) -> float:
        """The lower end of the 90 % interval."""
        return self.value * math.exp(-NINETY * self.spread)

    @property
    def high(self) -> float:
        """The upper end of the 90 % interval."""
        return self.value * math.exp(NINETY * self.spread)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What one configuration should reach.

    ``figures`` are named as the estimates of a Measurement (``answers_per_minute``, ``output_tokens_per_s``,
    ``tpot_p50_ms``, ``ttft_p50_ms``, ``ttft_p95_ms``, ``e2e_p50_ms``, ``memory_bytes``); one that is not there (the
    quality) is not foreseen. ``fits`` is the probability that memory suffices; ``runs`` of this model were known.
    ``guessed``: only the order of configurations means something, see ``StudyForecast``.
    """

    figures: Mapping[str, Figure]
    fits: float
    runs: int = 0
    guessed: bool = False


@dataclass(frozen=True)
class _Known:
    """The physics of one configuration under one scene."""

    cell: Cell
    work: Work
    spec: DeviceSpec
    features: Mapping[str, float]


class StudyForecast:
    """Answers for the configurations of one scene; ``runs`` are earlier ones on the same machine.

    With ``guess`` also for a device or engine of which too little was measured: what must be moved and computed tells
    which of two configurations is faster long before it tells how fast they are. For a search, never for a person.
    """

    def __init__(self, scene: Scene, runs: Sequence[SeenRun] = (), *, guess: bool = False) -> None:
        if guess and scene.speed is None:
            scene = replace(scene, speed=usual_speed(max(1, int(scene.hardware.cpu.usable_cores))))
        self.scene = scene
        past = [run for one in runs if (run := _past(one))]
        self._forecaster = Forecaster(past, seconds_of=answer_seconds, guess=guess)

    def of(self, configuration: Configuration) -> Expectation | Unknown:
        """What is expected of ``configuration``; Unknown (with its reason) for what was never seen."""
        known = _known(self.scene, configuration)
        if isinstance(known, Unknown):
            return known
        lesson = self._forecaster.lesson(known.cell, known.work, known.spec, known.features)
        if isinstance(lesson, Unknown):
            return lesson
        speeds = self._speeds(known, lesson.constants, math.exp(lesson.shift))
        figures = {name: Figure(value=value, spread=lesson.spread) for name, value in speeds.items()}
        fit = self.memory(configuration)
        if fit.fits is not None and fit.total_bytes:
            figures["memory_bytes"] = Figure(value=float(fit.total_bytes), spread=_FIT_SPREAD)
        return Expectation(figures=figures, fits=_chance(fit), runs=lesson.runs, guessed=lesson.guessed)

    def memory(self, configuration: Configuration) -> MemoryFit:
        """Whether ``configuration`` fits, with the parts and the reason."""
        return _fit(self.scene, configuration)

    def at_most_tokens_per_s(self, configuration: Configuration) -> float | None:
        """Of one stream alone: a step reads every weight that it touches once. None where device or shape is unknown.

        A bound, not a prediction: nothing is known of how near an engine comes to it.
        """
        known = _known(self.scene, configuration)
        if isinstance(known, Unknown):
            return None
        serving = replace(known.work.serving, sequences=1)
        work = work_of(self.scene.model, serving)
        return None if work is None else known.spec.bandwidth / (work.weight_bytes + work.cache_bytes)

    def _speeds(self, known: _Known, constants: Constants, slower: float) -> dict[str, float]:
        """Predicted figures; every time is ``slower`` times what the physics says."""
        work, spec, serving = known.work, known.spec, known.work.serving
        together = serving.sequences * serving.data_parallel
        each_s = answer_seconds(work, spec, constants) * slower
        capacity = 60.0 * together / each_s
        load = self.scene.task.load
        rate = min(capacity, 60.0 * load.rate) if load.rate else capacity
        token_s = output_token_seconds(work, spec, constants) * slower
        waiting = self._waiting(known, constants, slower)
        return {
            "answers_per_minute": rate,
            "output_tokens_per_s": rate / 60.0 * serving.output_tokens,
            "tpot_p50_ms": 1e3 * token_s,
            "ttft_p50_ms": 1e3 * waiting.ttft_p50_s,
            "ttft_p95_ms": 1e3 * waiting.ttft_p95_s,
            "e2e_p50_ms": 1e3 * (waiting.ttft_p50_s + (serving.output_tokens - 1) * token_s),
        }

    def _waiting(self, known: _Known, constants: Constants, slower: float) -> Waiting:
        """Time in the queue, simulated with the step times of the physics."""
        work, spec, load = known.work, known.spec, self.scene.task.load
        slots = work.serving.sequences * work.serving.data_parallel
        alone = _alone(work)
        least, full = (step_seconds(w, spec, constants) * slower for w in (alone, work))

        def step_s(running: int) -> float:
            share = (running - 1) / (slots - 1) if slots > 1 else 1.0
            return least + min(1.0, share) * (full - least)

        prompt_s = prompt_seconds(work, spec, constants) * slower
        service = Service(slots=slots, output_tokens=work.serving.output_tokens, prompt_s=prompt_s, step_s=step_s)
        if load.rate:
            return simulate_open_loop(service, rate=load.rate, seed=load.seed, requests=_SIMULATED)
        return simulate_closed_loop(service, streams=load.streams or 1, requests=max(_SIMULATED, 4 * slots))


# ── one configuration ──────────────────────────────────────────────────────────────────────────────────────────────


def _known(scene: Scene, configuration: Configuration) -> _Known | Unknown:
    form = configuration.request.prompt_form or ""
    prompt = scene.prompts.get(form) or Prompt(tokens=float(scene.task.prompt_tokens))
    spec = _spec(scene, configuration)
    if isinstance(spec, Unknown):
        return spec
    serving = _serving(scene, configuration, prompt)
    if spec.family != "cpu":
        serving = as_memory_allows(scene.model, serving, spec)
    work = work_of(scene.model, serving)
    if work is None:
        return Unknown(reason="predict.unknown_shape", values={"model": scene.model.name})
    model = scene.model
    cell = Cell(
        model=f"{model.name} {model.quantization or ''} {model.weight_bytes or ''}".strip(),
        device=spec.name,
        engine=f"{scene.engine} {scene.engine_version}".strip(),
    )
    return _Known(cell=cell, work=work, spec=spec, features=features_of_settings(configuration.launch))


def _serving(scene: Scene, configuration: Configuration, prompt: Prompt) -> Serving:
    """The load as this configuration lets the engine see it; cached beginnings of prompts are not computed again."""
    task = replace(
        scene.task, prompt_tokens=max(1, round(prompt.tokens)), max_tokens=max(1, round(scene.answer_tokens))
    )
    serving = serving_of(scene.model, configuration.launch, task)
    caching = configuration.launch.get("prefix_cache") or configuration.launch.get("enable_prefix_caching")
    if not caching:
        return serving
    cold = min(1.0, serving.sequences / scene.requests) if scene.requests else 0.0
    return replace(serving, fresh_tokens=max(1, round(prompt.tokens - prompt.shared * (1 - cold))))


def _spec(scene: Scene, configuration: Configuration) -> DeviceSpec | Unknown:
    """The device that computes: a described GPU where the weights lie on it, else this CPU as its threads see it."""
    hardware = scene.hardware
    fit = _fit(scene, configuration)
    on_device = fit.bytes_of("weights", place="device")
    if 0 < on_device < fit.bytes_of("weights", place="host"):
        return Unknown(reason="predict.split", values={"model": scene.model.name})
    if hardware.devices and (on_device or not fit.parts):
        found = device_spec(hardware.devices[0])
        return found or Unknown(reason="predict.unmeasured_device", values={"device": hardware.devices[0].name})
    if scene.speed is None:
        return Unknown(reason="predict.unmeasured_device", values={"device": hardware.cpu.model})
    usable = max(1, int(hardware.cpu.usable_cores))
    threads, prompts = (min(int(configuration.launch.get(n) or usable), usable) for n in ("threads", "threads_batch"))
    return cpu_spec(scene.speed, threads, prompt_threads=prompts if "threads_batch" in configuration.launch else None)


def _fit(scene: Scene, configuration: Configuration) -> MemoryFit:
    return memory_fit(
        scene.engine,
        scene.model,
        configuration.launch,
        scene.hardware,
        scene.task,
        correction=scene.correction,
    )


def _past(run: SeenRun) -> PastRun | None:
    """A measured run for the forecaster; None where its physics is not known."""
    known = _known(_as_measured(run), run.configuration)
    if isinstance(known, Unknown) or run.answers_per_minute <= 0:
        return None
    together = known.work.serving.sequences * known.work.serving.data_parallel
    seconds = 60.0 * together / run.answers_per_minute  # an answer holds one of so many places
    return PastRun(cell=known.cell, work=known.work, spec=known.spec, seconds=seconds, features=known.features)


def _as_measured(run: SeenRun) -> Scene:
    """The run's scene with the lengths that it had itself."""
    scene, form = run.scene, run.configuration.request.prompt_form or ""
    prompts = dict(scene.prompts)
    if run.prompt_tokens is not None:
        before = prompts.get(form, Prompt(tokens=run.prompt_tokens))
        prompts[form] = Prompt(tokens=run.prompt_tokens, shared=min(before.shared, run.prompt_tokens))
    answer = scene.answer_tokens if run.answer_tokens is None else run.answer_tokens
    return replace(scene, prompts=prompts, answer_tokens=answer)


def _alone(work: Work) -> Work:
    """The work of a step in which one sequence runs: weights are read all the same, the rest shrinks."""
    count = work.serving.sequences
    return replace(
        work,
        cache_bytes=work.cache_bytes / count,
        dense_flops=work.dense_flops / count,
        expert_flops=work.expert_flops / count,
        attention_flops=work.attention_flops / count,
        serving=replace(work.serving, sequences=1),
    )


def _chance(fit: MemoryFit) -> float:
    """The probability that a launch fits, from its distance to what is available; near 1 where nothing is known."""
    if fit.fits is None or not fit.needed_bytes or not fit.available_bytes:
        return 0.9 if fit.fits is None else 1.0
    room = math.log(fit.available_bytes * (1 - MARGIN) / fit.needed_bytes) / _FIT_SPREAD
    chance = 0.5 * math.erfc(-room / math.sqrt(2))
    return chance if fit.fits else min(chance, 0.01)
