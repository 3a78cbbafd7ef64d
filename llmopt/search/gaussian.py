"""Gaussian processes small enough to read: regression over a trend, and classification of what runs at all.

Regression models  y = c + Σ β·m + f(x) + ε: a constant, given trends m (what was predicted before running) with
uncertain weights β around one, a Matérn-5/2 process f with one length for each parameter, and noise. A useless trend is
thereby found out: its β goes to zero. Hyper-parameters are the most probable ones under weak priors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["Classifier", "Hyper", "Regression", "distances", "expit", "normal_cdf"]

_SQRT5 = math.sqrt(5.0)
_JITTER = 1e-8
_CONSTANT_VARIANCE = 4.0
_TREND_VARIANCE = 0.05
"""Of a trend's weight around one: doubted enough to be given up after a handful of contradictions."""


def normal_cdf(z: Array) -> Array:
    """The standard normal distribution function."""
    from scipy.special import ndtr  # noqa: PLC0415 - scipy is imported only where it is used

    return np.asarray(ndtr(z))


def expit(z: Array) -> Array:
    """The logistic function."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))


def distances(first: Array, second: Array, unordered: Sequence[bool]) -> Array:
    """Squared distances for each parameter (parameters × first × second): 0 or 1 where a parameter has no order."""
    parts = []
    for column, categorical in enumerate(unordered):
        a, b = first[:, column, None], second[None, :, column]
        parts.append((a != b).astype(float) if categorical else np.square(a - b))
    return np.array(parts).reshape(len(unordered), len(first), len(second))


def _matern(squared: Array) -> Array:
    r = np.sqrt(squared)
    return np.asarray((1.0 + _SQRT5 * r + 5.0 / 3.0 * squared) * np.exp(-_SQRT5 * r))


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """Logarithms of inverse lengths (one a parameter), amplitude and noise, in units of the standardised target."""

    inverse_lengths: tuple[float, ...]
    amplitude: float
    noise: float

    @classmethod
    def usual(cls, parameters: int, *, trend: bool) -> Hyper:
        """The centre of the priors: lengths grow with the root of the dimension; with a trend little is left for f."""
        inverse = -math.log(0.5 * math.sqrt(max(parameters, 1)))
        return cls(
            inverse_lengths=(inverse,) * parameters, amplitude=math.log(0.8 if trend else 1.0), noise=math.log(0.1)
        )


class Regression:
    """A fitted process. ``x`` are encoded configurations, ``y`` the target, ``trends`` what was predicted for ``x``.

    ``doubt`` multiplies the noise of each observation (fewer items, more noise). ``hyper`` skips the fit. ``rough`` is
    how far the trends are usually off; without it, ``scale`` is the size of a usual difference until three were seen.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        *,
        unordered: Sequence[bool],
        trends: Array | None = None,
        doubt: Array | None = None,
        hyper: Hyper | None = None,
        scale: float = 0.3,
        rough: float | None = None,
    ) -> None:
        self._x = x
        self._unordered = tuple(unordered)
        self._trends = trends if trends is not None and trends.size else np.zeros((len(y), 0))
        self._doubt = np.ones(len(y)) if doubt is None else doubt
        spread = float(np.std(y - self._trends.sum(axis=1))) if len(y) > 2 else scale  # noqa: PLR2004 - a spread needs 3
        self.scale = max(rough if rough is not None else spread, 1e-3)
        self._middle = float(np.mean(y - self._trends.sum(axis=1))) if len(y) else 0.0
        self._target = (y - self._trends.sum(axis=1) - self._middle) / self.scale
        self._trend_middle = self._trends.mean(axis=0) if self._trends.size else np.zeros(self._trends.shape[1])
        self._distances = distances(x, x, self._unordered)
        usual = Hyper.usual(x.shape[1], trend=self._trends.shape[1] > 0)
        self.hyper = hyper if hyper is not None else self._fit(usual)
        self._factor, self._solved, self.evidence = self._posterior(self.hyper)

    # ── predicting ─────────────────────────────────────────────────────────────────────────────────────────────────

    def predict(self, x: Array, *, trends: Array | None = None) -> tuple[Array, Array]:
        """Mean and standard deviation of the noise-free value."""
        mean, across, trend = self._mean(x, trends)
        half = np.linalg.solve(self._factor, across.T)
        own = math.exp(2 * self.hyper.amplitude) + _CONSTANT_VARIANCE + _TREND_VARIANCE * np.square(trend).sum(axis=1)
        variance = np.maximum(own - np.square(half).sum(axis=0), 1e-10)
        return mean, np.sqrt(variance) * self.scale

    def joint(self, x: Array, *, trends: Array | None = None) -> tuple[Array, Array]:
        """Mean and covariance of the noise-free values."""
        mean, across, trend = self._mean(x, trends)
        half = np.linalg.solve(self._factor, across.T)
        own = self._kernel(self.hyper, distances(x, x, self._unordered)) + _TREND_VARIANCE * trend @ trend.T
        return mean, (own + _CONSTANT_VARIANCE - half.T @ half) * self.scale**2

    def _mean(self, x: Array, trends: Array | None) -> tuple[Array, Array, Array]:
        given = trends if trends is not None and trends.size else np.zeros((len(x), self._trends.shape[1]))
        trend = (given - self._trend_middle) / self.scale
        own = (self._trends - self._trend_middle) / self.scale
        across = self._kernel(self.hyper, distances(x, self._x, self._unordered)) + _CONSTANT_VARIANCE
        across += _TREND_VARIANCE * trend @ own.T
        return given.sum(axis=1) + self._middle + self.scale * (across @ self._solved), across, trend

    @property
    def foresight(self) -> float:
        """The logarithm of the density of each observation, foretold from all others, summed (Rasmussen 5.12)."""
        inverse = np.linalg.inv(self._factor)
        precision = np.square(inverse).sum(axis=0)
        errors = self._solved / precision
        densities = 0.5 * (np.log(precision) - np.square(errors) * precision - math.log(2 * math.pi))
        return float(densities.sum()) - len(self._target) * math.log(self.scale)

    # ── fitting ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _kernel(self, hyper: Hyper, parts: Array) -> Array:
        weights = np.exp(2 * np.array(hyper.inverse_lengths))
        return np.asarray(math.exp(2 * hyper.amplitude) * _matern(np.tensordot(weights, parts, axes=1)))

    def _covariance(self, hyper: Hyper) -> Array:
        trend = (self._trends - self._trend_middle) / self.scale
        covariance = self._kernel(hyper, self._distances) + _CONSTANT_VARIANCE + _TREND_VARIANCE * trend @ trend.T
        covariance[np.diag_indices_from(covariance)] += math.exp(2 * hyper.noise) * np.square(self._doubt) + _JITTER
        return covariance

    def _posterior(self, hyper: Hyper) -> tuple[Array, Array, float]:
        factor: Array = np.asarray(np.linalg.cholesky(self._covariance(hyper)), dtype=np.float64)
        solved: Array = np.asarray(np.linalg.solve(factor.T, np.linalg.solve(factor, self._target)), dtype=np.float64)
        evidence = -0.5 * float(self._target @ solved) - float(np.log(np.diag(factor)).sum())
        return factor, solved, evidence - 0.5 * len(self._target) * math.log(2 * math.pi)

    def _fit(self, usual: Hyper) -> Hyper:
        if len(self._target) < 3:  # noqa: PLR2004 - two points say nothing about lengths
            return usual
        centre = np.array([*usual.inverse_lengths, usual.amplitude, usual.noise])
        widths = np.array([1.0] * len(usual.inverse_lengths) + [0.7, 1.0])
        lowest = np.array([-4.0] * len(centre))
        highest = np.array([3.5] * len(usual.inverse_lengths) + [2.0, 1.0])

        def loss(point: Array) -> tuple[float, Array]:
            value, slope = self._loss(_hyper(point))
            pull = (point - centre) / widths
            return value + 0.5 * float(pull @ pull), slope + pull / widths

        return _hyper(_descend(loss, centre, lowest, highest))

    def _loss(self, hyper: Hyper) -> tuple[float, Array]:
        """The negative logarithm of the evidence, and its slope in each logarithm."""
        count = len(hyper.inverse_lengths)
        factor, solved, evidence = self._posterior(hyper)
        inverse = np.linalg.inv(factor)
        outer = np.outer(solved, solved) - inverse.T @ inverse
        weights = np.exp(2 * np.array(hyper.inverse_lengths))
        squared = np.tensordot(weights, self._distances, axes=1)
        r = np.sqrt(squared)
        amplitude = math.exp(2 * hyper.amplitude)
        falling = -amplitude * (5.0 / 3.0) * (1.0 + _SQRT5 * r) * np.exp(-_SQRT5 * r) * outer
        slope = np.empty(count + 2)
        slope[:count] = 0.5 * weights * np.tensordot(self._distances, falling, axes=([1, 2], [0, 1]))
        slope[count] = amplitude * float((_matern(squared) * outer).sum())
        slope[count + 1] = math.exp(2 * hyper.noise) * float(np.square(self._doubt) @ np.diag(outer))
        return -evidence, -slope


