"""The scripted engine as a back end: for ``--dry-run``, demonstrations and tests whose best settings are known."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import llmopt
from llmopt.engines.base import SERVER_REQUEST_SETTINGS, RunFolder
from llmopt.engines.probing import worker
from llmopt.engines.sizing import alias_of, doublings, launch_parameter, require, round_up, streams_of, usable_threads
from llmopt.records import (
    Hardware,
    InferenceParams,
    Installation,
    LaunchPlan,
    ModelInfo,
    Parameter,
    Settings,
    Strategy,
    Task,
)

__all__ = ["Fake"]

ANSWERS_VARIABLE = "LLMOPT_FAKE_ANSWERS"
"""JSON-lines files (separated as in PATH) with ``question`` and ``answers``: what the fake engine knows."""
SCENARIO_VARIABLE = "LLMOPT_FAKE_SCENARIO"
TIME_SCALE_VARIABLE = "LLMOPT_FAKE_TIME_SCALE"
GPU_VARIABLE = "LLMOPT_FAKE_GPU"
TIME_SCALE = 0.1
"""Ten times as fast as the model it computes: a dry run is over soon."""
CORES = 4
"""How many cores the engine pretends to have; more threads than that slow it down."""
CONTEXT_UNIT = 256
CONTEXT = 8192
THREADS = 2
SLOTS = 4
BATCH = 512
FAST_SLOTS = 16
NAMES = ("threads", "slots", "batch", "context", "precision", "cache_type", "flash_attention")


class Fake:
    """A real process that speaks the OpenAI API; speed and answers follow known formulas (``workers/fake_model.py``).

    What is not given is read from the environment when the object is made.
    """

    name = "fake"
    transport = "socket"
    needs_weights = False
    metric_names: Mapping[str, str] = {
        "running": "llamacpp:requests_processing",
        "waiting": "llamacpp:requests_deferred",
        "prompt_tokens": "llamacpp:prompt_tokens_total",
        "cached_tokens": "llamacpp:prompt_tokens_cached_total",
        "generation_tokens": "llamacpp:tokens_predicted_total",
        "decode_steps": "llamacpp:n_decode_total",
    }
    default_sampling = InferenceParams(temperature=0.8, top_p=0.95, top_k=40)
    request_settings = SERVER_REQUEST_SETTINGS

    def __init__(
        self,
        *,
        answers: tuple[Path, ...] = (),
        scenario: Path | None = None,
        time_scale: float | None = None,
        seed: int = 0,
    ) -> None:
        given = os.environ.get(ANSWERS_VARIABLE, "")
        script = os.environ.get(SCENARIO_VARIABLE)
        self._answers = answers or tuple(Path(part) for part in given.split(os.pathsep) if part)
        self._scenario = scenario or (Path(script) if script else None)
        self._time_scale = time_scale or float(os.environ.get(TIME_SCALE_VARIABLE, TIME_SCALE))
        self._gpu = os.environ.get(GPU_VARIABLE)
        self._seed = seed

    def rehearse(self, answers: Path) -> Fake:
        """The same engine, knowing these answers unless it was given others before."""
        if self._answers:
            return self
        return Fake(answers=(answers,), scenario=self._scenario, time_scale=self._time_scale, seed=self._seed)

    def installation(self) -> Installation:
        """Always here: it is part of this package."""
        command = (sys.executable, str(worker("fake_engine.py")))
        return Installation(
            engine=self.name, available=True, version=llmopt.__version__, command=command, build="scripted"
        )

    def supports(self, model: ModelInfo) -> str | None:  # noqa: ARG002 - the Protocol's signature
        """Every model: it reads none."""
        return None

    def parameters(self, model: ModelInfo, hardware: Hardware, task: Task) -> tuple[Parameter, ...]:
        """A small space with a known best point: threads = ``CORES``, as many slots as streams, the largest batch."""
        baseline, preset = self.baseline(model, hardware, task), self.preset(model, hardware, task, Strategy.SPEED)
        plain = self.preset(model, hardware, task, None)

        def sizes(name: str, *values: int) -> tuple[int, ...]:
            return (*values, *(int(start[name] or 0) for start in (baseline, plain, preset)))

        slots = sizes("slots", *doublings(1, streams_of(task)), streams_of(task))
        need = round_up(task.context_tokens, CONTEXT_UNIT)
        return (
            launch_parameter("threads", sizes("threads", *doublings(1, 2 * CORES)), ordinal=True),
            launch_parameter("slots", slots, ordinal=True),
            launch_parameter("batch", doublings(128, 2048), ordinal=True),
            launch_parameter("context", sizes("context", *(need * count for count in slots)), ordinal=True),
            launch_parameter("precision", ("f16", "q8", "q4"), changes_answers=True),
            launch_parameter("cache_type", ("f16", "q8", "q4"), changes_answers=True),
            launch_parameter("flash_attention", ("on", "off")),
        )

    def baseline(self, model: ModelInfo, hardware: Hardware, task: Task) -> Settings:  # noqa: ARG002
        """Two threads, four slots, a context that is large enough: far from the best."""
        need = SLOTS * round_up(task.context_tokens, CONTEXT_UNIT)
        return _settings(threads=THREADS, slots=SLOTS, context=max(CONTEXT, need))

    def preset(self, model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> Settings:  # noqa: ARG002
        """The specification's shape: usable cores, more slots for speed."""
        slots = min(streams_of(task), FAST_SLOTS if strategy is Strategy.SPEED else SLOTS)
        context = slots * round_up(task.context_tokens, CONTEXT_UNIT)
        return _settings(threads=min(CORES, usable_threads(hardware)), slots=slots, context=context)

    def conflict(self, settings: Settings, model: ModelInfo, hardware: Hardware, task: Task) -> str | None:  # noqa: ARG002
        """A slot must hold a request."""
        per_slot = int(settings["context"] or 0) // int(settings["slots"] or 1)
        return "engines.conflict_slot_context" if per_slot < task.context_tokens else None

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """The worker with every setting as an option."""
        require(settings, NAMES)
        endpoint = replace(run.endpoint, model=alias_of(model))
        where = ("--uds", endpoint.socket_path) if endpoint.socket_path else ("--host", endpoint.host)
        port = () if endpoint.socket_path else ("--port", str(endpoint.port))
        options = [f"--{name.replace('_', '-')}={settings[name]}" for name in NAMES]
        script = ("--scenario", str(self._scenario)) if self._scenario else ()
        known = [part for path in self._answers for part in ("--answers", str(path))]
        told = (
            *options,
            f"--cores={CORES}",
            f"--seed={self._seed}",
            f"--time-scale={self._time_scale}",
            *script,
            *known,
        )
        program = (sys.executable, str(worker("fake_engine.py")), "--model", model.path, "--alias", endpoint.model)
        keyed = ("--api-key-file", "/dev/stdin") if endpoint.api_key else ()
        return LaunchPlan(
            engine=self.name,
            argv=(*program, *told, *where, *port, *keyed),
            env={"PYTHONSAFEPATH": "1", **({GPU_VARIABLE: self._gpu} if self._gpu else {})},
            endpoint=endpoint,
            command=(*program, *told, "--port", "8080"),
            settings=dict(settings),
            stdin=f"{endpoint.api_key}\n" if endpoint.api_key else None,
            port_from_log=None if endpoint.socket_path else r"listening on http://[^:\s]+:(\d+)",
            ready_cap_s=60.0,
            stall_s=20.0,
            stop_grace_s=3.0,
        )

    def request_extra(self, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002 - the Protocol's signature
        """Nothing: it has no cache."""
        return {}

    def remembers(self, settings: Settings) -> bool:  # noqa: ARG002 - the Protocol's signature
        """It keeps nothing between requests."""
        return False


def _settings(*, threads: int, slots: int, context: int) -> Settings:
    return {
        "threads": threads,
        "slots": slots,
        "batch": BATCH,
        "context": context,
        "precision": "f16",
        "cache_type": "f16",
        "flash_attention": "on",
    }
