"""What the physics leaves unexplained, learned from runs of the same model, device and engine: a Gaussian process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEATURE_SCALES", "NOISE", "Residual"]

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
"""How far apart two runs are before one says little of the other, by feature; those not listed are settings."""
_AMPLITUDE = 0.2
"""Of the residual that varies within a cell, in log units; likewise the shift the cell's runs share, and the noise."""
_SHARED = 0.2
NOISE = 0.06
_EFFECT = 0.15
"""Of one setting that the physics does not see (a feature without a scale above), whatever the others are."""
_COUNT_SCALE, _SWITCH_SCALE = 2.0, 0.5
"""How far apart such a setting's values are before one says little of the other: a logarithm of a count, a switch."""
_BELIEVED_AS = 6.0
"""The amplitudes above count as this many runs: a cell whose runs scatter more, or less, widens or narrows them."""


class Residual:
    """log(measured / predicted) as a function of a run's features; without runs it is zero with the full spread.

    Settings that the physics does not see act mostly each by itself, as factors: what one run shows of a larger batch
    holds beside any cache type. So each of them has an effect of its own, beside what their combination does.

    Amplitudes and scales were chosen on measured serving rows of seven models by leaving each out in turn: with them
    nine in ten of the others lie inside the 90 % interval after 1, 3, 5, 10 and 20 runs; those of single settings on
    llama.cpp runs (``benchmarks/local_prediction.py``, the part that is not scored).
    """

    def __init__(
        self, features: Sequence[Mapping[str, float]], log_ratios: Sequence[float], *, noise: float = NOISE
    ) -> None:
        self._noise = noise
        self._names = sorted({name for row in features for name in row})
        self._rows = self._encode(features)
        self._weights = np.zeros(0)
        self._scale = 1.0
        # a setting that was the same in all runs says nothing of its effect; the shared shift has it
        varied = (self._rows != self._rows[:1]).any(axis=0) if len(features) else np.zeros(len(self._names), dtype=bool)
        self._settings = np.array([name not in FEATURE_SCALES for name in self._names], dtype=bool)
        self._effects = self._settings & varied
        if len(features):
            kernel = self._kernel(self._rows, self._rows) + noise**2 * np.eye(len(features))
            self._factor = np.linalg.cholesky(kernel)
            ratios = np.asarray(log_ratios, dtype=float)
            self._weights = self._solve(ratios)
            seen = float(ratios @ self._weights)
            self._scale = float(np.sqrt((_BELIEVED_AS + seen) / (_BELIEVED_AS + len(ratios))))

    def at(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Mean and standard deviation of the log ratio of one more run with these features, its own noise included."""
        prior = _AMPLITUDE**2 + _SHARED**2 + self._noise**2
        if not len(self._weights):
            return 0.0, float(np.sqrt(prior))
        row = self._encode([features])
        across = self._kernel(row, self._rows)[0]
        known = np.linalg.solve(self._factor, across)
        unseen = self._settings & ~self._effects & (row[0] != self._rows[0])
        new = [name for name, value in features.items() if value and name not in (*self._names, *FEATURE_SCALES)]
        prior += _EFFECT**2 * (int(self._effects.sum()) + int(unseen.sum()) + len(new))
        variance = max(prior - float(known @ known), self._noise**2)
        return float(across @ self._weights), self._scale * float(np.sqrt(variance))

    def _encode(self, features: Sequence[Mapping[str, float]]) -> Array:
        rows = [[row.get(name, 0.0) / _scale_of(name) for name in self._names] for row in features]
        return np.asarray(rows, dtype=float).reshape(len(features), len(self._names))

    def _kernel(self, left: Array, right: Array) -> Array:
        apart = (left[:, None, :] - right[None, :, :]) ** 2
        together = _AMPLITUDE**2 * np.exp(-apart.sum(axis=2) / 2)
        alone = _EFFECT**2 * np.exp(-apart[:, :, self._effects] / 2).sum(axis=2)
        return np.asarray(_SHARED**2 + together + alone, dtype=np.float64)

    def _solve(self, values: Array) -> Array:
        return np.linalg.solve(self._factor.T, np.linalg.solve(self._factor, values))


def _scale_of(name: str) -> float:
    return FEATURE_SCALES.get(name) or (_COUNT_SCALE if name.startswith("log2_") else _SWITCH_SCALE)
