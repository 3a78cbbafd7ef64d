"""The few special functions every measurement needs, without loading scipy into the measuring process.

scipy would cost a third of a second and 25 MB in each load process; tests hold these against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

__all__ = ["beta_quantile", "binomial_cdf", "incomplete_beta", "t_quantile", "z_quantile"]

TINY = 1e-300
STEPS = 100_000
HALVINGS = 200


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz's method)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on one side only
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / a * _fraction(a, b, x)


def binomial_cdf(k: int, n: int, p: float) -> float:
    """P(X ≤ k) of a binomial."""
    return 1.0 if k >= n else incomplete_beta(n - k, k + 1, 1 - p)


def beta_quantile(a: float, b: float, p: float) -> float:
    """The quantile of a beta distribution."""
    return _inverse(lambda x: incomplete_beta(a, b, x), p, 0.0, 1.0)


@cache
def t_quantile(p: float, degrees: float) -> float:
    """The quantile of Student's t."""
    if p == 0.5:  # noqa: PLR2004 - the middle
        return 0.0
    if p < 0.5:  # noqa: PLR2004
        return -t_quantile(1 - p, degrees)
    # P(T ≤ t) = 1 - I_x(ν/2, 1/2) / 2 with x = ν / (ν + t²)
    x = _inverse(lambda x: incomplete_beta(degrees / 2, 0.5, x), 2 * (1 - p), 0.0, 1.0)
    return math.sqrt(degrees * (1 - x) / x)


def z_quantile(p: float) -> float:
    """The quantile of the standard normal."""
    from statistics import NormalDist  # noqa: PLC0415 - drags in decimals, fractions and a random generator

    return NormalDist().inv_cdf(p)


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > TINY else TINY)
    value = d
    for m in range(1, STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            d = 1 / (d if abs(d) > TINY else TINY)
            c = 1 + term / c
            c = c if abs(c) > TINY else TINY
            value *= c * d
        if abs(c * d - 1) < 1e-15:  # noqa: PLR2004 - the precision of a float
            break
    return value


def _inverse(rising: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a rising function meets ``target``, by halving."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
