"""Two groups of launches that were not measured in turns: a ratio with an interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from llmopt.measure.stats.intervals import CONFIDENCE, Interval
from llmopt.measure.stats.special import t_quantile

__all__ = ["ratio_of_groups"]


def ratio_of_groups(
    values_a: Sequence[float], values_b: Sequence[float], *, confidence: float = CONFIDENCE
) -> Interval:
    """Ratio of the geometric means of a and b with Welch's t interval (1947) of the logarithms.

    No bounds below two values in either group. Raises ValueError for an empty group or values that are not positive.
    """
    if not values_a or not values_b or any(value <= 0 for value in (*values_a, *values_b)):
        raise ValueError("a ratio needs positive values on both sides")
    logs = [[math.log(value) for value in group] for group in (values_a, values_b)]
    difference = statistics.fmean(logs[0]) - statistics.fmean(logs[1])
    if min(map(len, logs)) < 2:  # noqa: PLR2004 - one launch has no spread
        return Interval(math.exp(difference), None, None)
    errors = [statistics.variance(group) / len(group) for group in logs]
    error = sum(errors)
    if error == 0:
        return Interval(math.exp(difference), math.exp(difference), math.exp(difference))
    degrees = error**2 / sum(e**2 / (len(group) - 1) for e, group in zip(errors, logs, strict=True))
    half = t_quantile(0.5 + confidence / 2, degrees) * math.sqrt(error)
    return Interval(math.exp(difference), math.exp(difference - half), math.exp(difference + half))
