"""One trial: an engine with these launch settings, these requests at this load, figures with intervals.

A ``Bench`` holds at most one running engine. Trials that share launch settings run on the same engine; any other trial
makes it stop the old one (release proved) and start the new one. Where the engine remembers prompts (prefix caching) it
is made to forget them between two trials, or started afresh if it cannot: no trial profits from an earlier one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

from llmopt.errors import DoesNotFit, EngineError
from llmopt.failures import Failure, advise
from llmopt.measure.client import Client
from llmopt.measure.counting import count_tokens
from llmopt.measure.engine_metrics import EngineWatch
from llmopt.measure.judging import Judge
from llmopt.measure.load import LoadRun, OnSample, drive
from llmopt.measure.metrics import provisional, speed
from llmopt.measure.quality import quality
from llmopt.measure.validity import CoLoadWatch, certify
from llmopt.measure.warmup import STREAMS, WarmUp, warm_up
from llmopt.records import (
    Configuration,
    Estimate,
    InferenceParams,
    Item,
    Load,
    Measurement,
    Outcome,
    Request,
    Sample,
)
from llmopt.search.asked import Asked, Failed, Referee, TrialResult
from llmopt.search.forgetting import NOTHING, forgotten, idle
from llmopt.search.together import Kept, Together, various
from llmopt.search.workload import Workload, request_for
from llmopt.workload.repeats import repeats_for

if TYPE_CHECKING:
    from llmopt.engines.base import Forgetting
    from llmopt.engines.launch import RunningEngine
    from llmopt.hardware.sampler import TracePoint
    from llmopt.hardware.supervision import WatchedLaunch

__all__ = [
    "Bench",
    "EngineHost",
    "Failed",
    "Hosted",
    "Referee",
    "TrialBench",
    "TrialResult",
    "places",
]

WARM_UP_TOKENS = 16
NEWS_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Hosted:
    """A running engine and what watches its memory."""

    engine: RunningEngine
    memory: WatchedLaunch
    out_of_memory: asyncio.Event
    """Set when memory became critical: the trial ends as infeasible."""
    go: asyncio.Event
    """Not set while a warning about memory holds the load back: no request is sent until it is."""


class TrialBench(Protocol):
    """Runs trials: here (``Bench``) or elsewhere."""

    @property
    def launch_key(self) -> str | None:
        """The launch settings that are running now, if another trial on them needs no restart."""
        ...

    async def run(
        self,
        configuration: Configuration,
        items: Sequence[Item],
        *,
        on_sample: OnSample | None = None,
        fresh: bool = False,
        referee: Referee | None = None,
    ) -> TrialResult:
        """Measure one configuration."""
        ...

    async def run_together(
        self,
        configurations: Sequence[Configuration],
        items: Sequence[Item],
        *,
        on_sample: OnSample | None = None,
        fresh: bool = False,
        referees: Sequence[Referee] = (),
    ) -> list[TrialResult]:
        """Measure several request settings of one launch."""
        ...

    def judge_by(self, judge: Judge) -> None:
        """Score what is measured from now on by ``judge``."""
        ...

    def answers_to(self, items: Sequence[Item], params: InferenceParams) -> int:
        """How many answers ``run`` will ask for."""
        ...

    async def stop(self) -> None:
        """Let go of what runs."""
        ...


class EngineHost(Protocol):
    """Starts engines for configurations; the study decides how."""

    def launch(self, configuration: Configuration) -> AbstractAsyncContextManager[Hosted]:
        """A running, ready engine; stopped and its release proved on exit."""
        ...

    def request_extra(self, configuration: Configuration) -> Mapping[str, Any]:
        """Engine-specific body fields of every measured request."""
        ...

    def remembers(self, configuration: Configuration) -> bool:
        """Whether requests may profit from earlier ones (prefix caching)."""
        ...

    def forget(self, configuration: Configuration, turn: int) -> Forgetting | None:
        """What keeps pass number ``turn`` apart from all others on a running engine; None where a restart must."""
        ...

    def in_turn(self, configuration: Configuration) -> bool:
        """Whether an answer shows that all earlier requests have ended."""
        ...

    @property
    def metric_names(self) -> Mapping[str, str]:
        """Our words for queue, cache and counters → the engine's own; empty where it tells nothing."""
        ...


