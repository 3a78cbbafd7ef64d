"""The final of an optimisation: how many pairs of launches it has, when it may stop, and what its passes tell.

How often the baseline and the winner are launched follows from this machine's calibrated noise; where nothing was
calibrated it is the fewest pairs that support an interval. More pairs are looked at in between, at planned looks that
share the 5 % of error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llmopt.measure.diversity import diversity_by_item
from llmopt.measure.stats.intervals import CONFIDENCE
from llmopt.measure.stats.looks import Look, plan_looks
from llmopt.measure.stats.verdicts import quality_verdict, speed_verdict
from llmopt.records import Item, Outcome, Verdict, VerdictKind
from llmopt.search.confirm import MIN_BLOCKS, POINTS, Arm, ArmPass, Step, blocks_of, pair_of, steps
from llmopt.study.clock import ConfirmPrice
from llmopt.study.prepare import Prepared
from llmopt.study.repeats import pairs_for
from llmopt.workload.datasets import subset

__all__ = [
    "SPEED",
    "FinalPlan",
    "Finals",
    "TimeForArms",
    "compare_arms",
    "compare_diversity",
    "pairs_of_final",
    "plan_final",
    "requests_of_final",
    "speed_of",
    "with_final_items",
]

SPEED = "answers_per_minute"
OPEN = (VerdictKind.TIE, VerdictKind.UNDECIDED)


@dataclass(frozen=True, kw_only=True)
class FinalPlan:
    """The looks of a final and the items of its blocks, each block its own."""

    looks: tuple[Look, ...]
    blocks: tuple[tuple[Item, ...], ...]

    def look_after(self, blocks: int) -> Look:
        """The look whose share of the error what was seen after so many blocks may spend.

        Time that ran out between two looks spends the later one's: it ended the final without having seen the data.
        """
        return next((look for look in self.looks if look.after >= blocks), self.looks[-1])

    def enough(self, prepared: Prepared, arms: Sequence[Arm], blocks: int, passes: Sequence[ArmPass]) -> bool:
        """Whether a look is planned after so many blocks and leaves nothing open about the winner."""
        look = next((look for look in self.looks if look.after == blocks), None)
        total = next((step for step in steps(arms) if step.name == "total"), None)
        if look is None or total is None:
            return False
        found = compare_arms(prepared, passes, total, confidence=look.confidence)
        return all(verdict is not None and verdict.kind not in OPEN for verdict in found)


@dataclass(frozen=True, kw_only=True)
class Finals:
    """The final: its arms, the passes that can be compared, and how it was planned (None: nothing to confirm)."""

    arms: tuple[Arm, ...]
    passes: tuple[ArmPass, ...] = ()
    plan: FinalPlan | None = None

    @property
    def blocks(self) -> int:
        """Blocks in which baseline and winner were both measured."""
        return len({one.block for one in self.passes})

    @property
    def confidence(self) -> float:
        """Of the intervals: what is left of the error at the look that ended it."""
        return self.plan.look_after(self.blocks).confidence if self.plan else CONFIDENCE


class TimeForArms:
    """Which arms each block has time for: with a time limit, pairs of baseline and winner come before all others.

    A block drops the other named points, then the steps between and the preset, where all blocks still to come would
    not fit into the time left with them. What blocks cost is corrected by what those before took. The pair is in every
    block, so nothing about it is chosen by what was seen.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        plan: FinalPlan,
        *,
        price: Callable[[int], ConfirmPrice],
        left_s: Callable[[], float | None],
    ) -> None:
        self._choices = (tuple(arms), tuple(arm for arm in arms if not set(arm.names) <= set(POINTS)), pair_of(arms))
        self._blocks = plan.blocks
        self._price = price
        self._left_s = left_s
        self._under_way: tuple[float, float] | None = None
        self._expected_s = self._took_s = 0.0

    def asked(self, block: int) -> Sequence[Arm]:
        """The arms of the block that begins now."""
        left_s = self._left_s()
        if left_s is None:
            return self._choices[0]
        if self._under_way is not None:
            expected_s, began_with_s = self._under_way
            self._expected_s += expected_s
            self._took_s += began_with_s - left_s
        slower = self._took_s / self._expected_s if self._expected_s > 0 else 1.0
        items, ahead = len(self._blocks[block]), len(self._blocks) - block
        costs_s = [self._price(len(arms)).seconds(items, 1) for arms in self._choices]
        fitting = (k for k, cost_s in enumerate(costs_s) if ahead * cost_s * slower <= left_s)
        chosen = next(fitting, len(costs_s) - 1)
        self._under_way = (costs_s[chosen], left_s)
        return self._choices[chosen]


