"""The real embedded llama.cpp with the 135M model behind a benchmark's space: one point measured as a trial is."""

from __future__ import annotations

import math
from pathlib import Path

from llmopt.config.settings import load_settings
from llmopt.paths import Workspace
from llmopt.records import Configuration, Measurement
from llmopt.search.space import Space
from llmopt.search.trial import Bench
from llmopt.study.host import StudyHost
from llmopt.study.prepare import prepare
from llmopt.study.request import StudyRequest

MODEL, DATASET = "smollm2-135m", "korean_math_easy"


class Machine:
    """The engine under one load; ``space`` is set by whoever measures."""

    space: Space

    def __init__(self, home: Path, *, items: int, tokens: int, streams: int) -> None:
        home.mkdir(parents=True, exist_ok=True)
        workspace = Workspace(root=home)
        request = StudyRequest(
            model=MODEL, dataset=DATASET, samples=items, max_tokens=tokens, streams=streams, engine="llamacpp"
        )
        self.prepared = p = prepare(request, workspace=workspace, settings=load_settings(workspace))
        self._host = StudyHost(engine=p.engine, model=p.model, hardware=p.hardware, task=p.task, run_root=home / "runs")
        context = max(1024, 256 * math.ceil(p.task.context_tokens / 256)) * streams
        self.defaults = {**p.baseline.launch, "context": context}

    def conflict(self, settings) -> str | None:
        """The engine's rule that these launch settings break."""
        p = self.prepared
        return p.engine.conflict(settings, p.model, p.hardware, p.task)

    def bench(self) -> Bench:
        return Bench(self._host, self.prepared.work)

    async def measure(self, bench: Bench, configuration: Configuration) -> tuple[dict, Measurement | None]:
        """One trial on an engine of its own: how it ended and what it cost, and its figures."""
        result = await bench.run(configuration, self.prepared.search_items, fresh=True)
        run = {
            "outcome": result.outcome.value, "launch_s": result.launch_s, "warmup_s": result.warmup_s,
            "measure_s": result.measure_s, "warnings": list(result.measurement.warnings) if result.measurement else [],
        }  # fmt: skip
        return run, result.measurement