class Bench:
    """Runs configurations one after another; an async context manager that leaves no engine behind."""

    def __init__(self, host: EngineHost, work: Workload, *, kept: Kept | None = None) -> None:
        """``kept``: answers that need not be asked again where no speed is measured."""
        self._host = host
        self._work = work
        self._kept = kept
        self._stack = AsyncExitStack()
        self._hosted: Hosted | None = None
        self._launch_key: str | None = None
        self._turn = 0
        self._forgets: Forgetting | None = NOTHING
        self._cut_off = False
        self._watched: WatchedLaunch | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()

    @property
    def launch_key(self) -> str | None:
        """The launch settings that are running now; None where even the same would be started afresh."""
        return self._launch_key if self._forgets is not None else None

    @property
    def course(self) -> tuple[TracePoint, ...]:
        """The memory of the last launch over time; after ``stop`` to its end, so that the release is in it."""
        return self._watched.trace().points if self._watched is not None else ()

    def judge_by(self, judge: Judge) -> None:
        """Score what is measured from now on by ``judge`` (once a reference run has answered)."""
        self._work = replace(self._work, judge=judge)

    def answers_to(self, items: Sequence[Item], params: InferenceParams) -> int:
        """How many answers ``run`` will ask for."""
        return len(items) * repeats_for(params, self._work.repeats)

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
        referee: Referee | None = None,
        load: Load | None = None,
    ) -> TrialResult:
        """Measure ``configuration`` on ``items``; an engine that cannot do it becomes a result, not an exception.

        ``fresh`` restarts the engine even where the launch settings already run. A ``referee`` may end the trial early:
        it is then raced out, with what was measured so far. ``load`` replaces the workload's.
        """
        work = self._work if load is None else replace(self._work, load=load)
        asked = [Asked(configuration, items, work, referee)]
        (found,) = await self._run(asked, items, on_sample, fresh=fresh)
        return found

    async def run_together(
        self,
        configurations: Sequence[Configuration],
        items: Sequence[Item],
        *,
        on_sample: OnSample | None = None,
        fresh: bool = False,
        referees: Sequence[Referee] = (),
    ) -> list[TrialResult]:
        """Measure several request settings of one launch at once: quality only, never a speed.

        Time is shared out evenly; the launch is the first one's. Where all answers were kept no engine is needed.
        """
        given: Sequence[Referee | None] = referees or [None] * len(configurations)
        asked = [Asked(c, items, self._work, r) for c, r in zip(configurations, given, strict=True)]
        together = Together(asked, items, self._work, kept=self._kept, on_sample=on_sample)
        if together.complete:
            return together.results({})
        return await self._run(asked, items, on_sample, fresh=fresh, together=together)

    async def _run(
        self,
        asked: Sequence[Asked],
        items: Sequence[Item],
        on_sample: OnSample | None,
        *,
        fresh: bool,
        together: Together | None = None,
    ) -> list[TrialResult]:
        began_s = time.monotonic()
        launch_s = warmup_s = 0.0
        configuration, load = asked[0].configuration, asked[0].load
        try:
            restarted = fresh or not await self._goes_on(configuration)
            if restarted:
                await self._switch(configuration)
                launch_s = time.monotonic() - began_s
            hosted = self._hosted
            if hosted is None:
                raise RuntimeError("no engine after a successful switch")
            async with Client(hosted.engine.endpoint, timeout_s=self._work.request_timeout_s) as client:
                if restarted:
                    asked[0].warm = await self._warm_up(client, hosted, configuration, load)
                    warmup_s = asked[0].warm.seconds
                hosted.memory.phase("serving")
                before_s = time.monotonic()
                if together is None:
                    found = [await self._measure(client, hosted, asked[0], items, on_sample)]
                else:
                    found = await self._measure_together(client, hosted, together, asked[0])
                measure_s = (time.monotonic() - before_s) / len(asked)
            hosted.engine.check()
        except DoesNotFit as error:
            ended = TrialResult(outcome=Outcome.INFEASIBLE, failed=_failed(error), launch_s=launch_s)
            return [ended] * len(asked)
        except EngineError as error:
            await self._stop_after_failure()
            return [_ended(error, one.configuration, launch_s=launch_s, warmup_s=warmup_s) for one in asked]
        found[0] = replace(found[0], launch_s=launch_s, warmup_s=warmup_s)
        course = tuple(point for point in hosted.memory.trace().points if point.at_s >= began_s)
        return [replace(result, measure_s=measure_s, course=course) for result in found]

    async def _switch(self, configuration: Configuration) -> None:
        await self.stop()
        self._hosted = await self._stack.enter_async_context(self._host.launch(configuration))
        self._watched = self._hosted.memory
        self._launch_key = configuration.launch_key
        self._forgets = self._forgetting(configuration)
        self._cut_off = False

    def _forgetting(self, configuration: Configuration) -> Forgetting | None:
        """What the next pass needs to be apart from all others; None where only a restart does that."""
        self._turn += 1
        return self._host.forget(configuration, self._turn) if self._host.remembers(configuration) else NOTHING

    async def _goes_on(self, configuration: Configuration) -> bool:
        """Whether the running engine can take this trial too: same launch settings, idle, and nothing remembered."""
        if self._hosted is None or self._launch_key != configuration.launch_key:
            return False
        if self._cut_off and not await self._idle(self._hosted, configuration):
            return False
        self._cut_off = False
        forgetting = self._forgetting(configuration)
        if forgetting is None or not await forgotten(self._hosted.engine.endpoint, forgetting.calls):
            return False
        self._forgets = forgetting
        return True

    async def _idle(self, hosted: Hosted, configuration: Configuration) -> bool:
        """Wait until the engine is done with requests that were cut off; False where that cannot be known."""
        endpoint = hosted.engine.endpoint
        return await idle(endpoint, self._host.metric_names, in_turn=self._host.in_turn(configuration))

    def _extra(self, configuration: Configuration) -> Mapping[str, Any]:
        return {**self._host.request_extra(configuration), **(self._forgets or NOTHING).fields}

    async def _stop_after_failure(self) -> None:
        """Stop an engine that failed; that it had died by itself is already the result."""
        try:
            await self.stop()
        except EngineError:
            return

    async def _warm_up(self, client: Client, hosted: Hosted, configuration: Configuration, load: Load) -> WarmUp:
        """As many streams as the load has and the engine takes at once: a queue warms nothing, but must be awaited."""
        extra = self._extra(configuration)
        short = replace(self._work, max_tokens=min(self._work.max_tokens, WARM_UP_TOKENS))
        questions = [request_for(item, configuration.request, short, extra) for item in self._work.warmup_items]
        streams = min(load.streams or STREAMS, _told_places(configuration) or STREAMS)
        rule, stop = self._work.warm_up, hosted.out_of_memory
        warm = await warm_up(client, questions, Load(streams=streams), rule=rule, stop=stop)
        if warm.cut:
            await self._idle(hosted, configuration)
        # what it keeps of the warm-up slows the first pass alone: four slots by a tenth on llama.cpp
        await forgotten(hosted.engine.endpoint, (self._forgets or NOTHING).calls)
        return warm

    async def _measure(
        self, client: Client, hosted: Hosted, asked: Asked, items: Sequence[Item], on_sample: OnSample | None
    ) -> TrialResult:
        work = self._work
        params = asked.configuration.request
        extra = self._extra(asked.configuration)
        passes: list[Sequence[Request]] = [
            [request_for(item, params, work, extra, repeat=repeat) for item in items]
            for repeat in range(repeats_for(params, work.repeats))
        ]
        if work.shared_prefix is not None:
            passes = [work.shared_prefix.before(requests) for requests in passes]

        def note(sample: Sample) -> None:
            if on_sample is not None:
                on_sample(sample)
            asked.note(sample)

        watch = CoLoadWatch(hosted.engine.pids)
        counters = EngineWatch(endpoint=hosted.engine.endpoint, names=self._host.metric_names)
        async with _either(hosted.out_of_memory, asked.decided) as stop:
            async with counters:
                run = await drive(client, passes[0], asked.load, on_sample=note, stop=stop, go=hosted.go)
            co_load = watch.stop()
            further: list[Sample] = []
            for requests in passes[1:]:
                # the same prompts again: what a prefix cache gains by that is no speed, only the answers count
                if not stop.is_set():
                    more = await drive(client, requests, asked.load, on_sample=on_sample, stop=stop, go=hosted.go)
                    further += more.samples
        self._cut_off = stop.is_set()
        await _see_the_end(hosted, run)
        self._check_answers(client, hosted, run.samples)
        run = replace(run, samples=await count_tokens(hosted.engine.endpoint, run.samples))
        samples = (*run.samples, *further)
        scores = asked.scores(samples)
        certificate = certify(
            run,
            co_load=co_load,
            noise_floor=work.noise_floor,
            client_error_ms=work.client_error_ms,
            warm_up=asked.warm,
        )
        measurement = Measurement(
            estimates={
                **speed(run, work.slo, window=certificate.window),
                **quality(items, scores),
                **counters.estimates(),
                **various(asked, items, samples, work),
                **_peak(hosted),
            },
            valid=certificate.valid,
            warnings=(*certificate.warnings, *await asyncio.to_thread(hosted.engine.notices)),
            certificate=certificate.to_json(),
            provisional={name: one.value for name, one in provisional(run, window=certificate.window).items()},
        )
        return asked.result(measurement, samples, scores)

    async def _measure_together(
        self, client: Client, hosted: Hosted, together: Together, first: Asked
    ) -> list[TrialResult]:
        requests = together.requests(self._extra(first.configuration))
        load = together.load(places(first.configuration))
        run = await drive(client, requests, load, on_sample=together.answered, stop=hosted.out_of_memory)
        await _see_the_end(hosted, run)
        self._check_answers(client, hosted, together.samples)
        return together.results(_peak(hosted))

    @staticmethod
    def _check_answers(client: Client, hosted: Hosted, samples: Sequence[Sample]) -> None:
        """Raise DoesNotFit or EngineError where nothing that was measured may be believed."""
        if hosted.out_of_memory.is_set():
            peak = f"{hosted.memory.trace().peak_bytes / 1e9:.2f}"
            raise DoesNotFit("memory.trial_ended", detail=hosted.memory.story(), peak=peak)
        if not any(sample.ok for sample in samples):
            hosted.engine.check()
            raise client.explain(samples[0].error or "closed_early" if samples else "closed_early")