def _descend(
    loss: Callable[[Array], tuple[float, Array]], start: Array, lowest: Array, highest: Array, *, steps: int = 40
) -> Array:
    """Resilient descent (iRprop−): each logarithm has its own step, longer while its slope keeps its sign.

    A dozen parameters need no curvature, and no solver that takes longer to import than to run.
    """
    point, best, best_value = start, start, math.inf
    size = np.full(len(start), 0.3)
    before = np.zeros(len(start))
    for _ in range(steps):
        value, slope = loss(point)
        if value < best_value:
            best, best_value = point, value
        agree = slope * before
        size = np.clip(np.where(agree > 0, size * 1.2, np.where(agree < 0, size * 0.5, size)), 1e-3, 1.0)
        before = np.where(agree < 0, 0.0, slope)
        point = np.clip(point - np.sign(before) * size, lowest, highest)
        if size.max() < 0.02:  # noqa: PLR2004 - hundredths of a logarithm change no decision
            break
    return best


def _hyper(point: Array) -> Hyper:
    return Hyper(inverse_lengths=tuple(map(float, point[:-2])), amplitude=float(point[-2]), noise=float(point[-1]))


class Classifier:
    """The probability that a configuration runs, from what ran and what did not (Laplace's approximation).

    ``prior`` is the logit believed before anything ran, one for each row.
    """

    def __init__(
        self, x: Array, ran: Array, prior: Array, *, unordered: Sequence[bool], amplitude: float = 5.0
    ) -> None:
        self._x = x
        self._unordered = tuple(unordered)
        self._weight = 1.0 / (0.5 * math.sqrt(max(x.shape[1], 1))) ** 2
        self._amplitude = amplitude
        kernel = self._kernel(x) + _JITTER * np.eye(len(x))
        latent = self._mode(kernel, ran, prior)
        likely = expit(prior + latent)
        self._pull = ran - likely
        self._root = np.sqrt(np.maximum(likely * (1 - likely), 1e-6))
        self._factor = np.linalg.cholesky(np.eye(len(x)) + self._root[:, None] * kernel * self._root[None, :])

    @staticmethod
    def _mode(kernel: Array, ran: Array, prior: Array) -> Array:
        """The most probable latent values: Newton's steps, halved until they improve."""

        def height(pull: Array, latent: Array) -> float:
            logit = prior + latent
            return float((ran * logit - np.logaddexp(0.0, logit)).sum() - 0.5 * pull @ latent)

        latent, weights = np.zeros(len(ran)), np.zeros(len(ran))
        reached = height(weights, latent)
        for _ in range(30):
            likely = expit(prior + latent)
            curve = np.maximum(likely * (1 - likely), 1e-6)
            root = np.sqrt(curve)
            factor = np.linalg.cholesky(np.eye(len(ran)) + root[:, None] * kernel * root[None, :])
            step = curve * latent + (ran - likely)
            inner = np.linalg.solve(factor, root * (kernel @ step))
            aimed = step - root * np.linalg.solve(factor.T, inner)
            for share in (1.0, 0.5, 0.25, 0.125, 0.06, 0.03):
                tried = weights + share * (aimed - weights)
                now = height(tried, kernel @ tried)
                if now > reached:
                    break
            else:
                return latent
            gained, reached = now - reached, now
            weights, latent = tried, kernel @ tried
            if gained < 1e-6:  # noqa: PLR2004 - converged
                break
        return latent

    def _kernel(self, x: Array) -> Array:
        squared = self._weight * distances(x, self._x, self._unordered).sum(axis=0)
        return np.asarray(self._amplitude**2 * _matern(squared))

    def predict(self, x: Array, prior: Array) -> Array:
        """The probability that each row runs."""
        across = self._kernel(x)
        half = np.linalg.solve(self._factor, (self._root * across).T)
        variance = np.maximum(self._amplitude**2 - np.square(half).sum(axis=0), 0.0)
        # MacKay's correction: an uncertain logit is worth less
        return expit((prior + across @ self._pull) / np.sqrt(1.0 + math.pi / 8.0 * variance))
