"""How different several answers to the same question are: what ``creativity`` wants more of."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping

from llmopt.measure.answers.likeness import likeness
from llmopt.measure.answers.reply import read_reply
from llmopt.measure.stats.intervals import mean_interval
from llmopt.records import Estimate, Item, Sample

__all__ = ["diversity", "diversity_by_item"]


def diversity_by_item(samples: Iterable[Sample], *, greedy: bool = False) -> dict[str, float]:
    """For each item 1 - the mean likeness of all pairs of its answers; items answered less than twice are left out.

    ``greedy``: the one answer of each item would come again and again, so that its diversity is 0.
    """
    texts: dict[str, list[str]] = {}
    for sample in samples:
        if sample.ok:
            texts.setdefault(sample.item_id, []).append(read_reply(sample.text).text)
    if greedy:
        return dict.fromkeys(texts, 0.0)
    return {
        name: 1.0 - statistics.fmean(likeness(a, b) for a, b in itertools.combinations(found, 2))
        for name, found in texts.items()
        if len(found) > 1
    }


def diversity(items: Iterable[Item], samples: Iterable[Sample], *, greedy: bool = False) -> dict[str, Estimate]:
    """The estimate ``diversity`` over items with its clustered interval; empty where no item was answered twice."""
    clusters: Mapping[str, str] = {item.id: item.cluster or item.id for item in items}
    values = diversity_by_item(samples, greedy=greedy)
    if not values:
        return {}
    found = mean_interval(list(values.values()), clusters=[clusters.get(name, name) for name in values])
    low = None if found.low is None else max(found.low, 0.0)
    high = None if found.high is None else min(found.high, 1.0)
    method = "greedy: 0 by definition" if greedy else "1 - likeness of pairs, t clustered"
    return {"diversity": Estimate(value=found.value, unit="share", n=len(values), low=low, high=high, method=method)}
