"""A gate before any figure is believed: results that a broken prompt, template or limit explains better than skill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmopt.measure.quality import by_item, status_rates
from llmopt.measure.stats.intervals import proportion_interval
from llmopt.records import Item, Score

__all__ = ["Finding", "check_sanity"]

_TOLERATED = {"truncated": 0.05, "empty": 0.05, "no_answer_found": 0.2, "wrong_language": 0.05, "refused": 0.05}
_CONSTANT_SHARE = 0.9
_FEWEST = 10
_OFF_REFERENCE = 0.2


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason for doubt: a message key of area ``quality`` and its values."""

    key: str
    values: Mapping[str, Any]


def check_sanity(
    items: Iterable[Item], scores: Sequence[Score], *, reference: float | None = None
) -> tuple[Finding, ...]:
    """What is suspicious about a run's scores; fewer than ten answers say nothing and give no finding.

    ``reference`` is a published accuracy (0..1) measured under the same protocol.
    """
    known = {item.id: item for item in items}
    counted = [one for one in scores if one.counted and one.item_id in known]
    found: list[Finding] = []
    failed = len(scores) - sum(one.counted for one in scores)
    if failed:
        found.append(Finding(key="quality.failed_requests", values={"count": failed, "total": len(scores)}))
    if len(counted) < _FEWEST:
        return tuple(found)
    rates = status_rates(counted)
    for status, limit in _TOLERATED.items():
        if rates[status] > limit:
            found.append(Finding(key=f"quality.many_{status}", values={"percent": round(100 * rates[status])}))
    found += _choice_findings([one for one in counted if known[one.item_id].kind == "choice"], known)
    values = list(by_item(counted).values())
    mean = sum(values) / len(values)
    if reference is not None and abs(mean - reference) > _OFF_REFERENCE:
        shown = {"percent": round(100 * mean), "reference": round(100 * reference)}
        found.append(Finding(key="quality.off_reference", values=shown))
    return tuple(found)


def _choice_findings(scores: Sequence[Score], items: Mapping[str, Item]) -> list[Finding]:
    """Below what guessing gets, or at what always naming one letter gets."""
    if len(scores) < _FEWEST:
        return []
    values = by_item(scores)
    chance = sum(1 / len(items[name].options) for name in values) / len(values)
    interval = proportion_interval(list(values.values()))
    found = []
    if interval.high is not None and interval.high < chance:
        shown = {"percent": round(100 * interval.value), "chance": round(100 * chance)}
        found.append(Finding(key="quality.below_chance", values=shown))
    letter, times = Counter(one.extracted for one in scores).most_common(1)[0]
    if letter is not None and times >= _CONSTANT_SHARE * len(scores):
        floor = sum(letter in items[one.item_id].answers for one in scores) / len(scores)
        if interval.value <= floor + (1 - _CONSTANT_SHARE):
            constant = {"letter": letter, "percent": round(100 * times / len(scores)), "floor": round(100 * floor)}
            found.append(Finding(key="quality.constant_answer", values=constant))
    return found
