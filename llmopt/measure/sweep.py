"""How much load an endpoint bears: a sweep from one stream to saturation, and the highest load that meets an SLO."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from llmopt.measure.load import LoadRun
from llmopt.measure.metrics import speed
from llmopt.measure.slo import Slo
from llmopt.measure.stats.special import t_quantile
from llmopt.measure.timing import ttft_s
from llmopt.records import Estimate, Load

__all__ = ["Boundary", "Probe", "Sweep", "SweepPoint", "highest_load", "saturating", "sweep"]

Probe = Callable[[Load], Awaitable[LoadRun]]
"""Measures one load; whoever sweeps decides how many requests and for how long."""

NEAR = 0.15
"""Within this relative distance of the boundary one probe may be a matter of luck; it is repeated."""


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One load of a sweep and what came of it."""

    load: Load
    estimates: dict[str, Estimate]
    saturated: bool

    @property
    def answered_per_s(self) -> float:
        """Answers delivered per second."""
        return self.estimates["answers_per_minute"].value / 60


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The points in rising order of load."""

    points: tuple[SweepPoint, ...]

    @property
    def capacity_per_s(self) -> float:
        """The most answers per second that any load drew out."""
        return max(point.answered_per_s for point in self.points)


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Where loads stop being met: the highest seen to be met and the lowest seen to fail (None: none failed)."""

    met: float | None
    failed: float | None
    probes: int


async def sweep(measure: Probe, *, streams: int = 64, levels: int = 6, seed: int = 0, slo: Slo | None = None) -> Sweep:
    """One stream, then ``streams`` at once (the capacity), then ``levels`` Poisson rates evenly between the two.

    Ends early at the first rate that saturates the endpoint: higher ones would say the same.
    """
    alone = _point(await measure(Load(streams=1, seed=seed)), slo)
    full = _point(await measure(Load(streams=streams, seed=seed)), slo)
    low, high = alone.answered_per_s, full.answered_per_s
    between: list[SweepPoint] = []
    for level in range(1, levels + 1):
        rate = low + (high - low) * level / (levels + 1)
        if rate <= low:
            break
        run = await measure(Load(streams=None, rate=rate, arrival="poisson", seed=seed))
        between.append(_point(run, slo))
        if between[-1].saturated:
            break
    return Sweep(points=(alone, *between, replace(full, saturated=True)))


async def highest_load(
    meets: Callable[[float], Awaitable[bool]],
    *,
    start: float,
    ceiling: float = math.inf,
    tolerance: float = 0.05,
    votes: int = 3,
) -> Boundary:
    """The highest load that ``meets``: doubling from ``start``, then halving the (geometric) gap to ``tolerance``.

    Near the boundary a load is asked ``votes`` times and the majority decides. ``met`` is None where even a load far
    below ``start`` fails.
    """
    probes = 0

    async def decide(load: float, *, times: int) -> bool:
        nonlocal probes
        yes = 0
        for asked in range(1, times + 1):
            probes += 1
            yes += await meets(load)
            if max(yes, asked - yes) > times // 2:
                break
        return yes > times // 2

    met, failed = None, None
    load = start
    while failed is None and (met is None or met < ceiling):
        if await decide(load, times=1):
            met, load = load, min(load * 2, ceiling)
        else:
            failed = load
    floor = start / 1024
    while met is None and failed is not None and failed > floor:
        if await decide(failed / 2, times=1):
            met = failed / 2
        else:
            failed /= 2
    while met is not None and failed is not None and failed / met > 1 + tolerance:
        middle = math.sqrt(met * failed)
        if await decide(middle, times=votes if failed / met < 1 + 2 * NEAR else 1):
            met = middle
        else:
            failed = middle
    return Boundary(met=met, failed=failed, probes=probes)


def saturating(run: LoadRun, *, confidence: float = 0.99) -> bool:
    """Whether an open load outgrew the endpoint: requests in flight and waiting for the first token both keep rising.

    Both straight lines over the planned times must rise beyond chance (one-sided t), and by a third over the run.
    """
    seen = sorted((sample for sample in run.samples if sample.ok), key=lambda sample: sample.planned_s)
    if len(seen) < 20:  # noqa: PLR2004 - too few to tell a trend from luck
        return False
    starts = [sample.planned_s for sample in seen]
    ends = sorted(sample.ended_s for sample in seen)
    flying = [float(k + 1 - bisect_right(ends, at)) for k, at in enumerate(starts)]
    waits = [ttft_s(sample, planned=True) or 0.0 for sample in seen]
    return all(_rises(starts, values, confidence) for values in (flying, waits))


def _rises(times: Sequence[float], values: Sequence[float], confidence: float) -> bool:
    n, centre, mean = len(times), statistics.fmean(times), statistics.fmean(values)
    spread = sum((t - centre) ** 2 for t in times)
    if spread == 0 or mean <= 0:
        return False
    slope = sum((t - centre) * (v - mean) for t, v in zip(times, values, strict=True)) / spread
    rests = [v - mean - slope * (t - centre) for t, v in zip(times, values, strict=True)]
    error = math.sqrt(sum(r * r for r in rests) / (n - 2) / spread)
    grown = slope * (times[-1] - times[0]) / mean
    return slope > t_quantile(confidence, n - 2) * error and grown > 1 / 3


def _point(run: LoadRun, slo: Slo | None) -> SweepPoint:
    return SweepPoint(load=run.load, estimates=speed(run, slo), saturated=saturating(run))
