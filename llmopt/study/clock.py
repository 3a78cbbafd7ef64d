"""The time of a study: its deadline, and what the confirmation will take out of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from llmopt.search.confirm import MIN_BLOCKS
from llmopt.store.rows import TrialRow

__all__ = ["ConfirmPrice", "StudyClock", "smallest_budget_s"]

ARMS = 5
"""Baseline, + prompt, + sampling, winner and the hardware preset: at most so many passes a block."""
LEAST_ITEMS = 2 * MIN_BLOCKS
"""Two held-out items a block are the least that is worth a launch."""
MOST_SHARE = 0.5
"""Of the whole time limit, what the confirmation may claim before the search has begun."""
CAUTION = 1.15


@dataclass(frozen=True, kw_only=True)
class ConfirmPrice:
    """What the confirmation costs: for the launches of one block, and for every item through all arms; seconds."""

    block_s: float
    item_s: float

    @classmethod
    def of(
        cls, baseline: TrialRow, best: TrialRow | None, *, items: int, fresh_passes: bool, arms: int = ARMS
    ) -> ConfirmPrice:
        """From measured trials of ``items`` items; a launch that remembers prompts is started anew for every pass."""
        winner = best or baseline
        start_s = max(_start_s(baseline), _start_s(winner))
        launches = arms if fresh_passes else min(arms, 3)
        slow, other = (baseline.measure_s or 0.0) / items, (winner.measure_s or 0.0) / items
        # baseline and preset ask the baseline's prompt, the others the winner's
        passes = 2 * slow + (arms - 2) * max(other, slow / 4)
        return cls(block_s=CAUTION * launches * start_s, item_s=CAUTION * passes)

    @classmethod
    def guess(cls, *, start_s: float, answer_s: float) -> ConfirmPrice:
        """Before the baseline ended: its start, and the seconds for each answer so far."""
        return cls(block_s=CAUTION * 3 * start_s, item_s=CAUTION * ARMS * answer_s)

    def seconds(self, items: int, blocks: int = MIN_BLOCKS) -> float:
        """The whole confirmation on ``items`` items."""
        return blocks * self.block_s + items * self.item_s

    def blocks(self, left_s: float, items: int, most: int) -> int:
        """How many blocks of ``items`` items ``left_s`` pays for, at most ``most``."""
        each_s = self.seconds(items, 1)
        return int(min(most, left_s / each_s)) if each_s > 0 else most

    def affordable(self, left_s: float, most: int) -> int:
        """How many items ``left_s`` pays for in the fewest blocks, the same number in each; ``most`` at most."""
        paid = (left_s - MIN_BLOCKS * self.block_s) / self.item_s if self.item_s > 0 else most
        return int(max(min(LEAST_ITEMS, most), min(most, paid))) // MIN_BLOCKS * MIN_BLOCKS


class StudyClock:
    """Counts from ``started_s`` (monotonic) to the limit, if there is one."""

    def __init__(self, started_s: float, limit_s: float | None) -> None:
        self.started_s = started_s
        self.limit_s = limit_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started_s

    @property
    def left_s(self) -> float | None:
        """Seconds to the deadline, never below 0; None without one."""
        return None if self.limit_s is None else max(self.limit_s - self.elapsed_s, 0.0)

    def reserve_s(self, price: ConfirmPrice, items: int, blocks: int = MIN_BLOCKS) -> float:
        """What is kept for the confirmation: all its items where they fit into half of the limit, else fewer."""
        wanted = price.seconds(items, blocks)
        if self.limit_s is None:
            return wanted
        return max(min(wanted, MOST_SHARE * self.limit_s), price.seconds(min(LEAST_ITEMS, items)))

    def search_left_s(self, reserve_s: float) -> float | None:
        """Seconds the search may still use; None without a limit."""
        left = self.left_s
        return None if left is None else max(left - reserve_s, 0.0)


def smallest_budget_s(*, start_s: float, answer_s: float, items: int) -> float:
    """The baseline, one trial beside it, and the least confirmation, by what the beginning of the baseline took."""
    once_s = start_s + items * answer_s
    return once_s + CAUTION * once_s + ConfirmPrice.guess(start_s=start_s, answer_s=answer_s).seconds(LEAST_ITEMS)


def _start_s(row: TrialRow) -> float:
    return (row.launch_s or 0.0) + (row.warmup_s or 0.0)
