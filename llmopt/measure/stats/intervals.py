"""Intervals for one sample: proportions, means, quantiles, ratios; with clusters where items are not independent.

All are two-sided at 95 % unless told otherwise. Nothing here assumes a normal population: quantiles use order
statistics, proportions the binomial, means and ratios the t approximation of a mean (over clusters where given).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Hashable, Sequence
from functools import cache
from typing import NamedTuple

from llmopt.measure.stats.special import beta_quantile, binomial_cdf, t_quantile, z_quantile

__all__ = [
    "Interval",
    "clopper_pearson",
    "cluster_totals",
    "design_effect",
    "mean_interval",
    "one_sided_quantile",
    "proportion_interval",
    "quantile",
    "quantile_interval",
    "ratio_interval",
    "smallest_n",
    "wilson",
]

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A value with its bounds; None where the sample supports none."""

    value: float
    low: float | None
    high: float | None


def wilson(successes: float, n: float, *, confidence: float = CONFIDENCE, quantile: float | None = None) -> Interval:
    """Wilson's score interval of a proportion (1927); ``n`` may be an effective size, ``quantile`` replaces z."""
    if n <= 0:
        raise ValueError("a proportion needs at least one observation")
    z = z_quantile(0.5 + confidence / 2) if quantile is None else quantile
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(p * (1 - p) / n + z * z / (4 * n * n), 0.0))
    return Interval(p, min(max(centre - half, 0.0), p), max(min(centre + half, 1.0), p))


def clopper_pearson(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """The exact interval of a proportion (Clopper and Pearson, 1934): never covers less than it says."""
    if not 0 <= successes <= n or n < 1:
        raise ValueError("successes lie between 0 and n")
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else beta_quantile(successes, n - successes + 1, tail)
    high = 1.0 if successes == n else beta_quantile(successes + 1, n - successes, 1 - tail)
    return Interval(successes / n, low, high)


def mean_interval(
    values: Sequence[float], *, clusters: Sequence[Hashable] | None = None, confidence: float = CONFIDENCE
) -> Interval:
    """The mean with a t interval; with ``clusters`` by the clustered standard error and clusters - 1 degrees.

    Source of the clustered error: Miller, arXiv 2411.00640, with the factor C/(C-1).
    """
    error, degrees = _standard_error(values, clusters)
    mean = _mean(values)
    if degrees < 1:
        return Interval(mean, None, None)
    half = t_quantile(0.5 + confidence / 2, degrees) * error
    return Interval(mean, mean - half, mean + half)


def proportion_interval(
    values: Sequence[float], *, clusters: Sequence[Hashable] | None = None, confidence: float = CONFIDENCE
) -> Interval:
    """A mean of values in 0..1: Wilson at the effective sample size the clusters (or graded scores) leave.

    The effective size is p(1-p) over the squared standard error (Kish's design effect, as Korn and Graubard use it),
    with the t quantile of the clusters; where no spread is seen (all right or all wrong) it is the cluster count.
    """
    error, degrees = _standard_error(values, clusters)
    p = _mean(values)
    binary = all(value in {0, 1} for value in values)
    if clusters is None and binary:
        return wilson(sum(values), len(values), confidence=confidence)
    if degrees < 1:
        return Interval(p, None, None)
    effective = p * (1 - p) / (error * error) if error > 0 else degrees + 1
    return wilson(p * effective, effective, quantile=t_quantile(0.5 + confidence / 2, degrees))


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], *, confidence: float = CONFIDENCE
) -> Interval:
    """Sum over sum, with the t interval of the linearised ratio (Cochran, Sampling Techniques, 6.3)."""
    n, total = len(numerators), sum(denominators)
    if total <= 0:
        raise ValueError("a ratio needs a positive denominator")
    ratio = sum(numerators) / total
    if n < 3:  # noqa: PLR2004 - two points say nothing about spread
        return Interval(ratio, None, None)
    rests = [a - ratio * b for a, b in zip(numerators, denominators, strict=True)]
    error = math.sqrt(sum(rest * rest for rest in rests) / (n - 1) / n) / (total / n)
    half = t_quantile(0.5 + confidence / 2, n - 1) * error
    return Interval(ratio, ratio - half, ratio + half)


def quantile(ordered: Sequence[float], q: float) -> float:
    """The ``q`` quantile of values in ascending order, interpolated linearly (type 7, what numpy gives)."""
    place = q * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def smallest_n(q: float, *, confidence: float = CONFIDENCE) -> int:
    """The fewest observations whose ``q`` quantile has a finite interval: 6 for p50, 36 p90, 72 p95, 368 p99."""
    tail = (1 - confidence) / 2
    return math.ceil(math.log(tail) / math.log(max(q, 1 - q)) - 1e-9)


