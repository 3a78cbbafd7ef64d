"""Starts the engines of a study: refused where they cannot fit, watched while they run, proved gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llmopt.engines.base import Engine
from llmopt.engines.launch import Phase, launch
from llmopt.hardware.sampler import PeakSampler
from llmopt.models.memory_fit import memory_fit
from llmopt.records import Configuration, Hardware, ModelInfo, Task
from llmopt.runtime.guardian import Guardian
from llmopt.search.trial import Hosted

__all__ = ["StudyHost"]

SAFE_SHARE = 0.8
"""With ``--safe`` only this share of the available memory may be planned for."""


class StudyHost:
    """The EngineHost of a study on this machine."""

    def __init__(
        self,
        *,
        engine: Engine,
        model: ModelInfo,
        hardware: Hardware,
        task: Task,
        run_root: Path,
        safe: bool = False,
        on_phase: Callable[[Phase], None] | None = None,
    ) -> None:
        self.engine = engine
        self.model = model
        self.hardware = hardware
        self.task = task
        self._run_root = run_root
        self._safe = safe
        self._on_phase = on_phase

    def request_extra(self, configuration: Configuration) -> Mapping[str, Any]:
        """The engine's fields that keep measured requests independent."""
        return self.engine.request_extra(configuration.launch)

    def remembers(self, configuration: Configuration) -> bool:
        """Whether requests may profit from earlier ones under these launch settings."""
        return self.engine.remembers(configuration.launch)

    @asynccontextmanager
    async def launch(self, configuration: Configuration) -> AsyncIterator[Hosted]:
        """A ready engine with its memory watched; raises DoesNotFit before anything is started."""
        self._admit(configuration)
        pids: list[Callable[[], tuple[int, ...]]] = []
        with PeakSampler(lambda: pids[0]() if pids else ()) as sampler:
            async with launch(
                self.engine,
                self.model,
                configuration.launch,
                guardian=Guardian.shared(),
                run_root=self._run_root,
                on_phase=self._on_phase,
            ) as running:
                pids.append(running.pids)
                sampler.phase("serving")
                yield Hosted(engine=running, sampler=sampler)

    def _admit(self, configuration: Configuration) -> None:
        fit = memory_fit(self.engine.name, self.model, configuration.launch, self.hardware, self.task)
        if fit.fits is False or (self._safe and fit.needed_bytes > SAFE_SHARE * fit.available_bytes):
            raise fit.error()
