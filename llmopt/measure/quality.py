"""Quality of answers: every stored sample scored with a status and the rule that fired; nothing is generated again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmopt.measure.answers.reply import read_reply
from llmopt.measure.answers.status import STATED, early_status, late_status
from llmopt.measure.evaluators.base import Evaluator, Scorer
from llmopt.measure.evaluators.registry import scorer_for
from llmopt.measure.stats.intervals import proportion_interval
from llmopt.records import AnswerStatus, Dataset, Estimate, Item, Sample, Score

__all__ = [
    "Evaluator",
    "LevelReport",
    "Scorer",
    "by_item",
    "level_report",
    "quality",
    "score",
    "score_run",
    "status_rates",
]

_HANGUL = re.compile("[가-힣]")
_ANY_LANGUAGE = frozenset(("json", "instructions", "lm_eval"))
"""Scorers whose answers may rightly be in another language than the question."""
_SATURATED_HIGH = 0.95
_SATURATED_LOW = 0.05


def score(item: Item, sample: Sample, *, scorer: Scorer | None = None, language: str | None = None) -> Score:
    """The score of one sample, from its stored text alone.

    ``scorer`` replaces the one of the item's kind (an ``Agreement`` for open questions). A cut-off reply scores only by
    an answer it stated explicitly; a failed request has ``counted`` False and belongs in no average.
    """
    reply = read_reply(sample.text)
    status = early_status(sample, reply)
    if status in (AnswerStatus.REQUEST_ERROR, AnswerStatus.EMPTY):
        return Score(item_id=item.id, value=0.0, status=status)
    judge = scorer or scorer_for(item.kind)
    found = judge.read(item, reply, sample)
    if status is AnswerStatus.TRUNCATED:
        value = found.value if found.rule.partition("+")[0] in STATED else 0.0
        return Score(item_id=item.id, value=value, status=status, extracted=found.extracted, rule=found.rule)
    spoken = language or ("ko" if _HANGUL.search(item.question) else "en")
    status = late_status(item, reply, found, language="" if judge.name in _ANY_LANGUAGE else spoken)
    return Score(item_id=item.id, value=found.value, status=status, extracted=found.extracted, rule=found.rule)


def score_run(
    dataset: Dataset, samples: Iterable[Sample], *, scorer: Scorer | None = None, language: str | None = None
) -> tuple[Score, ...]:
    """Scores of a whole run in the order of its samples; samples of items the dataset lacks are left out."""
    items = {item.id: item for item in dataset.items}
    spoken = language or dataset.language
    known = (sample for sample in samples if sample.item_id in items)
    return tuple(score(items[s.item_id], s, scorer=scorer, language=spoken) for s in known)


def by_item(scores: Iterable[Score]) -> dict[str, float]:
    """Mean value for each item over its repeats; failed requests are left out."""
    values: dict[str, list[float]] = {}
    for one in scores:
        if one.counted:
            values.setdefault(one.item_id, []).append(one.value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def status_rates(scores: Iterable[Score]) -> dict[str, float]:
    """Share of every status, 0 for those that did not occur."""
    counts = Counter(one.status for one in scores)
    total = counts.total() or 1
    return {status.value: counts[status] / total for status in AnswerStatus}


@dataclass(frozen=True, kw_only=True)
class LevelReport:
    """One level of a dataset as a model found it; a ``saturated`` level tells configurations apart poorly."""

    level: int
    items: int
    accuracy: float
    saturated: bool
    weight: float
    """Share of the items' weight this level gets in a re-weighted mean: none where saturated, unless all are."""


def level_report(dataset: Dataset, scores: Sequence[Score]) -> tuple[LevelReport, ...]:
    """Accuracy by level; levels above 95 % or below 5 % are marked and lose their weight to the others."""
    levels = {item.id: item.level for item in dataset.items}
    found: dict[int, list[float]] = {}
    for name, value in by_item(scores).items():
        if name in levels:
            found.setdefault(levels[name], []).append(value)
    means = {level: sum(values) / len(values) for level, values in found.items()}
    telling = {level for level, mean in means.items() if _SATURATED_LOW <= mean <= _SATURATED_HIGH}
    weighing = telling or set(means)
    total = sum(len(found[level]) for level in weighing) or 1
    return tuple(
        LevelReport(
            level=level,
            items=len(values),
            accuracy=means[level],
            saturated=level not in telling,
            weight=len(values) / total if level in weighing else 0.0,
        )
        for level, values in sorted(found.items())
    )


def reweighted(dataset: Dataset, scores: Sequence[Score]) -> tuple[Mapping[str, float], tuple[LevelReport, ...]]:
    """Item values without the saturated levels, and the report that says so."""
    report = level_report(dataset, scores)
    kept = {entry.level for entry in report if entry.weight > 0}
    levels = {item.id: item.level for item in dataset.items}
    return {name: value for name, value in by_item(scores).items() if levels.get(name) in kept}, report


def quality(items: Iterable[Item], scores: Sequence[Score]) -> dict[str, Estimate]:
    """``accuracy`` over items (repeats averaged first) with its clustered interval, and the share of cut-off answers.

    Empty where no request was answered: what was not measured is absent, never 0.
    """
    clusters = {item.id: item.cluster or item.id for item in items}
    values = by_item(scores)
    if not values:
        return {}
    names = list(values)
    found = proportion_interval([values[name] for name in names], clusters=[clusters[name] for name in names])
    cut_off = status_rates(scores)[AnswerStatus.TRUNCATED.value]
    return {
        "accuracy": Estimate(
            value=found.value, unit="share", n=len(names), low=found.low, high=found.high, method="Wilson, clustered"
        ),
        "truncated": Estimate(value=cut_off, unit="share", n=len(scores)),
    }