def with_final_items(prepared: Prepared) -> Prepared:
    """The same with held-out items for every pair that calibration asks for, as far as the dataset has them."""
    asked = len(prepared.confirm_items)
    pairs = _pairs(prepared, asked)
    if pairs == MIN_BLOCKS:
        return prepared
    wanted = _size(asked) * pairs
    items = subset(prepared.dataset, "confirm", wanted, seed=prepared.request.seed)
    return replace(prepared, confirm_items=items)


def plan_final(prepared: Prepared, price: ConfirmPrice, *, left_s: float | None) -> FinalPlan:
    """The pairs that calibration asks for, as far as time and items go; never fewer than the fewest."""
    items, pairs = prepared.confirm_items, pairs_of_final(prepared)
    asked = _asked(prepared)
    if left_s is not None:
        pairs = price.blocks(left_s, _size(asked), pairs)
    if pairs > MIN_BLOCKS:
        count = _size(asked) * pairs
    else:
        pairs, count = MIN_BLOCKS, asked if left_s is None else price.affordable(left_s, asked)
    return FinalPlan(looks=plan_looks(MIN_BLOCKS, pairs), blocks=tuple(blocks_of(items[:count], pairs)))


def pairs_of_final(prepared: Prepared) -> int:
    """How many pairs of launches a final without a time limit has at most."""
    asked = _asked(prepared)
    return max(min(_pairs(prepared, asked), len(prepared.confirm_items) // _size(asked)), MIN_BLOCKS)


def requests_of_final(prepared: Prepared) -> int:
    """Items that each launch of the final is asked."""
    return _size(_asked(prepared))


def _asked(prepared: Prepared) -> int:
    """Items for the fewest pairs."""
    return min(prepared.asked_to_confirm, len(prepared.confirm_items))


def _size(asked: int) -> int:
    """Items of one block."""
    return max(asked // MIN_BLOCKS, 1)


def _pairs(prepared: Prepared, asked: int) -> int:
    return pairs_for(prepared, requests=_size(asked), least=MIN_BLOCKS)


# ── what the passes tell ───────────────────────────────────────────────────────────────────────────────────────────


def compare_arms(
    prepared: Prepared, passes: Sequence[ArmPass], step: Step, *, confidence: float = CONFIDENCE
) -> tuple[Verdict | None, Verdict | None]:
    """Quality and speed of one step of the ladder, from the blocks in which both its arms were measured."""
    before = {p.block: p for p in passes if p.key == step.before and p.result.outcome is Outcome.DONE}
    after = {p.block: p for p in passes if p.key == step.after and p.result.outcome is Outcome.DONE}
    blocks = sorted(before.keys() & after.keys())
    if not blocks:
        return None, None
    clusters = {item.id: item.cluster or item.id for item in prepared.confirm_items}
    quality = quality_verdict(
        [s for b in blocks for s in after[b].result.scores],
        [s for b in blocks for s in before[b].result.scores],
        clusters=clusters,
        margin=prepared.request.quality_margin,
        confidence=confidence,
    )
    speed = speed_verdict(
        [speed_of(after[b]) for b in blocks],
        [speed_of(before[b]) for b in blocks],
        margin=prepared.request.speed_margin,
        confidence=confidence,
    )
    return quality, speed


def compare_diversity(
    prepared: Prepared, arms: Sequence[Arm], passes: Sequence[ArmPass], step: Step, *, confidence: float = CONFIDENCE
) -> Verdict | None:
    """Whether several answers to the same question differ more, paired by item."""
    greedy = {arm.configuration.key for arm in arms if arm.configuration.request.temperature == 0}

    def by_item(key: str) -> dict[str, float]:
        done = (p for p in passes if p.key == key and p.result.outcome is Outcome.DONE)
        return diversity_by_item((s for p in done for s in p.result.samples), greedy=key in greedy)

    clusters = {item.id: item.cluster or item.id for item in prepared.confirm_items}
    after, before = by_item(step.after), by_item(step.before)
    if not after or not before:
        return None
    margin = prepared.request.quality_margin
    return quality_verdict(
        after, before, clusters=clusters, margin=margin, confidence=confidence, objective="diversity"
    )


def speed_of(one: ArmPass) -> float:
    """Answers per minute of one pass, 0 where it has none."""
    value = one.result.measurement.value(SPEED) if one.result.measurement else None
    return value or 0.0
