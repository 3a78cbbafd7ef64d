"""Racing: few items first, more for those who deserve them; losers dropped by tests that allow peeking.

Every candidate answers the same items in the same order, block by block, and is compared with the incumbents (the best,
or with several objectives the current front) after each. It is dropped when it loses to one incumbent in *every*
objective, or when it can no longer reach a floor or keep a ceiling. What is dropped here keeps its running mean, marked
by its fidelity; the final verdict uses other items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmopt.search.evidence import (
    log_e_losing,
    log_e_mean_below,
    log_e_proportion_above,
    log_e_slower,
    mean_upper_bound,
)
from llmopt.search.grid import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmopt.records import Item

__all__ = ["Answers", "Decision", "Race", "SlowLimit", "block_order", "rungs"]

ALPHA = 0.10
"""At most so often an equal candidate is dropped, over all looks together; in simulation it is 4 %."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One configuration's answers so far, by item: scores in 0..1 and seconds from request to end."""

    quality: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    first_token_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SlowLimit:
    """A ceiling on a percentile of a time: a ``share`` of all answers must come within ``limit_s``."""

    of: str
    """``first_token_s`` or ``seconds``."""
    share: float
    limit_s: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a candidate goes on; ``reason`` is a message key, ``e_value`` the evidence against it (1 is none)."""

    drop: bool
    reason: str = ""
    e_value: float = 1.0
    items: int = 0


def rungs(total: int, *, first: int = 16, factor: float = 2.0) -> tuple[int, ...]:
    """How many items a candidate has answered at each look: ``first``, doubled each time, and all of them."""
    sizes: list[int] = []
    size = float(max(first, 1))
    while round(size) < total:
        sizes.append(round(size))
        size *= factor
    return tuple(dict.fromkeys((*sizes, total))) if total > 0 else ()


def block_order(items: Sequence[Item], *, seed: int) -> tuple[Item, ...]:
    """A seeded order in which every beginning has the levels, and within them the clusters, in their proportions."""
    source = seeded(seed, "order")
    strata: dict[tuple[int, str], list[Item]] = {}
    for item in items:
        strata.setdefault((item.level, item.cluster), []).append(item)
    placed: list[tuple[float, float, Item]] = []
    by_level: dict[int, list[tuple[float, float, Item]]] = {}
    for (level, _), members in sorted(strata.items(), key=lambda entry: entry[0]):
        source.shuffle(members)
        by_level.setdefault(level, []).extend(
            ((place + source.random()) / len(members), source.random(), item) for place, item in enumerate(members)
        )
    for members_of_level in by_level.values():
        ranked = sorted(members_of_level, key=lambda entry: entry[:2])
        placed.extend(((rank + source.random()) / len(ranked), tie, item) for rank, (_, tie, item) in enumerate(ranked))
    return tuple(item for _, _, item in sorted(placed, key=lambda entry: entry[:2]))


@dataclass(frozen=True, kw_only=True)
class Race:
    """The rules of one study's race. ``objectives`` are the raced ones, of ``quality`` and ``speed``.

    ``quality_floor`` is the least quality allowed, ``slow_limits`` the ceilings; ``margin`` the factor in time that
    counts as equal (run-to-run noise is not evidence).
    """

    objectives: tuple[str, ...] = ("quality",)
    quality_floor: float | None = None
    slow_limits: tuple[SlowLimit, ...] = ()
    alpha: float = ALPHA
    margin: float = 1.05

    def judge(self, candidate: Answers, incumbents: Sequence[Answers]) -> Decision:
        """Whether the candidate may stop now. Looking more often costs nothing but time."""
        items = max(len(candidate.quality), len(candidate.seconds))
        limit = 1.0 / self.alpha
        for reason, log_e in self._limits(candidate):
            if log_e >= math.log(limit):
                return Decision(drop=True, reason=reason, e_value=_exp(log_e), items=items)
        # several incumbents are several chances to be dropped by luck: they share the error rate
        strongest = -math.inf
        for incumbent in incumbents:
            in_each = [self._against(objective, candidate, incumbent) for objective in self.objectives]
            strongest = max(strongest, min(in_each, default=0.0))
        needed = math.log(limit * max(len(incumbents), 1))
        if strongest >= needed:
            return Decision(drop=True, reason="search.raced_out", e_value=_exp(strongest), items=items)
        return Decision(drop=False, e_value=_exp(max(strongest, 0.0)), items=items)

    def _limits(self, candidate: Answers) -> list[tuple[str, float]]:
        found: list[tuple[str, float]] = []
        if self.quality_floor is not None:
            found.append(("search.below_floor", log_e_mean_below(list(candidate.quality.values()), self.quality_floor)))
        for ceiling in self.slow_limits:
            times = list(getattr(candidate, ceiling.of).values())
            late = sum(time > ceiling.limit_s for time in times)
            found.append(("search.too_slow", log_e_proportion_above(late, len(times), 1.0 - ceiling.share)))
        return found

    def _against(self, objective: str, candidate: Answers, incumbent: Answers) -> float:
        if objective == "quality":
            return _log_e_worse_quality(candidate.quality, incumbent.quality)
        ratios = [
            seconds / incumbent.seconds[item]
            for item, seconds in candidate.seconds.items()
            if incumbent.seconds.get(item, 0.0) > 0.0
        ]
        return log_e_slower(ratios, margin=self.margin)

    def quality_ceiling(self, candidate: Answers) -> float:
        """The most quality a candidate may still have, at this race's error rate."""
        return mean_upper_bound(list(candidate.quality.values()), alpha=self.alpha)


def _log_e_worse_quality(candidate: Mapping[str, float], incumbent: Mapping[str, float]) -> float:
    """McNemar's where all scores are 0 or 1, else a bet on the paired differences."""
    pairs = [(score, incumbent[item]) for item, score in candidate.items() if item in incumbent]
    if all(score in (0.0, 1.0) for pair in pairs for score in pair):
        return log_e_losing(sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))
    return log_e_mean_below([(a - b + 1.0) / 2.0 for a, b in pairs], 0.5)


def _exp(log_e: float) -> float:
    return math.exp(min(log_e, 700.0))
