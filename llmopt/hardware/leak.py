"""Leaks told from noise: a robust slope over trials, a step that stays, and growth within a trial at constant load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmopt.hardware.devices import Holder

__all__ = ["Leak", "LeakWatch", "TheilSen", "growth_within", "theil_sen"]

_MIB = 1 << 20
_FEWEST = 8
_WINDOW = 24
_SETTLING = 2
"""The first trials fill caches that stay; a slope is looked for behind them."""
_SMALLEST_SLOPE = 2.0 * _MIB
_Z_ALONE, _Z_WITH_SIZE, _T_SIZE = 3.2, 2.5, 6.0
"""Kendall's score in standard deviations that decides alone, or together with the slope's size in its standard errors.

Both are asked again after every trial, so a single look is stricter than the 1 % that all looks together may err."""
_STEP = 256 * _MIB
_STEP_STAYS = 3
_GROWTH_PER_MINUTE = 0.01


@dataclass(frozen=True, kw_only=True)
class TheilSen:
    """Median slope of all pairs with its 95 % interval, and Kendall's score: signs only, so outliers weigh little."""

    slope: float
    low: float
    high: float
    z: float
    t: float
    """The slope over its standard error, the noise taken from the median absolute residual."""
    n: int

    @property
    def rises(self) -> bool:
        """Whether a rise is proved."""
        return self.low > 0 and (self.z >= _Z_ALONE or (self.z >= _Z_WITH_SIZE and self.t >= _T_SIZE))


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Memory that keeps growing, with the evidence."""

    where: str
    kind: Literal["slope", "step", "growth"]
    bytes_per_trial: float
    """For ``step`` its size; for ``growth`` bytes per minute."""
    low: float
    high: float
    series: tuple[float, ...]
    holders: tuple[Holder, ...] = ()


def theil_sen(xs: Sequence[float], ys: Sequence[float]) -> TheilSen:
    """The robust line through points. Interval after Sen (1968): order statistics of the pairwise slopes.

    The score's variance is Mann and Kendall's, with their correction for ties.
    """
    n = len(xs)
    if n < 3:  # noqa: PLR2004 - two points have a slope and no interval
        return TheilSen(slope=0.0, low=-math.inf, high=math.inf, z=0.0, t=0.0, n=n)
    pairs = [(xs[j] - xs[i], ys[j] - ys[i]) for i, j in combinations(range(n), 2) if xs[j] != xs[i]]
    slopes = sorted(dy / dx for dx, dy in pairs)
    score = sum((dy * dx > 0) - (dy * dx < 0) for dx, dy in pairs)
    ties = [sum(other == value for other in ys) for value in set(ys)]
    variance = (n * (n - 1) * (2 * n + 5) - sum(k * (k - 1) * (2 * k + 5) for k in ties)) / 18
    spread = math.sqrt(max(variance, 0.0))
    half = 1.96 * spread
    lower = max(0, math.floor((len(slopes) - half) / 2))
    upper = min(len(slopes) - 1, math.ceil((len(slopes) + half) / 2))
    z = 0.0 if spread == 0 else (score - math.copysign(1, score)) / spread if score else 0.0
    slope = median(slopes)
    return TheilSen(slope=slope, low=slopes[lower], high=slopes[upper], z=z, t=_size(xs, ys, slope), n=n)


def _size(xs: Sequence[float], ys: Sequence[float], slope: float) -> float:
    """A slope in its standard errors; 1.4826 turns a normal sample's median absolute deviation into its sigma."""
    mean = sum(xs) / len(xs)
    residuals = [y - slope * x for x, y in zip(xs, ys, strict=True)]
    middle = median(residuals)
    sigma = 1.4826 * median(abs(each - middle) for each in residuals)
    width = math.sqrt(sum((x - mean) ** 2 for x in xs))
    if sigma == 0:
        return math.copysign(math.inf, slope) if slope else 0.0
    return slope * width / sigma


class LeakWatch:
    """Follows what one device (or the host) holds after each trial, when everything should be back.

    ``add`` answers with the leak at the trial that proves it, once; then the level reached is the new baseline.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._series: list[float] = []
        self._fresh = True

    def add(self, used_bytes: float, holders: tuple[Holder, ...] = ()) -> Leak | None:
        """The state after one more trial."""
        self._series.append(used_bytes)
        leak = self._step(holders) or self._slope(holders)
        if leak is not None:
            self._series = self._series[-1:]
            self._fresh = False
        elif len(self._series) > _WINDOW:
            self._series = self._series[-_WINDOW:]
            self._fresh = False
        return leak

    def _slope(self, holders: tuple[Holder, ...]) -> Leak | None:
        """Rising all along: by the line and by its floor, which a saw-tooth (caches filled and dropped) never lifts."""
        series = self._series[_SETTLING:] if self._fresh else self._series
        if len(series) < _FEWEST:
            return None
        line = theil_sen(range(len(series)), series)
        if not line.rises or line.slope < _SMALLEST_SLOPE:
            return None
        third, half = len(series) // 3, len(series) // 2
        first, last = median(series[:third]), median(series[-third:])
        middle = median(series[third:-third])
        late = theil_sen(range(len(series) - half), series[half:])
        # what rises ever more slowly (caches that fill once) settles, and is no leak
        settles = last - middle < (middle - first) / 3 or late.slope < max(_SMALLEST_SLOPE, line.slope / 3)
        if settles or min(series[-third:]) <= first:
            return None
        return Leak(
            where=self.where,
            kind="slope",
            bytes_per_trial=line.slope,
            low=line.low,
            high=line.high,
            series=tuple(series),
            holders=holders,
        )

    def _step(self, holders: tuple[Holder, ...]) -> Leak | None:
        """A jump that stayed for three trials."""
        series = self._series
        before, after = series[:-_STEP_STAYS], series[-_STEP_STAYS:]
        if len(before) < 2:  # noqa: PLR2004 - one value before says nothing about its noise
            return None
        jump = min(after) - max(before)
        if jump <= _STEP:
            return None
        return Leak(
            where=self.where,
            kind="step",
            bytes_per_trial=median(after) - median(before),
            low=jump,
            high=max(after) - min(before),
            series=tuple(series),
            holders=holders,
        )


def growth_within(where: str, at_s: Sequence[float], used_bytes: Sequence[float]) -> Leak | None:
    """Growth of more than 1 % a minute in the steady phase of one trial (its start left out by the caller)."""
    if len(at_s) < _FEWEST:
        return None
    step = max(1, len(at_s) // 60)  # 60 points decide as well as 3,600, and pairs grow with the square
    times, values = at_s[::step], used_bytes[::step]
    line = theil_sen(times, values)
    per_minute = line.slope * 60
    level = median(values)
    if not line.rises or per_minute <= _GROWTH_PER_MINUTE * level:
        return None
    return Leak(
        where=where,
        kind="growth",
        bytes_per_trial=per_minute,
        low=line.low * 60,
        high=line.high * 60,
        series=tuple(values),
    )
