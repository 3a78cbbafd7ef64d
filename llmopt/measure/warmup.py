"""Warming an engine up until its speed no longer moves, before anything is measured."""

from __future__ import annotations

import asyncio
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmopt.measure.client import Client
from llmopt.measure.load import LoadRun, disjoint, drive
from llmopt.records import Load, Request
from llmopt.runtime.clock import Clock, MonotonicClock

__all__ = ["STREAMS", "WarmUp", "WarmUpRule", "is_stable", "warm_up"]

PERIOD_S = 0.25
STREAMS = 4
"""Of a load that has none of its own (an open one), or on an engine that does not say how many it takes."""
READINGS = 8
"""Fewer in a span say nothing about its quarters: two each."""


@dataclass(frozen=True, kw_only=True)
class WarmUpRule:
    """When warming up is over: after ``requests`` (at least twice the streams) or ``seconds``, once stable.

    ``cap_s`` ends it in any case. Stable: over the last ``span_s`` the two halves of events per second differ by less
    than ``drift`` and the quarters vary by less than ``spread`` (coefficient of variation). What is under way then is
    awaited for up to ``patience_s``: an engine goes on working at what its client no longer waits for.
    """

    requests: int = 10
    seconds: float = 10.0
    cap_s: float = 60.0
    span_s: float = 4.0
    drift: float = 0.05
    spread: float = 0.15
    patience_s: float = 60.0
    promise: bool = True
    """Whether figures rest on it; that a search's short warm-up did not settle is no warning."""

    @property
    def period_s(self) -> float:
        """How often the speed is read: so that a span has its readings, and two to spare where timers fire late."""
        return min(PERIOD_S, self.span_s / (READINGS + 2))


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """How a warm-up went; ``stable`` is False where the cap ended it."""

    stable: bool
    seconds: float
    requests: int
    failures: int
    first_error: str | None = None
    promised: bool = True
    cut: int = 0
    """Requests that were cut off at the end: the engine may still be at work on them."""


async def warm_up(
    client: Client,
    requests: Sequence[Request],
    load: Load,
    *,
    rule: WarmUpRule | None = None,
    clock: Clock | None = None,
    stop: asyncio.Event | None = None,
) -> WarmUp:
    """Drive ``requests`` (each time with a new beginning, so that no prefix is reused) until the speed is stable.

    Always a closed loop, with the load's streams: what is warmed is the engine, not the schedule. It ends when the last
    request is answered, so that nothing is left to do on the engine; ``stop`` ends it at once.
    """
    rule = rule or WarmUpRule()
    clock = clock or MonotonicClock()
    over, cut = asyncio.Event(), asyncio.Event()
    done: list[bool] = []
    closed = Load(streams=load.streams or STREAMS)
    began_s = clock.now_s()
    counts = [(began_s, client.events_seen())]
    verdict: list[bool] = []

    def judge() -> None:
        counts.append((clock.now_s(), client.events_seen()))
        elapsed_s = counts[-1][0] - began_s
        enough = elapsed_s >= rule.seconds or len(done) >= max(rule.requests, 2 * (closed.streams or 1))
        stable = enough and is_stable(counts, rule)
        if stable or elapsed_s >= rule.cap_s:
            verdict.append(stable)
            over.set()

    async def watch() -> None:
        ends_s = math.inf
        while not cut.is_set():
            await asyncio.sleep(rule.period_s)
            if not over.is_set():
                judge()
                ends_s = clock.now_s() + rule.patience_s if over.is_set() else math.inf
            if (stop is not None and stop.is_set()) or clock.now_s() >= ends_s:
                cut.set()

    asked = itertools.takewhile(lambda _: not over.is_set(), disjoint(requests))
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch(), name="watch the warm-up")
        run = await drive(client, asked, closed, clock=clock, on_sample=lambda s: done.append(s.ok), stop=cut)
        watching.cancel()
    return _summary(run, stable=any(verdict), seconds=clock.now_s() - began_s, promised=rule.promise)


def is_stable(counts: Iterable[tuple[float, int]], rule: WarmUpRule) -> bool:
    """Whether the last ``span_s`` of (time, events so far) show a steady rate; False where they are too short."""
    points = list(counts)
    end_s = points[-1][0]
    inside = [point for point in points if point[0] >= end_s - rule.span_s]
    if len(inside) < READINGS or end_s - points[0][0] < rule.span_s:
        return False
    edges = [inside[round(k * (len(inside) - 1) / 4)] for k in range(5)]
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(edges)]
    mean = statistics.fmean(rates)
    if mean <= 0:
        return False
    first, second = statistics.fmean(rates[:2]), statistics.fmean(rates[2:])
    return abs(second - first) < rule.drift * mean and statistics.stdev(rates) < rule.spread * mean


def _summary(run: LoadRun, *, stable: bool, seconds: float, promised: bool) -> WarmUp:
    errors = [sample.error for sample in run.samples if sample.error is not None]
    return WarmUp(
        stable=stable,
        seconds=seconds,
        requests=len(run.samples),
        failures=len(errors),
        first_error=errors[0] if errors else run.gave_up,
        promised=promised,
        cut=run.cut,
    )
