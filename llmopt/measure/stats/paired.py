"""Two configurations on the same items, or in the same blocks of launches: differences and ratios with intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from llmopt.measure.stats.intervals import CONFIDENCE, Interval, cluster_totals, mean_interval
from llmopt.measure.stats.special import t_quantile, z_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "abba",
    "bootstrap_difference",
    "mcnemar",
    "paired_difference",
    "pairs_needed",
    "ratio_of_pairs",
]

FEW = 6
"""Fewer clusters than this with any difference in them: their spread is not trusted alone."""
EQUAL = 1e-9
ENOUGH_FOR_BOOTSTRAP = 30
RESAMPLES = 4000


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided mid-p value of McNemar's test (Fagerland, Lydersen and Laake, 2013); 1 without discordant items."""
    if wins < 0 or losses < 0:
        raise ValueError("counts are not negative")
    n, k = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, j) for j in range(k + 1))
    return float(min((2 * tail - math.comb(n, k)) / 2**n, 1.0))


def paired_difference(
    differences: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[Interval, str]:
    """Mean of paired differences in -1..1 with an interval over clusters, and the name of the method.

    0/1 answers: clustered t; where hardly any cluster shows a difference, or all show the same, two pseudo items (+1
    and -1) are added, so that "no difference seen" is never taken for "no difference", nor a few equal ones for
    certainty (after Bonett and Price, 2012). Graded scores: BCa bootstrap over clusters where there are enough of them.
    """
    labels = list(range(len(differences))) if clusters is None else list(clusters)
    totals = cluster_totals(differences, labels)
    moved = sum(total != 0 for total, _ in totals.values())
    means = [total / count for total, count in totals.values()]
    if moved < FEW or max(means) - min(means) < EQUAL:
        padded, padded_labels = [*differences, 1.0, -1.0], [*labels, _Pseudo(), _Pseudo()]
        adjusted = mean_interval(padded, clusters=padded_labels, confidence=confidence)
        value = statistics.fmean(differences)
        if adjusted.low is None or adjusted.high is None:  # cannot be: two clusters were just added
            return Interval(value, None, None), "too few items"
        return Interval(value, min(adjusted.low, value), max(adjusted.high, value)), "clustered t, Bonett-Price"
    binary = all(value in {-1, 0, 1} for value in differences)
    if binary or len(totals) < ENOUGH_FOR_BOOTSTRAP:
        return mean_interval(differences, clusters=labels, confidence=confidence), "clustered t"
    return bootstrap_difference(differences, clusters=labels, confidence=confidence, seed=seed), "cluster bootstrap BCa"


def bootstrap_difference(
    differences: Sequence[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of paired differences with the BCa bootstrap interval (Efron, 1987); whole clusters are resampled."""
    import numpy as np  # noqa: PLC0415 - numpy is imported only where it is used

    labels = list(range(len(differences))) if clusters is None else list(clusters)
    totals = np.array(list(cluster_totals(differences, labels).values()), dtype=float)
    sums, counts = totals[:, 0], totals[:, 1]
    mean = float(sums.sum() / counts.sum())
    number = len(totals)
    if number < 2 or np.allclose(sums / counts, mean):  # noqa: PLR2004 - no spread to resample
        return Interval(mean, None, None)
    weights = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=resamples)
    means = np.sort((weights @ sums) / (weights @ counts))
    low, high = _bca_levels(means, mean, sums, counts, confidence)
    return Interval(mean, float(np.quantile(means, low)), float(np.quantile(means, high)))


def ratio_of_pairs(values_a: Sequence[float], values_b: Sequence[float], *, confidence: float = CONFIDENCE) -> Interval:
    """Geometric mean of a/b over pairs of launches, with the t interval of the log ratios (pairs - 1 degrees).

    The launch is the replicate: what varies from start to start is in the interval. Raises ValueError for values that
    are not positive, or lists of unequal length.
    """
    if any(value <= 0 for value in (*values_a, *values_b)):
        raise ValueError("a ratio needs positive values")
    logs = [math.log(a / b) for a, b in zip(values_a, values_b, strict=True)]
    mean = mean_interval(logs, confidence=confidence)
    if mean.low is None or mean.high is None:
        return Interval(math.exp(mean.value), None, None)
    return Interval(math.exp(mean.value), math.exp(mean.low), math.exp(mean.high))


def abba(pairs: int) -> str:
    """The order of launches of ``pairs`` pairs, ``ABBAABBA…``: a steady drift cancels within every two pairs."""
    return "".join("AB" if k % 2 == 0 else "BA" for k in range(pairs))


def pairs_needed(spread: float, effect: float, *, power: float = 0.8, confidence: float = CONFIDENCE) -> int:
    """Pairs for which a true log ratio of ``effect`` is found with ``power``, given the standard deviation of one pair.

    At least 4. Solves n = ((t_confidence + t_power) · spread / effect)² with the t quantiles of n - 1 degrees.
    """
    if effect <= 0:
        raise ValueError("an effect of zero is never found")
    n = 4
    while n < 1_000_000:  # noqa: PLR2004 - beyond this nobody measures
        reach = t_quantile(0.5 + confidence / 2, n - 1) + t_quantile(power, n - 1)
        needed = (reach * spread / effect) ** 2
        if needed <= n:
            return n
        n = max(n + 1, min(math.ceil(needed), 2 * n))
    return n


class _Pseudo:
    """A cluster of its own: equal to nothing else."""


def _bca_levels(
    means: NDArray[np.float64],
    mean: float,
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    confidence: float,
) -> tuple[float, float]:
    """The percentiles of the bootstrap distribution that bias and skewness call for."""
    share_below = float((means < mean).mean())
    bias = z_quantile(min(max(share_below, 1 / len(means)), 1 - 1 / len(means)))
    left_out = (sums.sum() - sums) / (counts.sum() - counts)
    rests = left_out.mean() - left_out
    scale = float((rests**2).sum() ** 1.5)
    acceleration = float((rests**3).sum()) / (6 * scale) if scale > 0 else 0.0
    normal = statistics.NormalDist()

    def level(z: float) -> float:
        return normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))

    edge = z_quantile(0.5 + confidence / 2)
    return level(-edge), level(edge)