async def _see_the_end(hosted: Hosted, run: LoadRun) -> None:
    """Where the endpoint is gone its engine has ended: wait for the news of that, which may come a moment later."""
    if run.gave_up is not None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hosted.engine.ended(), NEWS_S)


def places(configuration: Configuration) -> int:
    """How many requests the engine works on at once under these launch settings; 1 where they do not say."""
    return _told_places(configuration) or 1


def _told_places(configuration: Configuration) -> int | None:
    launch = configuration.launch
    told = launch.get("slots") or launch.get("max_num_seqs")
    return int(told) if told else None


@asynccontextmanager
async def _either(*events: asyncio.Event) -> AsyncIterator[asyncio.Event]:
    """An event that is set as soon as one of ``events`` is."""
    found = asyncio.Event()

    async def follow(event: asyncio.Event) -> None:
        await event.wait()
        found.set()

    # no task group: what is raised in the body must come out as it is
    followers = [asyncio.ensure_future(follow(event)) for event in events]
    try:
        yield found
    finally:
        for follower in followers:
            follower.cancel()


def _peak(hosted: Hosted) -> dict[str, Estimate]:
    """The memory of the engine's processes; nothing where it runs elsewhere."""
    if not (peak := hosted.memory.trace().peak_bytes):
        return {}
    return {"memory_bytes": Estimate(value=float(peak), unit="B", n=1, method="peak of the process tree")}


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
