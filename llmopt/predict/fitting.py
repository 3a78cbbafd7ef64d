"""The constants of a class of architectures from measured rows: robust, and held near what was believed before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmopt.predict.devices import DeviceSpec
from llmopt.predict.physics import Constants, output_token_seconds
from llmopt.predict.work import Work

__all__ = ["LOCAL_STRENGTH", "PRIORS", "Measured", "Seconds", "fit_constants", "prior_of", "stiffness_of"]

Array: TypeAlias = NDArray[np.float64]
_SOFT = 0.2
"""Log errors beyond this count by their size, not by its square: one odd row must not bend the constants."""
PRIORS: Mapping[str, Constants] = MappingProxyType(
    {
        "dense": Constants(bandwidth_share=0.85, compute_share=0.65, interference=1.3),
        "mixture": Constants(bandwidth_share=0.8, compute_share=0.3, interference=2.0, layer_s=80e-6),
        "cpu": Constants(bandwidth_share=0.7, compute_share=0.2, interference=1.0, layer_s=20e-6, sequence_s=2e-4),
    }
)
"""What is believed of a class before any row is seen: experts' small matrices reach a smaller share of the peak, and
the quantised kernels of a CPU a smaller share still of what its matrix products of floats reach."""
LOCAL_STRENGTH = 2.0
"""The pull of the prior where a machine's own few runs are fitted."""
_STIFFNESS = np.array([10.0, 10.0, 1.0, 1.0, 3.0, 1.0, 1.0])
"""Shares of a peak are known beforehand to a fifth or so (and stay below 1), waits only to an order of magnitude."""
_CPU_STIFFNESS = np.array([10.0, 0.5, 1.0, 1.0, 3.0, 1.0, 1.0])
"""Which kernel computes on a CPU depends on the weights and on its instructions: a factor of several."""
_STEP = 1e-4
_ROUNDS = 60
_SMALLEST_GAIN = 1e-7


Seconds: TypeAlias = Callable[[Work, DeviceSpec, Constants], float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measured row: the time (per output token, unless said otherwise) that ``work`` took on ``spec``."""

    work: Work
    spec: DeviceSpec
    seconds: float


def prior_of(family: str, *, mixture: bool) -> Constants:
    """What is believed of a device family and class before any of its rows is seen."""
    return PRIORS["cpu"] if family == "cpu" else PRIORS["mixture" if mixture else "dense"]


def stiffness_of(family: str) -> Array:
    """How firmly each constant of ``prior_of`` is believed, in units of its logarithm."""
    return _CPU_STIFFNESS if family == "cpu" else _STIFFNESS


def fit_constants(
    rows: Sequence[Measured],
    prior: Constants,
    *,
    strength: float = 0.5,
    stiffness: Array | None = None,
    seconds_of: Seconds = output_token_seconds,
) -> Constants:
    """Constants that explain ``rows``, each pulled towards ``prior`` by ``strength`` (in units of its logarithm).

    ``stiffness`` says how much each is pulled beside the others (a GPU's where not given, see ``stiffness_of``).
    ``seconds_of`` is what the rows' seconds are of: an output token, or a whole answer.
    Levenberg-Marquardt on logarithms, so that every constant stays positive; deterministic.
    """
    if not rows:
        return prior
    target = np.log([row.seconds for row in rows])
    centre = np.log(prior.values())
    pulls = strength * (_STIFFNESS if stiffness is None else stiffness)

    def errors_at(point: Array) -> Array:
        """Softened log errors of the rows, then the pulls towards the prior."""
        constants = Constants(*np.exp(point))
        error = np.log([seconds_of(row.work, row.spec, constants) for row in rows]) - target
        soft = np.sign(error) * _SOFT * np.sqrt(2 * (np.sqrt(1 + (error / _SOFT) ** 2) - 1))
        return np.concatenate([soft, pulls * (point - centre)])

    point, damping = centre.copy(), 1e-2
    error = errors_at(point)
    for _ in range(_ROUNDS):
        slope = np.stack([(errors_at(point + shift) - error) / _STEP for shift in np.eye(len(point)) * _STEP], axis=1)
        normal, pull = slope.T @ slope, slope.T @ error
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-12), pull)
        candidate = point - np.clip(step, -1.0, 1.0)
        changed = errors_at(candidate)
        gain = float(error @ error - changed @ changed)
        if gain > 0:
            point, error, damping = candidate, changed, max(damping / 3, 1e-6)
            if gain < _SMALLEST_GAIN * float(error @ error):
                break
        else:
            damping *= 4
    return Constants(*(float(value) for value in np.exp(point)))