def quantile_interval(
    ordered: Sequence[float], q: float, *, confidence: float = CONFIDENCE, effect: float = 1.0
) -> Interval:
    """A quantile with the distribution-free interval of order statistics (David and Nagaraja, 7.1), equal tails.

    ``effect`` is the design effect of dependent observations: the interval is that of n / effect independent ones.
    Bounds are None where the (effective) sample is too small for a finite interval.
    """
    value = quantile(ordered, q)
    n = len(ordered)
    effective = max(int(n / max(effect, 1.0)), 1)
    ranks = _ranks(effective, q, confidence)
    if ranks is None:
        return Interval(value, None, None)
    low = max(math.floor(ranks[0] / effective * n), 1)
    high = min(math.ceil(ranks[1] / effective * n), n)
    return Interval(value, ordered[low - 1], ordered[high - 1])


def one_sided_quantile(ordered: Sequence[float], q: float, *, confidence: float = CONFIDENCE) -> Interval:
    """A quantile with two one-sided bounds of ``confidence`` each; one may exist where the other does not.

    The upper bound needs 59 observations for p95 and 299 for p99.
    """
    low, high = _rank_below(len(ordered), q, 1 - confidence), _rank_above(len(ordered), q, 1 - confidence)
    return Interval(
        quantile(ordered, q),
        ordered[low - 1] if low >= 1 else None,
        ordered[high - 1] if high <= len(ordered) else None,
    )


def design_effect(groups: Sequence[Sequence[float]], threshold: float) -> float:
    """How much less grouped values say about their share up to ``threshold`` than as many independent ones.

    Each group is in ascending order. Where many values equal the threshold the answer depends on which side they fall:
    the larger effect is taken. The variance is that of ``mean_interval`` with the groups as clusters.
    """
    counts = [len(group) for group in groups if group]
    n, number = sum(counts), len(counts)
    if number < 2:  # noqa: PLR2004 - one group has no spread between groups
        return float(n)
    effects = [1.0]
    for edge in (threshold - abs(threshold) * 1e-9, threshold + abs(threshold) * 1e-9):
        below = [bisect_right(group, edge) for group in groups if group]
        p = sum(below) / n
        if 0 < p < 1:
            spread = sum((seen - count * p) ** 2 for seen, count in zip(below, counts, strict=True))
            effects.append(spread * number / (number - 1) / (n * p * (1 - p)))
        else:
            effects.append(n / number)
    return max(effects)


def cluster_totals(values: Sequence[float], clusters: Sequence[Hashable]) -> dict[Hashable, tuple[float, int]]:
    """(sum, count) of each cluster."""
    totals: dict[Hashable, tuple[float, int]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        total, count = totals.get(cluster, (0.0, 0))
        totals[cluster] = (total + value, count + 1)
    return totals


def _mean(values: Sequence[float]) -> float:
    """``statistics.fmean``, whose module takes longer to load than all of this."""
    return math.fsum(values) / len(values)


def _standard_error(values: Sequence[float], clusters: Sequence[Hashable] | None) -> tuple[float, int]:
    """(standard error of the mean, degrees of freedom)."""
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = _mean(values)
    if clusters is None:
        squares = math.fsum((value - mean) ** 2 for value in values)
        return (math.sqrt(squares / (n - 1) / n) if n > 1 else 0.0), n - 1
    sums = [total - count * mean for total, count in cluster_totals(values, clusters).values()]
    number = len(sums)
    if number < 2:  # noqa: PLR2004 - one cluster has no spread
        return 0.0, 0
    return math.sqrt(sum(s * s for s in sums) * number / (number - 1)) / n, number - 1


def _ranks(n: int, q: float, confidence: float) -> tuple[int, int] | None:
    """1-based ranks (l, u) with P(X_(l) ≤ ξ ≤ X_(u)) ≥ confidence, or None."""
    tail = (1 - confidence) / 2
    low, high = _rank_below(n, q, tail), _rank_above(n, q, tail)
    return (low, high) if low >= 1 and high <= n else None


@cache
def _rank_below(n: int, q: float, tail: float) -> int:
    """The highest rank that lies above the quantile with at most ``tail`` probability; 0 where none does."""
    return bisect_right(range(n + 1), tail, key=lambda k: binomial_cdf(k, n, q))


@cache
def _rank_above(n: int, q: float, tail: float) -> int:
    """The lowest rank that lies below the quantile with at most ``tail`` probability; n + 1 where none does."""
    return bisect_right(range(n + 1), 1 - tail - 1e-12, key=lambda k: binomial_cdf(k, n, q)) + 1
