"""One trial: an engine with these launch settings, these requests at this load, figures with intervals.

A ``Bench`` holds at most one running engine. Trials that share launch settings run on the same engine; any other trial
makes it stop the old one (release proved) and start the new one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

from llmopt.errors import DoesNotFit, EngineError
from llmopt.failures import Failure, advise
from llmopt.measure.client import Client
from llmopt.measure.load import OnSample, drive
from llmopt.measure.metrics import speed
from llmopt.measure.quality import quality, score
from llmopt.measure.slo import Slo
from llmopt.measure.validity import CoLoadWatch, certify
from llmopt.measure.warmup import WarmUpRule, warm_up
from llmopt.records import (
    Configuration,
    Dataset,
    Estimate,
    InferenceParams,
    Item,
    Load,
    Measurement,
    Outcome,
    Request,
    Sample,
    Score,
    digest,
)
from llmopt.workload.prompts import render

if TYPE_CHECKING:
    from llmopt.engines.launch import RunningEngine
    from llmopt.hardware.supervision import WatchedLaunch

__all__ = ["Bench", "EngineHost", "Failed", "Hosted", "TrialResult", "Workload", "request_for"]

WARM_UP = WarmUpRule(requests=4, seconds=1.0, cap_s=2.0, span_s=0.75, drift=0.25, spread=0.4)
"""Once a launch: readiness has already had a real completion; this pages weights in and fills every slot."""
WARM_UP_TOKENS = 16


@dataclass(frozen=True, kw_only=True)
class Hosted:
    """A running engine and what watches its memory."""

    engine: RunningEngine
    memory: WatchedLaunch
    out_of_memory: asyncio.Event
    """Set when memory became critical: the trial ends as infeasible."""


class EngineHost(Protocol):
    """Starts engines for configurations; the study decides how."""

    def launch(self, configuration: Configuration) -> AbstractAsyncContextManager[Hosted]:
        """A running, ready engine; stopped and its release proved on exit."""
        ...

    def request_extra(self, configuration: Configuration) -> Mapping[str, Any]:
        """Engine-specific body fields of every measured request."""
        ...

    def remembers(self, configuration: Configuration) -> bool:
        """Whether requests may profit from earlier ones (prefix caching): then every pass starts a fresh engine."""
        ...


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The task, the same for every trial of a study."""

    dataset: Dataset
    load: Load
    max_tokens: int
    seed: int
    request_timeout_s: float
    warmup_items: tuple[Item, ...]
    """Items outside every measured set, so that warming up teaches no cache anything."""
    slo: Slo | None = None
    """Limits that one request meets or misses; adds goodput and attainment to the figures."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why a trial has no measurement: the catalogue's id, what happened and why, and the log's last lines."""

    id: str
    category: str
    text: str
    remedy: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How a trial ended, with everything it measured; times in seconds."""

    outcome: Outcome
    measurement: Measurement | None = None
    samples: tuple[Sample, ...] = ()
    scores: tuple[Score, ...] = ()
    failed: Failed | None = None
    failure: Failure | None = None
    """The same as classified, for advice; not kept on disk."""
    launch_s: float = 0.0
    warmup_s: float = 0.0
    measure_s: float = 0.0


def request_for(item: Item, params: InferenceParams, work: Workload, extra: Mapping[str, Any] | None = None) -> Request:
    """The request that asks ``item``: rendered prompt, the study's token limit, a seed of its own for each item."""
    seed = int(digest([work.seed, item.id], size=4), 16) >> 1
    return Request(
        item_id=item.id,
        messages=render(item, params.prompt_form or "zero_shot", work.dataset),
        params=replace(params, max_tokens=work.max_tokens, seed=seed),
        extra=extra or {},
    )


