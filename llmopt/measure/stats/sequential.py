"""Tests that may be looked at after every answer: their error stays below alpha whenever one stops.

Classical intervals lose their promise when looked at again and again; these keep it by Ville's inequality.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AsymptoticInterval", "BettingInterval", "Bounds", "McNemarE"]


class Bounds(NamedTuple):
    """A confidence sequence at one moment."""

    low: float
    high: float


class McNemarE:
    """Is the candidate worse than the incumbent on 0/1 answers? Only items on which they disagree say something.

    The e-value mixes uniformly over loss probabilities above 1/2 and has a closed form:
    log E = n·ln 2 + ln B(l+1, w+1) + ln I_½(w+1, l+1) + ln 2, with w wins and l losses of the candidate, n = w + l.
    """

    def __init__(self) -> None:
        self.wins = 0
        self.losses = 0

    def take(self, candidate_right: bool, incumbent_right: bool) -> None:
        """Count one item both have answered."""
        self.wins += candidate_right and not incumbent_right
        self.losses += incumbent_right and not candidate_right

    @property
    def log_e(self) -> float:
        """Natural logarithm of the e-value for *worse*; 0 before any disagreement."""
        from scipy.special import betainc, betaln  # noqa: PLC0415 - scipy is imported only where it is used

        w, losses = self.wins, self.losses
        if w + losses == 0:
            return 0.0
        tail = float(betainc(w + 1, losses + 1, 0.5))
        log_tail = math.log(tail) if tail > 0 else -math.inf
        return (w + losses + 1) * math.log(2) + float(betaln(losses + 1, w + 1)) + log_tail

    def worse(self, *, alpha: float = 0.1) -> bool:
        """Whether the candidate may be dropped; a candidate that is not worse is ever dropped in at most ``alpha``."""
        return self.log_e >= -math.log(alpha)


class BettingInterval:
    """Bounds of a mean of values in ``low..high``, valid at every moment (Waudby-Smith and Ramdas, arXiv 2010.09686).

    The hedged capital process with predictable plug-in bets, over a grid of candidate means; for graded scores, and
    with ``low=-1`` for their paired differences.
    """

    def __init__(self, *, low: float = 0.0, high: float = 1.0, alpha: float = 0.05, grid: int = 1001) -> None:
        import numpy as np  # noqa: PLC0415 - numpy is imported only where it is used

        if not low < high:
            raise ValueError("low lies below high")
        self._low, self._width = low, high - low
        self._alpha = alpha
        self._means = np.linspace(0.0, 1.0, grid)
        self._log_up: NDArray[np.float64] = np.zeros(grid)
        self._log_down: NDArray[np.float64] = np.zeros(grid)
        self._alive: NDArray[np.bool_] = np.ones(grid, dtype=bool)
        self.n = 0
        self._sum = 0.5
        self._squares = 0.25

    def take(self, value: float) -> None:
        """One more observation; raises ValueError outside the range."""
        import numpy as np  # noqa: PLC0415

        if not self._low <= value <= self._low + self._width:
            raise ValueError(f"{value} lies outside the range that was promised")
        x = (value - self._low) / self._width
        t = self.n + 1
        variance = self._squares / t  # of what came before: a bet must not know the value it is placed on
        bet = math.sqrt(2 * math.log(2 / self._alpha) / (variance * t * math.log(t + 1)))
        with np.errstate(divide="ignore"):
            up = np.minimum(bet, 0.5 / self._means)
            down = np.minimum(bet, 0.5 / (1 - self._means))
        self._log_up += np.log1p(up * (x - self._means))
        self._log_down += np.log1p(-down * (x - self._means))
        capital = np.maximum(self._log_up, self._log_down) - math.log(2)
        self._alive &= capital < -math.log(self._alpha)
        self.n = t
        self._sum += x
        mean = self._sum / (t + 1)
        self._squares += (x - mean) ** 2

    @property
    def bounds(self) -> Bounds:
        """Where the mean can still be; never widens."""
        import numpy as np  # noqa: PLC0415

        alive = np.flatnonzero(self._alive)
        if len(alive) == 0:  # the grid is coarser than what is known
            mean = (self._sum - 0.5) / max(self.n, 1)
            return Bounds(self._low + mean * self._width, self._low + mean * self._width)
        step = 1 / (len(self._means) - 1)
        low = max(float(self._means[alive[0]]) - step, 0.0)
        high = min(float(self._means[alive[-1]]) + step, 1.0)
        return Bounds(self._low + low * self._width, self._low + high * self._width)


class AsymptoticInterval:
    """Bounds of a mean at every moment for values without a known range, after a start (arXiv 2103.06476).

    Robbins' normal mixture with the running variance; for log ratios of speeds. ``tight_at`` is the sample size at
    which it is narrowest.
    """

    def __init__(self, *, alpha: float = 0.05, tight_at: int = 30, start: int = 10) -> None:
        self._alpha = alpha
        self._start = start
        # the mixture's scale that makes the sequence narrowest at ``tight_at`` (their appendix C.3)
        log_term = -2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)
        self._rho2 = log_term / tight_at
        self.n = 0
        self._mean = 0.0
        self._squares = 0.0

    def take(self, value: float) -> None:
        """One more observation (Welford's update)."""
        self.n += 1
        step = value - self._mean
        self._mean += step / self.n
        self._squares += step * (value - self._mean)

    @property
    def bounds(self) -> Bounds | None:
        """The bounds now; None before ``start`` observations."""
        if self.n < self._start:
            return None
        n, rho2 = self.n, self._rho2
        deviation = math.sqrt(self._squares / (n - 1))
        scale = n * rho2 + 1
        half = deviation * math.sqrt(2 * scale / (n * n * rho2) * math.log(math.sqrt(scale) / self._alpha))
        return Bounds(self._mean - half, self._mean + half)
