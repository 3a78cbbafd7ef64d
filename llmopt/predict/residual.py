"""What the physics leaves unexplained, learned from runs of the same model, device and engine: a Gaussian process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEATURE_SCALES", "Residual"]

Array: TypeAlias = NDArray[np.float64]
FEATURE_SCALES: Mapping[str, float] = {
    "log2_sequences": 2.5,
    "log2_prompt": 2.5,
    "log2_output": 2.5,
    "log2_tensor_parallel": 2.0,
    "log2_bits": 1.5,
    "log2_data_parallel": 2.0,
    "expert_parallel": 1.0,
}
"""How far apart two runs are before one says little of the other, by feature; features not listed have scale 1."""
_AMPLITUDE = 0.2
"""Of the residual that varies within a cell, in log units; likewise the shift the cell's runs share, and the noise."""
_SHARED = 0.2
_NOISE = 0.06
_BELIEVED_AS = 6.0
"""The amplitudes above count as this many runs: a cell whose runs scatter more, or less, widens or narrows them."""
_NORMAL = 1.645
"""The 95 % quantile of the normal distribution."""


def _wider(freedom: float) -> float:
    """The 95 % quantile of Student's distribution over the normal one: a scale learned from few runs is not known.

    Abramowitz and Stegun 26.7.5; within 0.3 % from 6 degrees of freedom on.
    """
    z = _NORMAL
    return 1 + ((z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)) / z


class Residual:
    """log(measured / predicted) as a function of a run's features; without runs it is zero with the full spread.

    Amplitudes and scales were chosen on measured serving rows of seven models by leaving each out in turn: with them
    nine in ten of the others lie inside the 90 % interval after 1, 3, 5, 10 and 20 runs.
    """

    def __init__(self, features: Sequence[Mapping[str, float]], log_ratios: Sequence[float]) -> None:
        self._names = sorted({name for row in features for name in row})
        self._rows = self._encode(features)
        self._weights = np.zeros(0)
        self._scale = 1.0
        if len(features):
            kernel = self._kernel(self._rows, self._rows) + _NOISE**2 * np.eye(len(features))
            self._factor = np.linalg.cholesky(kernel)
            ratios = np.asarray(log_ratios, dtype=float)
            self._weights = self._solve(ratios)
            seen = float(ratios @ self._weights)
            freedom = _BELIEVED_AS + len(ratios)
            self._scale = float(np.sqrt((_BELIEVED_AS + seen) / freedom)) * _wider(freedom)

    def at(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Mean and spread of the log ratio of one more run with these features, its own noise included.

        1.645 spreads are the half of a 90 % interval; the spread is a standard deviation where there are many runs.
        """
        prior = _AMPLITUDE**2 + _SHARED**2 + _NOISE**2
        if not len(self._weights):
            return 0.0, float(np.sqrt(prior))
        across = self._kernel(self._encode([features]), self._rows)[0]
        known = np.linalg.solve(self._factor, across)
        variance = max(prior - float(known @ known), _NOISE**2)
        return float(across @ self._weights), self._scale * float(np.sqrt(variance))

    def _encode(self, features: Sequence[Mapping[str, float]]) -> Array:
        rows = [[row.get(name, 0.0) / FEATURE_SCALES.get(name, 1.0) for name in self._names] for row in features]
        return np.asarray(rows, dtype=float).reshape(len(features), len(self._names))

    @staticmethod
    def _kernel(
        left: Array,
        right: Array,
    ) -> Array:
        apart = ((left[:, None, :] - right[None, :, :]) ** 2).sum(axis=2)
        return np.asarray(_SHARED**2 + _AMPLITUDE**2 * np.exp(-apart / 2), dtype=np.float64)

    def _solve(self, values: Array) -> Array:
        return np.linalg.solve(self._factor.T, np.linalg.solve(self._factor, values))
