"""Has an open load outgrown the endpoint? Then its latencies are those of a queue that grows for ever."""

from __future__ import annotations

import itertools
import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence

from llmopt.measure.load import LoadRun
from llmopt.measure.stats.special import t_quantile
from llmopt.measure.timing import ttft_s
from llmopt.records import Sample

__all__ = ["FEWEST", "saturating"]

BATCHES = 8
"""Neighbouring requests meet the same queue: only means of many of them are apart enough for a test."""
FEWEST = 3 * BATCHES
"""Answers below which a trend cannot be told from luck."""
GROWN = 1 / 3
"""What both lines must have grown by over the run, relative to their mean."""


def saturating(run: LoadRun, *, confidence: float = 0.99) -> bool | None:
    """Whether requests in flight and waiting for the first token both keep rising; None for too few answers.

    Both straight lines through the means of eight batches must rise beyond chance (one-sided t), and by a third over
    the run. What was planned while a ramp still rose, or before the first answers had come (every endpoint fills up
    at first), is left out.
    """
    seen = sorted((sample for sample in run.samples if sample.ok), key=lambda sample: sample.planned_s)
    ends = sorted(sample.ended_s for sample in seen)
    flying = [float(k + 1 - bisect_right(ends, sample.planned_s)) for k, sample in enumerate(seen)]
    from_s = _filled_s(seen) + run.load.ramp_s
    kept = [k for k, sample in enumerate(seen) if sample.planned_s >= from_s]
    if len(kept) < FEWEST:
        return None
    starts = [seen[k].planned_s for k in kept]
    waits = [ttft_s(seen[k], planned=True) or 0.0 for k in kept]
    return all(_rises(starts, values, confidence) for values in ([flying[k] for k in kept], waits))


def _filled_s(seen: Sequence[Sample]) -> float:
    """When the first requests had been answered, as a rule: their median time after the first start."""
    first = seen[: max(len(seen) // 10, 3)]
    if not first:
        return 0.0
    return first[0].planned_s + statistics.median(sample.ended_s - sample.planned_s for sample in first)


def _rises(times: Sequence[float], values: Sequence[float], confidence: float) -> bool:
    when, what = _batches(times), _batches(values)
    centre, mean = statistics.fmean(when), statistics.fmean(what)
    spread = sum((t - centre) ** 2 for t in when)
    if spread == 0 or mean <= 0:
        return False
    slope = sum((t - centre) * (v - mean) for t, v in zip(when, what, strict=True)) / spread
    rests = [v - mean - slope * (t - centre) for t, v in zip(when, what, strict=True)]
    error = math.sqrt(sum(r * r for r in rests) / (BATCHES - 2) / spread)
    grown = slope * (times[-1] - times[0]) / mean
    return slope > t_quantile(confidence, BATCHES - 2) * error and grown > GROWN


def _batches(values: Sequence[float]) -> list[float]:
    edges = [k * len(values) // BATCHES for k in range(BATCHES + 1)]
    return [statistics.fmean(values[a:b]) for a, b in itertools.pairwise(edges)]
