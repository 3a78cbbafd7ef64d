"""How much a trial is expected to improve what is known: for one goal, and for a set of trade-offs."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from llmopt.search.gaussian import normal_cdf

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

__all__ = ["expected_hypervolume", "expected_improvement", "hypervolume", "non_dominated"]


def expected_improvement(mean: Array, spread: Array, best: float) -> Array:
    """E[max(Y − best, 0)] for normal Y."""
    spread = np.maximum(spread, 1e-12)
    z = (mean - best) / spread
    density = np.exp(-0.5 * np.square(z)) / math.sqrt(2 * math.pi)
    return np.maximum(spread * (z * normal_cdf(z) + density), 0.0)


def non_dominated(gains: Array) -> Array:
    """The rows that no other row is at least as good as everywhere (more is better); of equal rows one stays."""
    unique = np.unique(gains, axis=0)
    keep = [row for row in unique if not np.any(np.all(unique >= row, axis=1) & np.any(unique > row, axis=1))]
    return np.array(keep).reshape(len(keep), gains.shape[1])


def _cells(front: Array, reference: Array) -> tuple[list[Array], NDArray[np.bool_]]:
    """A grid through the front's coordinates, and which of its cells the front does not dominate."""
    edges = [np.unique(np.concatenate(([reference[d]], front[:, d]))) for d in range(front.shape[1])]
    # the last cell of each dimension has no end
    uppers = [np.append(edge[1:], np.inf) for edge in edges]
    shape = tuple(len(edge) for edge in edges)
    free = np.ones(shape, dtype=bool)
    for point in front:
        inside = [np.asarray(uppers[d] <= point[d]) for d in range(len(edges))]
        free[np.ix_(*inside)] = False
    return edges, free


def expected_hypervolume(mean: Array, spread: Array, front: Array, reference: Array) -> Array:
    """The expected gain in hypervolume above ``reference`` for independent normal objectives, exactly.

    The part not yet dominated is cut into cells by the front's coordinates; in each, the expected covered volume is a
    product over objectives of differences of expected improvements.
    """
    above = front[np.all(front > reference, axis=1)]
    edges, free = _cells(non_dominated(above) if len(above) else above, reference)
    parts = []
    for d, edge in enumerate(edges):
        reached = np.array([expected_improvement(mean[:, d], spread[:, d], float(low)) for low in edge])
        parts.append(reached - np.vstack([reached[1:], np.zeros((1, reached.shape[1]))]))
    total = np.zeros(len(mean))
    last = parts[-1]
    for index in itertools.product(*(range(n) for n in free.shape[:-1])):
        row = free[index].astype(float) @ last
        for d, place in enumerate(index):
            row = row * parts[d][place]
        total += row
    return total


def hypervolume(gains: Array, reference: Array) -> float:
    """The volume above ``reference`` that the rows dominate (more is better)."""
    above = gains[np.all(gains > reference, axis=1)]
    if not len(above):
        return 0.0
    front = non_dominated(above)
    edges, free = _cells(front, reference)
    widths = [np.append(np.diff(edge), 0.0) for edge in edges]
    volume = np.where(free, 0.0, 1.0)
    for d, width in enumerate(widths):
        shape = [1] * len(widths)
        shape[d] = len(width)
        volume = volume * width.reshape(shape)
    return float(volume.sum())
