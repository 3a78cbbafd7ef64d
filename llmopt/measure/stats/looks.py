"""Looking before all is measured, and stopping when it is decided: the looks are planned and each pays its share.

A classical interval that is looked at again and again excludes the truth far more often than it says. Here the moments
of looking are fixed beforehand and their shares of the error add up to 5 % (Bonferroni over looks, a case of alpha
spending: Lan and DeMets, 1983), so that stopping at any of them keeps the promise. The first look gets most: a clear
difference is then found as early as it would have been without further ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmopt.measure.stats.intervals import CONFIDENCE

__all__ = ["Look", "plan_looks"]


@dataclass(frozen=True, kw_only=True)
class Look:
    """One planned look: after how many samples, and the confidence of the intervals judged then."""

    after: int
    confidence: float


def plan_looks(first: int, most: int, *, confidence: float = CONFIDENCE) -> tuple[Look, ...]:
    """Looks after ``first`` samples and every doubling, the last at ``most``; one look where the two are equal.

    Each look spends half of the error that is left, the last one all of it. Raises ValueError for a first look beyond
    the last.
    """
    if not 1 <= first <= most:
        raise ValueError("the first look comes before the last")
    moments = [first]
    while moments[-1] < most:
        moments.append(min(2 * moments[-1], most))
    left, looks = 1 - confidence, []
    for number, after in enumerate(moments):
        spent = left if number == len(moments) - 1 else left / 2
        looks.append(Look(after=after, confidence=1 - spent))
        left -= spent
    return tuple(looks)
