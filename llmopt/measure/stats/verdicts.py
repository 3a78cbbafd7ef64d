"""What a comparison may claim, and how many samples more it would take.

``better`` and ``worse``: the interval excludes no difference. ``equivalent``: it lies within the margin. ``tie``: no
difference can be told and a loss beyond the margin is excluded. ``undecided``: not even that, more samples are needed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

from llmopt.measure.stats.intervals import (
    CONFIDENCE,
    Interval,
    mean_interval,
    one_sided_quantile,
    proportion_interval,
)
from llmopt.measure.stats.many import joint_confidence
from llmopt.measure.stats.paired import mcnemar, paired_difference, ratio_of_pairs
from llmopt.measure.stats.unpaired import ratio_of_groups
from llmopt.records import Estimate, Score, Verdict, VerdictKind

__all__ = ["limit_of_estimate", "limit_verdict", "quality_verdict", "speed_verdict", "unpaired_speed_verdict"]

QUALITY_MARGIN = 0.02
SPEED_MARGIN = 0.05
MIN_PAIRS = 4
MIN_ITEMS = 6
"""Five items that all agree would not exclude chance."""
Scores = Sequence[Score] | Mapping[str, float]


def quality_verdict(
    scores_a: Scores,
    scores_b: Scores,
    *,
    margin: float = QUALITY_MARGIN,
    clusters: Mapping[str, Hashable] | None = None,
    comparisons: int = 1,
    confidence: float = CONFIDENCE,
    objective: str = "accuracy",
) -> Verdict:
    """Is ``a`` better than ``b`` on the items both were asked? The effect is the difference a - b, paired by item.

    Repeats of an item (several seeds) are averaged first; answers that failed for technical reasons drop their item.
    ``clusters`` maps items to their template or passage. ``comparisons``: how many share the error that ``confidence``
    leaves; a planned look (``looks``) has a confidence of its own.
    """
    first, second = _by_item(scores_a), _by_item(scores_b)
    items = [item for item in first if item in second]
    differences = [first[item] - second[item] for item in items]
    labels = [clusters.get(item, item) if clusters else item for item in items]
    joint = joint_confidence(comparisons, confidence=confidence)
    more: int | None = None
    if len(set(labels)) < MIN_ITEMS:
        value = statistics.fmean(differences) if differences else 0.0
        effect = Estimate(value=value, unit="difference", n=len(items))
        more = lacking = MIN_ITEMS - len(set(labels))
        if items:  # so many make a verdict possible; to reach one probably takes more
            rough, _ = paired_difference(differences, clusters=labels, confidence=joint)
            more = max(lacking, _more(rough, len(items), margin, all_equal=not any(differences)) or 0)
        return _verdict(VerdictKind.UNDECIDED, objective, effect, method="too few items", more=more)
    interval, method = paired_difference(differences, clusters=labels, confidence=joint)
    effect = Estimate(
        value=interval.value, unit="difference", n=len(items), low=interval.low, high=interval.high, method=method
    )
    kind = _kind(interval, zero=0.0, worst=-margin, best=margin)
    if kind in {VerdictKind.UNDECIDED, VerdictKind.TIE}:
        more = _more(interval, len(items), margin, all_equal=not any(differences))
    return _verdict(kind, objective, effect, method=_with_mcnemar(method, differences, items, labels), more=more)


def speed_verdict(
    values_a: Sequence[float],
    values_b: Sequence[float],
    *,
    margin: float = SPEED_MARGIN,
    higher_is_better: bool = True,
    comparisons: int = 1,
    confidence: float = CONFIDENCE,
    objective: str = "answers_per_minute",
) -> Verdict:
    """Is ``a`` faster than ``b``? One value a launch, in pairs (ABBA blocks); the effect is the ratio a / b.

    Fewer than four pairs are undecided. ``comparisons`` and ``confidence`` as in ``quality_verdict``.
    """
    n = len(values_a)
    if n != len(values_b):
        raise ValueError("launches are compared in pairs: leave out the partner of a launch that failed")
    interval = (
        ratio_of_pairs(values_a, values_b, confidence=joint_confidence(comparisons, confidence=confidence))
        if n
        else None
    )
    reach = math.log1p(margin)
    if interval is None or n < MIN_PAIRS:
        effect = Estimate(value=interval.value if interval else 1.0, unit="ratio", n=n)
        lacking = MIN_PAIRS - n
        probable = _more(_logs(interval), n, reach) if interval is not None else None
        kind, method = VerdictKind.UNDECIDED, "too few launches"
        return _verdict(kind, objective, effect, relative=True, method=method, more=max(lacking, probable or 0))
    method = "log-ratio t over launches"
    effect = Estimate(value=interval.value, unit="ratio", n=n, low=interval.low, high=interval.high, method=method)
    logs = _logs(interval if higher_is_better else _turned(interval))
    kind = _kind(logs, zero=0.0, worst=-reach, best=reach)
    more = _more(logs, n, reach) if kind in {VerdictKind.UNDECIDED, VerdictKind.TIE} else None
    return _verdict(kind, objective, effect, relative=True, method=method, more=more)


def unpaired_speed_verdict(
    values_a: Sequence[float],
    values_b: Sequence[float],
    *,
    margin: float = SPEED_MARGIN,
    comparisons: int = 1,
    confidence: float = CONFIDENCE,
    objective: str = "answers_per_minute",
) -> Verdict:
    """Is ``a`` faster than ``b``, where the launches of ``b`` were measured at another time?

    The effect is the ratio a / b. Weaker than pairs: what changed on the machine between the two days is in it.
    """
    n = min(len(values_a), len(values_b))
    interval = ratio_of_groups(values_a, values_b, confidence=joint_confidence(comparisons, confidence=confidence))
    if interval.low is None or interval.high is None:
        effect = Estimate(value=interval.value, unit="ratio", n=n)
        kind, method = VerdictKind.UNDECIDED, "too few launches"
        return _verdict(kind, objective, effect, relative=True, method=method, more=max(2 - n, 1))
    method = "log-ratio Welch t over launches"
    effect = Estimate(value=interval.value, unit="ratio", n=n, low=interval.low, high=interval.high, method=method)
    logs, reach = _logs(interval), math.log1p(margin)
    kind = _kind(logs, zero=0.0, worst=-reach, best=reach)
    more = _more(logs, n, reach) if kind in {VerdictKind.UNDECIDED, VerdictKind.TIE} else None
    return _verdict(kind, objective, effect, relative=True, method=method, more=more)


def limit_verdict(
    values: Sequence[float],
    limit: float,
    *,
    below: bool,
    quantile: float | None = None,
    proportion: bool = False,
    clusters: Sequence[Hashable] | None = None,
    objective: str = "",
) -> Verdict:
    """Is a limit met? BETTER: its one-sided 95 % bound meets it; WORSE: the other bound breaks it; else UNDECIDED.

    ``values`` are launches (or requests) whose mean is limited, requests whose ``quantile`` is limited, or 0..1
    scores (``proportion``). ``below``: the limit is an upper one. The effect's bounds are one-sided 95 % each.
    """
    n = len(values)
    if n == 0:
        return _limit(Interval(math.nan, None, None), limit, below=below, n=0, objective=objective, method="no values")
    both = 2 * CONFIDENCE - 1  # two one-sided bounds of 95 % are a two-sided interval of 90 %
    needed = MIN_PAIRS
    if quantile is not None:
        interval, method = one_sided_quantile(sorted(values), quantile), "order statistics, one-sided"
        needed = math.ceil(math.log(1 - CONFIDENCE) / math.log(quantile if below else 1 - quantile))
    elif proportion:
        interval, method = proportion_interval(values, clusters=clusters, confidence=both), "Wilson, one-sided"
    else:
        interval, method = mean_interval(values, clusters=clusters, confidence=both), "t, one-sided"
    verdict = _limit(interval, limit, below=below, n=n, objective=objective, method=method)
    if verdict.kind is VerdictKind.UNDECIDED and verdict.more_samples is None and n < needed:
        return replace(verdict, more_samples=needed - n)
    return verdict


def limit_of_estimate(estimate: Estimate, limit: float, *, below: bool, objective: str = "") -> Verdict:
    """The same from a finished estimate; its two-sided 95 % bounds are used, which is stricter."""
    interval = Interval(estimate.value, estimate.low, estimate.high)
    return _limit(interval, limit, below=below, n=estimate.n, objective=objective, method=estimate.method)


def _limit(interval: Interval, limit: float, *, below: bool, n: int, objective: str, method: str) -> Verdict:
    good, bad = (interval.high, interval.low) if below else (interval.low, interval.high)
    kind, more = VerdictKind.UNDECIDED, None
    if good is not None and (good <= limit if below else good >= limit):
        kind = VerdictKind.BETTER
    elif bad is not None and (bad > limit if below else bad < limit):
        kind = VerdictKind.WORSE
    elif good is not None and interval.value != limit:
        more = max(math.ceil(n * ((abs(good - interval.value) / abs(interval.value - limit)) ** 2 - 1)), 1)
    effect = Estimate(value=interval.value, unit="", n=n, low=interval.low, high=interval.high, method=method)
    return _verdict(kind, objective, effect, method=method, more=more)


def _by_item(scores: Scores) -> dict[str, float]:
    if isinstance(scores, Mapping):
        return dict(scores)
    repeats: dict[str, list[float]] = {}
    for score in scores:
        if score.counted:
            repeats.setdefault(score.item_id, []).append(score.value)
    return {item: statistics.fmean(values) for item, values in repeats.items()}


def _kind(interval: Interval, *, zero: float, worst: float, best: float) -> VerdictKind:
    if interval.low is None or interval.high is None:
        return VerdictKind.UNDECIDED
    if interval.low > zero:
        return VerdictKind.BETTER
    if interval.high < zero:
        return VerdictKind.WORSE
    if worst < interval.low and interval.high < best:
        return VerdictKind.EQUIVALENT
    return VerdictKind.TIE if interval.low > worst else VerdictKind.UNDECIDED


def _more(interval: Interval, n: int, margin: float, *, all_equal: bool = False) -> int | None:
    """Further samples after which the interval would probably exclude zero, or lie within the margin.

    Its half narrows with the root of n; with n itself where no item differs and only the two pseudo items spread.
    """
    if interval.low is None or interval.high is None:
        return None
    half = (interval.high - interval.low) / 2
    distance = max(abs(interval.value), margin - abs(interval.value))
    if half == 0 or distance <= 0:
        return None
    return max(math.ceil(n * (half / distance) ** (1 if all_equal else 2)) - n, 1)


def _with_mcnemar(method: str, differences: Sequence[float], items: Sequence[str], labels: Sequence[Hashable]) -> str:
    """Name the p-value too where the items are independent 0/1 answers."""
    if list(items) != list(labels) or any(value not in {-1, 0, 1} for value in differences):
        return method
    p = mcnemar(sum(d > 0 for d in differences), sum(d < 0 for d in differences))
    return f"{method}; McNemar mid-p {p:.3g}"


def _logs(interval: Interval) -> Interval:
    low = None if interval.low is None else math.log(interval.low)
    return Interval(math.log(interval.value), low, None if interval.high is None else math.log(interval.high))


def _turned(interval: Interval) -> Interval:
    low = None if interval.high is None else 1 / interval.high
    return Interval(1 / interval.value, low, None if interval.low is None else 1 / interval.low)


def _verdict(
    kind: VerdictKind,
    objective: str,
    effect: Estimate,
    *,
    relative: bool = False,
    method: str = "",
    more: int | None = None,
) -> Verdict:
    return Verdict(kind=kind, objective=objective, effect=effect, relative=relative, method=method, more_samples=more)
