"""What the answers of one configuration show beside their mean: levels, how they ended, and reasons for doubt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from llmopt.measure.quality import SATURATED_HIGH, SATURATED_LOW, by_item
from llmopt.measure.sanity import check_sanity
from llmopt.measure.stats.intervals import proportion_interval
from llmopt.records import AnswerStatus, Estimate, Item, Score

__all__ = ["findings", "status_share"]


def findings(items: Sequence[Item], scores: Sequence[Score]) -> dict[str, Any]:
    """Plain data: ``levels``, ``telling`` (accuracy without saturated levels), ``statuses`` and ``doubts``.

    A level above 95 % or below 5 % tells configurations apart poorly: it is ``saturated``, has weight 0 in ``telling``
    and leaves its weight to the others. ``telling`` is None where no level, or every level, is saturated.
    """
    values = by_item(scores)
    levels = _levels(items, values)
    return {
        "levels": levels,
        "telling": _telling(items, values, levels),
        "statuses": _statuses(scores),
        "doubts": [{"key": found.key, "values": dict(found.values)} for found in check_sanity(items, scores)],
    }


def status_share(scores: Sequence[Score], status: AnswerStatus) -> Estimate:
    """The share of answers that ended so; repeats of an item are one cluster."""
    hits = [float(score.status is status) for score in scores]
    found = proportion_interval(hits, clusters=[score.item_id for score in scores])
    return Estimate(
        value=found.value, unit="share", n=len(hits), low=found.low, high=found.high, method="Wilson, clustered"
    )


def _levels(items: Iterable[Item], values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Share of right answers by level; empty where the dataset has only one."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        if item.id in values:
            groups.setdefault(item.level, []).append(item)
    if len(groups) < 2:  # noqa: PLR2004 - one level is the whole
        return []
    rows = []
    for level, members in sorted(groups.items()):
        found = _share(members, values)
        saturated = not SATURATED_LOW <= found["value"] <= SATURATED_HIGH
        rows.append({"level": level, **found, "saturated": saturated})
    total = sum(row["n"] for row in rows if not row["saturated"])
    whole = sum(row["n"] for row in rows)
    for row in rows:
        row["weight"] = row["n"] / whole if not total else 0.0 if row["saturated"] else row["n"] / total
    return rows


def _telling(
    items: Iterable[Item], values: Mapping[str, float], levels: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    kept = {row["level"] for row in levels if not row["saturated"]}
    if not kept or len(kept) == len(levels):
        return None
    return _share([item for item in items if item.id in values and item.level in kept], values)


def _share(members: Sequence[Item], values: Mapping[str, float]) -> dict[str, Any]:
    found = proportion_interval(
        [values[item.id] for item in members], clusters=[item.cluster or item.id for item in members]
    )
    return {"value": found.value, "low": found.low, "high": found.high, "n": len(members)}


def _statuses(scores: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """How answers ended, as shares of all requests; repeats of an item are one cluster."""
    found = {}
    for status in AnswerStatus:
        count = sum(score.status is status for score in scores)
        if count:
            found[status.value] = {**asdict(status_share(scores, status)), "count": count}
    return found
