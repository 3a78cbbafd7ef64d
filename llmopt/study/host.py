"""Starts the engines of a study: refused where they cannot fit, watched while they run, proved gone afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llmopt.engines.accelerators import placement
from llmopt.engines.base import Engine, Forgetful, Forgetting, InTurn
from llmopt.engines.launch import Phase, RunningEngine, launch
from llmopt.engines.recognise import recognise
from llmopt.hardware.levels import LevelChange, MemoryLimits
from llmopt.hardware.supervision import LaunchMemory
from llmopt.models.memory_fit import (
    NO_CORRECTION,
    Correction,
    MemoryFit,
    memory_fit,
    planned_device_bytes,
)
from llmopt.records import Configuration, Hardware, ModelInfo, Settings, Task
from llmopt.runtime.guardian import Guardian
from llmopt.runtime.http import HttpError
from llmopt.search.trial import Hosted

__all__ = ["StudyHost"]

HOLD_S = 5.0
"""How long a warning holds the load back: memory that a burst of requests took is back by then."""
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
        correction: Correction = NO_CORRECTION,
        on_phase: Callable[[Phase], None] | None = None,
        on_level: Callable[[LevelChange], None] | None = None,
    ) -> None:
        self.engine = engine
        self.model = model
        self.hardware = hardware
        self.task = task
        self.memory = LaunchMemory(limits=MemoryLimits.safe() if safe else None)
        self._run_root = run_root
        self._safe = safe
        self._correction = correction
        self._on_phase = on_phase
        self._on_level = on_level
        self._recognised: Mapping[str, str] = {}

    def request_extra(self, configuration: Configuration) -> Mapping[str, Any]:
        """The engine's fields that keep measured requests independent."""
        return self.engine.request_extra(configuration.launch)

    def remembers(self, configuration: Configuration) -> bool:
        """Whether requests may profit from earlier ones under these launch settings."""
        return self.engine.remembers(configuration.launch)

    def forget(self, configuration: Configuration, turn: int) -> Forgetting | None:
        """What keeps a pass on the running engine apart from those before it; None where only a restart does."""
        return self.engine.forget(configuration.launch, turn) if isinstance(self.engine, Forgetful) else None

    def in_turn(self, configuration: Configuration) -> bool:
        """Whether an answer shows that all earlier requests have ended under these launch settings."""
        return isinstance(self.engine, InTurn) and self.engine.in_turn(configuration.launch)

    def restarts(self, configuration: Configuration) -> bool:
        """Whether every pass needs an engine of its own: it remembers, and cannot be made to forget."""
        return self.remembers(configuration) and self.forget(configuration, 0) is None

    @property
    def metric_names(self) -> Mapping[str, str]:
        """The engine's names for what it counts; of one that runs elsewhere, as it was recognised."""
        return self.engine.metric_names or self._recognised

    @asynccontextmanager
    async def launch(self, configuration: Configuration) -> AsyncIterator[Hosted]:
        """A ready engine with its memory watched; raises DoesNotFit before anything is started."""
        fit, too_much = self._fit(configuration.launch)
        if too_much:
            raise fit.error()
        planned = planned_device_bytes(fit, configuration.launch, self.hardware)
        actions = _Actions(asyncio.get_running_loop())
        async with self.memory.around(self.model.name, planned_device_bytes=planned, actions=actions) as watched:
            if self._on_level is not None:
                watched.on_level(self._on_level)
            async with launch(
                self.engine,
                self.model,
                configuration.launch,
                guardian=Guardian.shared(),
                run_root=self._run_root,
                on_phase=self._on_phase,
                env=placement(configuration.launch, self.hardware),
                sampling=configuration.request,
                on_spawned=watched.attach,
            ) as running:
                if self.engine.transport == "remote":
                    self._recognised = await _names_of(running)
                watched.phase("warm-up")
                actions.engine = running
                try:
                    yield Hosted(engine=running, memory=watched, out_of_memory=actions.out_of_memory, go=actions.go)
                finally:
                    watched.phase("stopping")

    def misfit(self, settings: Settings) -> MemoryFit | None:
        """Why launch settings cannot fit into memory; None where they do or where nobody knows."""
        fit, too_much = self._fit(settings)
        return fit if too_much else None

    def _fit(self, settings: Settings) -> tuple[MemoryFit, bool]:
        fit = memory_fit(self.engine.name, self.model, settings, self.hardware, self.task, correction=self._correction)
        return fit, fit.fits is False or (self._safe and fit.needed_bytes > SAFE_SHARE * fit.available_bytes)


async def _names_of(running: RunningEngine) -> Mapping[str, str]:
    """What a server that somebody else runs calls its counters; none where it does not say who it is."""
    try:
        return (await recognise(running.endpoint)).metric_names
    except HttpError:
        return {}


class _Actions:
    """What a rising memory level does to the running trial; called from the watch's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.out_of_memory = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.engine: RunningEngine | None = None
        self._loop = loop

    def pause(self, change: LevelChange) -> None:
        """Send no further request for a moment; what was measured so is marked as not valid.

        Only for a moment, and only where room is short: where what runs is merely larger than was planned, no waiting
        makes it smaller.
        """
        device = change.reading.devices.get(change.where)
        if device is None or not device.roomy:
            self._loop.call_soon_threadsafe(self._hold)

    def _hold(self) -> None:
        self.go.clear()
        self._loop.call_later(HOLD_S, self.go.set)

    def resume(self) -> None:
        """Memory is at ease again."""
        self._loop.call_soon_threadsafe(self.go.set)

    def abort(self, change: LevelChange) -> None:
        """End the running trial."""
        del change
        self._loop.call_soon_threadsafe(self.out_of_memory.set)

    def kill(self, change: LevelChange) -> None:
        """End the trial and its engine at once."""
        self.abort(change)
        if self.engine is not None:
            self.engine.kill()
