"""Intervals, tests and verdicts: what numbers allow to be said."""

from llmopt.measure.stats.intervals import (
    Interval,
    clopper_pearson,
    mean_interval,
    one_sided_quantile,
    proportion_interval,
    quantile,
    quantile_interval,
    ratio_interval,
    smallest_n,
    wilson,
)
from llmopt.measure.stats.looks import Look, plan_looks
from llmopt.measure.stats.many import holm, joint_confidence
from llmopt.measure.stats.paired import (
    abba,
    bootstrap_difference,
    mcnemar,
    paired_difference,
    pairs_needed,
    ratio_of_pairs,
)
from llmopt.measure.stats.verdicts import limit_of_estimate, limit_verdict, quality_verdict, speed_verdict

__all__ = [
    "Interval",
    "Look",
    "abba",
    "bootstrap_difference",
    "clopper_pearson",
    "holm",
    "joint_confidence",
    "limit_of_estimate",
    "limit_verdict",
    "mcnemar",
    "mean_interval",
    "one_sided_quantile",
    "paired_difference",
    "pairs_needed",
    "plan_looks",
    "proportion_interval",
    "quality_verdict",
    "quantile",
    "quantile_interval",
    "ratio_interval",
    "ratio_of_pairs",
    "smallest_n",
    "speed_verdict",
    "wilson",
]
