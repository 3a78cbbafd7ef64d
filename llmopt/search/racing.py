"""Racing: few items first, more for those who deserve them; losers dropped by tests that allow peeking.

Every candidate answers the same items in the same order and is compared with the incumbents (the best, or with several
objectives the current front) at each rung: few answers first, more for those who are still in. It is dropped when it
loses to one incumbent in *every* objective, or when it can no longer reach a floor or keep a ceiling. What is dropped
here keeps its running mean, marked by its fidelity; the final verdict uses other items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmopt.measure.timing import e2e_s, ttft_s
from llmopt.objective import pareto_front
from llmopt.search.evidence import (
    log_e_losing,
    log_e_mean_below,
    log_e_proportion_above,
    log_e_slower,
    mean_upper_bound,
)
from llmopt.search.grid import seeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmopt.objective import Constraint, Objective
    from llmopt.records import Item, Sample, Score
    from llmopt.search.proposer import Result

__all__ = [
    "Answers",
    "Decision",
    "Incumbents",
    "Race",
    "Referee",
    "SlowLimit",
    "answers_of",
    "block_order",
    "race_for",
    "rungs",
]

ALPHA = 0.10
"""At most so often an equal candidate is dropped, over all looks together; in simulation it is 4 %."""

FIRST_RUNG = 8
"""Fewer answers than this drop nobody: eight losses in eight are the least that is evidence."""

RUNG_FACTOR = 1.1
"""Rungs lie close together: looking often costs nothing, and a loser is dropped sooner."""

MOST_INCUMBENTS = 6

_RACED = {"quality": "quality", "answers_per_minute": "speed"}
"""Objectives whose loss can be read from single answers. With any other objective nobody is dropped for losing."""

_TIMES = {"ttft": "first_token_s", "e2e": "seconds"}


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


def rungs(total: int, *, first: int = FIRST_RUNG, factor: float = RUNG_FACTOR) -> tuple[int, ...]:
    """How many items a candidate has answered at each look: ``first``, ``factor`` times as many each time, and all."""
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


def answers_of(samples: Iterable[Sample], scores: Iterable[Score]) -> Answers:
    """What a race compares of measured answers; a failed request is no answer in quality and has no time."""
    quality: dict[str, float] = {}
    seconds: dict[str, float] = {}
    first_token_s: dict[str, float] = {}
    for sample, score in zip(samples, scores, strict=True):
        if score.counted:
            quality.setdefault(sample.item_id, score.value)
        for found, time_s in ((seconds, e2e_s(sample)), (first_token_s, ttft_s(sample))):
            if time_s is not None:
                found.setdefault(sample.item_id, time_s)
    return Answers(quality=quality, seconds=seconds, first_token_s=first_token_s)


def race_for(objectives: Sequence[Objective], limits: Sequence[Constraint]) -> Race:
    """The rules that follow from a study's goal and limits."""
    raced = tuple(_RACED[o.name] for o in objectives if o.name in _RACED)
    floors = [limit.limit for limit in limits if limit.metric.name == "quality" and not limit.upper]
    ceilings = []
    for limit in limits:
        stage, _, percentile = limit.metric.name.partition("_p")
        if limit.upper and stage in _TIMES and percentile:
            share = int(percentile) / 100
            ceilings.append(SlowLimit(of=_TIMES[stage], share=share, limit_s=limit.limit / 1000))
    return Race(
        objectives=raced if len(raced) == len(objectives) else (),
        quality_floor=max(floors, default=None),
        slow_limits=tuple(ceilings),
    )


class Incumbents:
    """The trials to be beaten: the best, or with several objectives the front, with their answers."""

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = tuple(objectives)
        self._front: list[tuple[tuple[float, ...], Answers]] = []

    def add(self, result: Result, answers: Answers) -> None:
        """Take in a trial that was measured in full; one outside the limits is nobody's rival."""
        if result.objectives is None or any(violation > 0 for violation in result.violations or ()):
            return
        everything = [*self._front, (result.objectives, answers)]
        front = pareto_front([values for values, _ in everything], self._objectives)
        # of a long front the newest stay: every one more makes each a weaker test
        self._front = [everything[i] for i in front][-MOST_INCUMBENTS:]

    @property
    def answers(self) -> list[Answers]:
        """What a candidate is compared with."""
        return [answers for _, answers in self._front]


class Referee:
    """Judges one running candidate at each rung; ``incumbents`` answered the same items in the same order."""

    def __init__(self, race: Race, incumbents: Sequence[Answers], *, items: int) -> None:
        self._race = race
        self._incumbents = tuple(incumbents)
        self._rungs = set(rungs(items)[:-1])  # after the last answer there is nothing left to save
        self._samples: list[Sample] = []
        self._scores: list[Score] = []

    def answered(self, sample: Sample, score: Score) -> Decision:
        """Take one more answer into account."""
        self._samples.append(sample)
        self._scores.append(score)
        if len(self._samples) not in self._rungs:
            return Decision(drop=False, items=len(self._samples))
        return self._race.judge(answers_of(self._samples, self._scores), self._incumbents)
