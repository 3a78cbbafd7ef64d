"""Has an open load outgrown the endpoint? Then its latencies are those of a queue that grows for ever."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections.abc import Sequence

from llmopt.measure.load import LoadRun
from llmopt.measure.stats.special import t_quantile
from llmopt.measure.timing import ttft_s

__all__ = ["FEWEST", "saturating"]

FEWEST = 20
"""Answers below which a trend cannot be told from luck."""
GROWN = 1 / 3
"""What both lines must have grown by over the run, relative to their mean."""


def saturating(run: LoadRun, *, confidence: float = 0.99) -> bool | None:
    """Whether requests in flight and waiting for the first token both keep rising; None for too few answers.

    Both straight lines over the planned times must rise beyond chance (one-sided t), and by a third over the run.
    """
    seen = sorted((sample for sample in run.samples if sample.ok), key=lambda sample: sample.planned_s)
    if len(seen) < FEWEST:
        return None
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
    return slope > t_quantile(confidence, n - 2) * error and grown > GROWN
