"""Several comparisons at once: what one is picked from must be paid for."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["holm", "joint_confidence"]


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values (1979), in the order given."""
    number = len(p_values)
    adjusted = [0.0] * number
    largest = 0.0
    for rank, k in enumerate(sorted(range(number), key=lambda k: p_values[k])):
        largest = max(largest, min((number - rank) * p_values[k], 1.0))
        adjusted[k] = largest
    return tuple(adjusted)


def joint_confidence(comparisons: int, *, confidence: float = 0.95) -> float:
    """The confidence each of ``comparisons`` intervals needs so that all hold together (Bonferroni)."""
    if comparisons < 1:
        raise ValueError("there is at least one comparison")
    return 1 - (1 - confidence) / comparisons