class Bench:
    """Runs configurations one after another; an async context manager that leaves no engine behind."""

    def __init__(self, host: EngineHost, work: Workload) -> None:
        self._host = host
        self._work = work
        self._stack = AsyncExitStack()
        self._hosted: Hosted | None = None
        self._launch_key: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    @property
    def launch_key(self) -> str | None:
        """The launch settings that are running now."""
        return self._launch_key

    async def stop(self) -> None:
        """Stop the running engine, if any."""
        stack, self._stack = self._stack, AsyncExitStack()
        self._hosted, self._launch_key = None, None
        await stack.aclose()

    async def run(
        self,
        configuration: Configuration,
        items: Sequence[Item],
        *,
        on_sample: OnSample | None = None,
        fresh: bool = False,
    ) -> TrialResult:
        """Measure ``configuration`` on ``items``; an engine that cannot do it becomes a result, not an exception.

        ``fresh`` restarts the engine even where the launch settings already run.
        """
        began_s = time.monotonic()
        launch_s = warmup_s = 0.0
        try:
            restarted = fresh or self._launch_key != configuration.launch_key or self._host.remembers(configuration)
            if restarted:
                await self._switch(configuration)
                launch_s = time.monotonic() - began_s
            hosted = self._hosted
            if hosted is None:
                raise RuntimeError("no engine after a successful switch")
            async with Client(hosted.engine.endpoint, timeout_s=self._work.request_timeout_s) as client:
                if restarted:
                    before_s = time.monotonic()
                    await warm_up(client, self._warmup_requests(configuration), self._work.load, rule=WARM_UP)
                    warmup_s = time.monotonic() - before_s
                before_s = time.monotonic()
                measurement, samples, scores = await self._measure(client, hosted, configuration, items, on_sample)
                measure_s = time.monotonic() - before_s
            hosted.engine.check()
        except DoesNotFit as error:
            return TrialResult(outcome=Outcome.INFEASIBLE, failed=_failed(error), launch_s=launch_s)
        except EngineError as error:
            await self._stop_after_failure()
            return _ended(error, configuration, launch_s=launch_s, warmup_s=warmup_s)
        return TrialResult(
            outcome=Outcome.DONE,
            measurement=measurement,
            samples=samples,
            scores=scores,
            launch_s=launch_s,
            warmup_s=warmup_s,
            measure_s=measure_s,
        )

    async def _switch(self, configuration: Configuration) -> None:
        await self.stop()
        self._hosted = await self._stack.enter_async_context(self._host.launch(configuration))
        self._launch_key = configuration.launch_key

    async def _stop_after_failure(self) -> None:
        """Stop an engine that failed; that it had died by itself is already the result."""
        try:
            await self.stop()
        except EngineError:
            return

    def _warmup_requests(self, configuration: Configuration) -> list[Request]:
        extra = self._host.request_extra(configuration)
        short = replace(self._work, max_tokens=min(self._work.max_tokens, WARM_UP_TOKENS))
        return [request_for(item, configuration.request, short, extra) for item in self._work.warmup_items]

    async def _measure(
        self,
        client: Client,
        hosted: Hosted,
        configuration: Configuration,
        items: Sequence[Item],
        on_sample: OnSample | None,
    ) -> tuple[Measurement, tuple[Sample, ...], tuple[Score, ...]]:
        work = self._work
        extra = self._host.request_extra(configuration)
        requests = [request_for(item, configuration.request, work, extra) for item in items]
        watch = CoLoadWatch(hosted.engine.pids)
        run = await drive(client, requests, work.load, on_sample=on_sample, stop=hosted.out_of_memory)
        co_load = watch.stop()
        if hosted.out_of_memory.is_set():
            raise DoesNotFit("memory.trial_ended", peak=f"{hosted.memory.trace().peak_bytes / 1e9:.2f}")
        if not any(sample.ok for sample in run.samples):
            hosted.engine.check()
            raise client.explain(run.samples[0].error or "closed_early" if run.samples else "closed_early")
        by_id = {item.id: item for item in items}
        scores = tuple(score(by_id[s.item_id], s, language=work.dataset.language) for s in run.samples)
        memory = Estimate(
            value=float(hosted.memory.trace().peak_bytes), unit="B", n=1, method="peak of the process tree"
        )
        certificate = certify(run, co_load=co_load)
        measurement = Measurement(
            estimates={**speed(run, work.slo), **quality(items, scores), "memory_bytes": memory},
            valid=certificate.valid,
            warnings=certificate.warnings,
            certificate=certificate.to_json(),
        )
        return measurement, run.samples, scores


def _ended(error: EngineError, configuration: Configuration, *, launch_s: float, warmup_s: float) -> TrialResult:
    """Infeasible where the catalogue gives these settings up or wants others, failed where it was an accident."""
    found = error.values.get("failure")
    failure = found if isinstance(found, Failure) else None
    hopeless = failure is not None and advise(failure, configuration.launch).action in {"infeasible", "adjust"}
    return TrialResult(
        outcome=Outcome.INFEASIBLE if hopeless else Outcome.FAILED,
        failed=_failed(error),
        failure=failure,
        launch_s=launch_s,
        warmup_s=warmup_s,
    )


def _failed(error: EngineError | DoesNotFit) -> Failed:
    found = error.values.get("failure")
    if isinstance(found, Failure) and found.known:
        text, remedy = f"{found.what} {found.why}", found.remedy
        return Failed(id=found.id, category=found.category, text=text, remedy=remedy, detail=error.detail)
    category = "memory" if isinstance(error, DoesNotFit) else "unknown"
    return Failed(id=error.key, category=category, text=error.what, remedy=error.next_step, detail=error.detail)
