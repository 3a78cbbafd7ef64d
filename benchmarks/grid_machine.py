"""The real embedded llama.cpp with the 135M model behind a benchmark's space: one point measured as a trial is."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

from llmopt.config.settings import load_settings
from llmopt.paths import Workspace
from llmopt.records import Configuration, Measurement
from llmopt.search.space import Space
from llmopt.search.trial import Bench
from llmopt.study.host import StudyHost
from llmopt.study.prepare import Prepared, prepare
from llmopt.study.request import StudyRequest

MODEL, DATASET = "smollm2-135m", "korean_math_easy"


def _showing(shots: int | None, prepared: Prepared) -> Prepared:
    """The study with only the first ``shots`` worked examples of its data."""
    shown = prepared.dataset.split("examples")[:shots]
    kept = tuple(item for item in prepared.dataset.items if item.split != "examples" or item in shown)
    dataset = replace(prepared.dataset, items=kept)
    return replace(prepared, dataset=dataset, work=replace(prepared.work, dataset=dataset))


class Machine:
    """The engine under one load; ``space`` is set by whoever measures."""

    space: Space

    def __init__(self, home: Path, *, items: int, tokens: int, streams: int, shots: int | None = None) -> None:
        """``shots``: how many worked examples the prompt form with examples shows, where fewer than usual."""
        home.mkdir(parents=True, exist_ok=True)
        workspace = Workspace(root=home)
        request = StudyRequest(
            model=MODEL, dataset=DATASET, samples=items, max_tokens=tokens, streams=streams, engine="llamacpp"
        )
        self.prepared = p = _showing(shots, prepare(request, workspace=workspace, settings=load_settings(workspace)))
        self._host = StudyHost(engine=p.engine, model=p.model, hardware=p.hardware, task=p.task, run_root=home / "runs")
        context = max(1024, 256 * math.ceil(p.task.context_tokens / 256)) * streams
        self.defaults = {**p.baseline.launch, "context": context}

    def conflict(self, settings) -> str | None:
        """The engine's rule that these launch settings break."""
        p = self.prepared
        return p.engine.conflict(settings, p.model, p.hardware, p.task)

    def bench(self) -> Bench:
        return Bench(self._host, self.prepared.work)

    async def measure(
        self, bench: Bench, configuration: Configuration, *, fresh: bool = True
    ) -> tuple[dict, Measurement | None]:
        """One trial: how it ended, what it cost, and its figures; ``fresh`` gives it an engine of its own.

        ``measure_s`` is all that is neither launch nor warm-up: making a running engine forget is part of it.
        """
        before_s = time.monotonic()
        result = await bench.run(configuration, self.prepared.search_items, fresh=fresh)
        rest_s = time.monotonic() - before_s - result.launch_s - result.warmup_s
        run = {
            "outcome": result.outcome.value, "launch_s": result.launch_s, "warmup_s": result.warmup_s,
            "measure_s": rest_s, "warnings": list(result.measurement.warnings) if result.measurement else [],
        }  # fmt: skip
        return run, result.measurement
