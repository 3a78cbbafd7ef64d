"""Quality of answers: every stored sample scored with a status and the rule that fired; nothing is generated again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from llmopt.measure.answers.reply import read_reply
from llmopt.measure.answers.status import COUNTED_CUT_OFF, early_status, late_status
from llmopt.measure.evaluators.base import Evaluator, Scorer
from llmopt.measure.evaluators.registry import scorer_for
from llmopt.measure.stats.intervals import proportion_interval
from llmopt.records import AnswerStatus, Estimate, Item, Sample, Score

__all__ = ["SATURATED_HIGH", "SATURATED_LOW", "Evaluator", "Scorer", "by_item", "quality", "score", "status_rates"]

_HANGUL = re.compile("[가-힣]")
_ANY_LANGUAGE = frozenset(("json", "instructions", "lm_eval"))
"""Scorers whose answers may rightly be in another language than the question."""
SATURATED_LOW, SATURATED_HIGH = 0.05, 0.95
"""A level outside says little about a model: nearly all of it is right, or nearly nothing."""


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
        value = found.value if found.rule.partition("+")[0] in COUNTED_CUT_OFF else 0.0
        return Score(item_id=item.id, value=value, status=status, extracted=found.extracted, rule=found.rule)
    spoken = language or ("ko" if _HANGUL.search(item.question) else "en")
    status = late_status(item, reply, found, language="" if judge.name in _ANY_LANGUAGE else spoken)
    return Score(item_id=item.id, value=found.value, status=status, extracted=found.extracted, rule=found.rule)


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


def quality(items: Iterable[Item], scores: Sequence[Score]) -> dict[str, Estimate]:
    """``accuracy`` over items (repeats averaged first) with its clustered interval, and the share of cut-off answers.

    What was not measured is absent, never 0: without a judged answer there is no ``accuracy``.
    """
    if not any(one.status is not AnswerStatus.REQUEST_ERROR for one in scores):
        return {}
    cut_off = status_rates(scores)[AnswerStatus.TRUNCATED.value]
    estimates = {"truncated": Estimate(value=cut_off, unit="share", n=len(scores))}
    clusters = {item.id: item.cluster or item.id for item in items}
    values = by_item(scores)
    if values:
        found = proportion_interval(list(values.values()), clusters=[clusters[name] for name in values])
        estimates["accuracy"] = Estimate(
            value=found.value, unit="share", n=len(values), low=found.low, high=found.high, method="Wilson, clustered"
        )
    return estimates
