"""The budget of a study: a plan before the search, kept up to date while it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llmopt.records import Outcome
from llmopt.search.budget import CAUTION, USEFUL_TRIALS, Budget, Plan, Prices, Resolution, make_plan, resolution
from llmopt.search.confirm import MIN_BLOCKS
from llmopt.search.coordinator import Coordinator
from llmopt.search.proposer import Costs
from llmopt.search.space import ENUMERABLE, Space
from llmopt.store.rows import TrialRow
from llmopt.study.clock import ConfirmPrice, StudyClock
from llmopt.study.events import Event
from llmopt.study.final import pairs_of_final, plan_final
from llmopt.study.prepare import Prepared
from llmopt.study.recorder import Recorder
from llmopt.study.telling import Teller

__all__ = ["Planner"]

REPLAN_EVERY = 5
"""Trials after which the plan is said again."""
_OF_95 = 2 * 1.96
"""Width of a 95 % interval in standard deviations."""


class Planner:
    """Knows what is left of a study's budget; ``price`` says what the confirmation would cost now."""

    def __init__(
        self,
        prepared: Prepared,
        recorder: Recorder,
        clock: StudyClock,
        teller: Teller,
        *,
        space: Space,
        baseline: TrialRow,
        price: Callable[[], ConfirmPrice],
    ) -> None:
        self._prepared = prepared
        self._recorder = recorder
        self._clock = clock
        self._teller = teller
        self._space = space
        self._baseline = baseline
        self._price = price
        self._left_in_space = _count(space)

    # ── what is left ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def open_trials(self) -> int:
        """Trials of the budget that have not run."""
        return self._prepared.request.trials - len(self._recorder.ended_keys())

    @property
    def reserve_s(self) -> float:
        """Seconds kept for the confirmation."""
        pairs = pairs_of_final(self._prepared)
        return self._clock.reserve_s(self._price(), len(self._prepared.confirm_items), pairs)

    def search_left_s(self) -> float | None:
        """Seconds the search may still use; None without a limit."""
        return self._clock.search_left_s(self.reserve_s)

    def affordable(self, costs: Costs | None) -> bool:
        """Whether the time left pays for another trial."""
        left_s = self.search_left_s()
        return left_s is None or costs is None or left_s >= costs.launch_s / 2 + costs.measure_s

    def left_s(self, costs: Costs | None) -> float | None:
        """Seconds to the limit; without one, what the trials still to come and the confirmation should take."""
        if self._clock.left_s is not None or costs is None:
            return self._clock.left_s
        return self.open_trials * (costs.launch_s / 2 + costs.measure_s) + self.reserve_s

    # ── the plan ───────────────────────────────────────────────────────────────────────────────────────────────────

    def announce(self) -> None:
        """Show the plan; raises UsageError for a budget in which nothing could be tried and confirmed."""
        request, baseline = self._prepared.request, self._baseline
        least_s = self._price().seconds(min(len(self._prepared.confirm_items), 2 * MIN_BLOCKS))
        start_s = (baseline.launch_s or 0.0) + (baseline.warmup_s or 0.0)
        measure_s = baseline.measure_s or 0.0
        if request.soft_limit and request.timeout_s is not None:
            useful_s = self._clock.elapsed_s + USEFUL_TRIALS * (start_s + measure_s) + least_s
            self._clock.limit_s = max(request.timeout_s, CAUTION * useful_s)
        plan = self._plan(Prices(launch_s=start_s, measure_s=measure_s, confirm_s=least_s))
        found = self._resolution(plan)
        data = {
            "items": len(self._prepared.search_items),
            "blocks": pairs_of_final(self._prepared),
            "limit_s": self._clock.limit_s,
            "reserve_s": self.reserve_s,
            "quality": found.quality,
            "speed": found.speed,
            "configurations": self._left_in_space,
        }
        self._say(plan, data)

    def replan(self, coordinator: Coordinator) -> None:
        """Say the plan again every few trials, with the prices as measured."""
        ended, costs = len(self._recorder.ended_keys()) - 1, coordinator.costs
        if costs is None or ended % REPLAN_EVERY or self.open_trials <= 0:
            return
        prices = Prices.of(costs, confirm_s=self.reserve_s / CAUTION)
        self._say(self._plan(prices, per_launch=coordinator.per_launch), {"ended": ended})

    def _plan(self, prices: Prices, *, per_launch: float = 1.0) -> Plan:
        ended = len(self._recorder.ended_keys()) - 1  # the baseline is no trial of the search
        left = None if self._left_in_space is None else max(self._left_in_space - ended, 0)
        return make_plan(
            Budget(trials=self._prepared.request.trials - 1, seconds=self._clock.limit_s),
            prices,
            done=ended,
            spent_s=self._clock.elapsed_s,
            left_in_space=left,
            per_launch=per_launch,
            useful=1,
        )

    def _resolution(self, plan: Plan) -> Resolution:
        """What the confirmation could tell apart: as far as the time pays, with the noise that was calibrated.

        Where nothing was calibrated, the noise is what the baseline's own interval shows.
        """
        left_s = None
        if self._clock.limit_s is not None:
            left_s = max(self._clock.limit_s - self._clock.elapsed_s - plan.search_s, self.reserve_s)
        final = plan_final(self._prepared, self._price(), left_s=left_s)
        size, calibrated = len(final.blocks[0]), self._prepared.noise
        noise = calibrated.at(size).spread if calibrated else _noise(self._baseline)
        return resolution(items=size * len(final.blocks), pairs=len(final.blocks), speed_noise=noise)

    def _say(self, plan: Plan, more: dict[str, Any]) -> None:
        data = {
            "trials": plan.trials,
            "restarts": plan.restarts,
            "finish_s": plan.finish_s,
            "limited_by": plan.limited_by,
            "left_s": self._clock.left_s if self._clock.left_s is not None else plan.finish_s,
            **more,
        }
        self._teller.say(Event(kind="plan", data=data))


def _count(space: Space) -> int | None:
    """How many legal configurations there are, where they can be counted in a moment."""
    return None if space.continuous or space.combinations > ENUMERABLE else space.count()


def _noise(baseline: TrialRow) -> float | None:
    """Standard deviation of the logarithm of a ratio of two such measurements; None where it is not known."""
    measurement = baseline.measurement if baseline.outcome is Outcome.DONE else None
    found = measurement.estimates.get("answers_per_minute") if measurement else None
    if found is None or found.low is None or found.high is None or found.value <= 0:
        return None
    return math.sqrt(2) * (found.high - found.low) / _OF_95 / found.value
