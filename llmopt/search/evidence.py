"""Evidence that may be looked at after every answer: e-values, which keep their promise under any peeking.

An e-value of 1/α or more, at any moment one chooses to look, happens with probability at most α while the hypothesis it
speaks against is true (Ville's inequality). All functions return its logarithm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "log_e_losing",
    "log_e_mean_below",
    "log_e_proportion_above",
    "log_e_slower",
    "mean_upper_bound",
]

_MOST_LOST = 0.85
"""A candidate rarely loses more of what it differs in; looking no further saves answers (39 in place of 40 %)."""

_BOLDNESS = 0.75
"""The largest share of the capital a bet may risk."""


def log_e_proportion_above(k: int, n: int, p0: float, *, most: float = 1.0) -> float:
    """Against *an event has probability ≤ p0*, after ``k`` events in ``n``: a uniform mixture over (p0, most).

    log E = ln B(k+1, n−k+1) + ln(I_most − I_p0)(k+1, n−k+1) − ln(most−p0) − k·ln p0 − (n−k)·ln(1−p0).
    """
    if n == 0:
        return 0.0
    from scipy.special import betaincc, betaln  # noqa: PLC0415 - only while racing

    tail = float(betaincc(k + 1, n - k + 1, p0) - betaincc(k + 1, n - k + 1, most))
    if tail <= 0.0:
        return -math.inf
    return (
        float(betaln(k + 1, n - k + 1)) + math.log(tail)
        - math.log(most - p0) - k * math.log(p0) - (n - k) * math.log1p(-p0)
    )  # fmt: skip


def log_e_losing(wins: int, losses: int) -> float:
    """Against *the candidate loses at most half of the items on which it and the incumbent differ* (McNemar's)."""
    return log_e_proportion_above(losses, wins + losses, 0.5, most=_MOST_LOST)


def log_e_mean_below(values: Sequence[float], mean: float) -> float:
    """Against *values in 0..1 have a mean of at least* ``mean``: the best capital so far of a predictable bettor.

    Bets follow the approximately growth-optimal rule of Waudby-Smith & Ramdas (arXiv 2010.09686), on "below" only.
    """
    if mean <= 0.0:
        return 0.0
    most = _BOLDNESS / max(1.0 - mean, 1e-9)
    log_capital = best = 0.0
    total, squares = 0.5, 0.25  # one pseudo-value of 0.5 with variance 0.25 before the first
    for seen, value in enumerate(values, start=1):
        average = total / seen
        variance = max(squares / seen, 1e-4)
        edge = mean - average
        bet = min(max(edge / (variance + edge * edge), 0.0), most)
        log_capital += math.log1p(bet * (mean - value))
        best = max(best, log_capital)
        total += value
        squares += (value - total / (seen + 1)) ** 2
    return best


def mean_upper_bound(values: Sequence[float], *, alpha: float) -> float:
    """The upper end of a confidence sequence for the mean of values in 0..1: valid at every moment at once."""
    limit = math.log(1.0 / alpha)
    if log_e_mean_below(values, 1.0) < limit:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if log_e_mean_below(values, middle) >= limit:
            high = middle
        else:
            low = middle
    return high


def log_e_slower(ratios: Sequence[float], *, margin: float = 1.05) -> float:
    """Against *the candidate needs at most* ``margin`` *times the incumbent's time*, from paired ratios of times.

    A ratio r (candidate / incumbent) becomes 1 / (1 + r) in 0..1, which is one half where both are equally fast.
    """
    return log_e_mean_below([1.0 / (1.0 + ratio) for ratio in ratios], 1.0 / (1.0 + margin))
