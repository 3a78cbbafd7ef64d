"""What a study may cost: a budget read, a plan made from measured prices, and the moment to stop early."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmopt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmopt.objective import Objective
    from llmopt.search.proposer import Costs, Result

__all__ = [
    "Budget",
    "Plan",
    "Prices",
    "Progress",
    "Resolution",
    "make_plan",
    "parse_duration",
    "resolution",
    "typed_seconds",
]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS |= {"초": 1.0, "분": 60.0, "시간": 3600.0, "일": 86400.0}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z가-힣]*)", re.IGNORECASE)

USEFUL_TRIALS = 3
"""Fewer trials beside the baseline are no search."""

CAUTION = 1.15
"""What is still to come is planned to take so much longer than what was measured."""

_PATIENCE = 12
_LITTLE = 0.01
"""A gain of one percent is not worth a restart to most users."""

_POWER = 2.802
"""z(0.975) + z(0.80): the effect found with 80 % power, in standard errors."""


def parse_duration(text: str) -> float:
    """Seconds from ``"40m"``, ``"1h30m"``, ``"1시간 30분"`` or a bare number of seconds; raises UsageError."""
    position, total, parts = 0, 0.0, 0
    stripped = text.strip()
    while (match := _PART.match(stripped, position)) is not None:
        unit = match[2].lower()
        bare = unit == "" and parts == 0 and match.end() == len(stripped)
        if unit not in _UNITS and not bare:
            break
        total += float(match[1]) * (_UNITS[unit] if unit else 1.0)
        position, parts = match.end(), parts + 1
    if position < len(stripped) or parts == 0 or not math.isfinite(total):
        raise UsageError("search.bad_duration", text=text.strip())
    if total <= 0:
        raise UsageError("search.duration_not_positive", text=text.strip())
    return total


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent; None is unlimited. Time includes the baseline and the confirmation."""

    trials: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What things take, in seconds: from the baseline at first, from the measured mean later."""

    launch_s: float
    measure_s: float
    confirm_s: float
    """The whole confirmation, launches included."""

    @classmethod
    def of(cls, costs: Costs, *, confirm_s: float) -> Prices:
        """Prices from the coordinator's measured costs."""
        return cls(launch_s=costs.launch_s, measure_s=costs.measure_s, confirm_s=confirm_s)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is still to come: trials, restarts among them, and when it will be over (seconds from now)."""

    trials: int
    restarts: int
    search_s: float
    confirm_s: float
    limited_by: str
    """``trials``, ``time`` or ``space``."""

    @property
    def finish_s(self) -> float:
        """Seconds from now to the verdict."""
        return self.search_s + self.confirm_s


def make_plan(
    budget: Budget,
    prices: Prices,
    *,
    done: int = 0,
    spent_s: float = 0.0,
    left_in_space: int | None = None,
    per_launch: float = 1.0,
    useful: int = USEFUL_TRIALS,
) -> Plan:
    """The plan for what is left of a budget, the confirmation's time reserved first.

    ``done`` trials ended already; ``per_launch`` is how many share a launch on average. Raises UsageError where none
    did and the budget is too small for ``useful`` trials and their confirmation, naming the smallest useful one.
    """
    each = CAUTION * (prices.launch_s / max(per_launch, 1.0) + prices.measure_s)
    confirm_s = CAUTION * prices.confirm_s
    limits: list[tuple[float, str]] = []
    if budget.trials is not None:
        limits.append((budget.trials - done, "trials"))
    if left_in_space is not None:
        limits.append((left_in_space, "space"))
    if budget.seconds is not None:
        left_s = budget.seconds - spent_s - confirm_s
        limits.append((math.floor(left_s / each) if each > 0 else math.inf, "time"))
        needed = useful if left_in_space is None else min(useful, left_in_space)
        if done == 0 and left_s < needed * each:
            smallest = spent_s + confirm_s + needed * each
            raise UsageError(
                "search.budget_too_small", seconds=typed_seconds(budget.seconds), smallest=typed_seconds(smallest)
            )
    if not limits:
        raise ValueError("a budget needs trials, seconds or a finite space")
    trials, limited_by = min(limits)
    count = max(int(trials), 0)
    return Plan(
        trials=count,
        restarts=math.ceil(count / max(per_launch, 1.0)),
        search_s=count * each,
        confirm_s=confirm_s,
        limited_by=limited_by,
    )


def typed_seconds(seconds: float) -> int:
    """Whole seconds, in tens above a minute: a suggestion to type, not a measurement."""
    return math.ceil(seconds) if seconds < 60 else math.ceil(seconds / 10) * 10  # noqa: PLR2004 - a minute


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """The smallest true differences the confirmation would show with 80 % power."""

    quality: float | None
    speed: float | None


def resolution(*, items: int, pairs: int, discordance: float = 0.25, speed_noise: float | None = None) -> Resolution:
    """What a confirmation of so many held-out items and launch pairs can resolve.

    ``discordance`` is the share of items two configurations answer differently, ``speed_noise`` the standard deviation
    of the logarithm of a launch pair's speed ratio.
    """
    quality = _POWER * math.sqrt(discordance / items) if items > 0 else None
    speed = math.expm1(_POWER * speed_noise / math.sqrt(pairs)) if speed_noise is not None and pairs > 0 else None
    return Resolution(quality=quality, speed=speed)


class Progress:
    """Whether trials still gain anything: of each, whether it came further than all before it by as much as matters.

    With several objectives a trial gains where no earlier one is at least about as good in all of them.
    """

    def __init__(self, objectives: Sequence[Objective], *, noise: float = 0.0, patience: int = _PATIENCE) -> None:
        self._objectives = tuple(objectives)
        self._little = max(_LITTLE, noise)
        self._patience = patience
        self._front: list[tuple[float, ...]] = []
        self._reached = 0
        self._trials = 0

    def note(self, result: Result) -> None:
        """One more trial ended; one without a measurement counts for nothing."""
        if result.objectives is None:
            return
        self._trials += 1
        if result.fidelity < 1 or any(violation > 0 for violation in result.violations or ()):
            return
        gains = tuple(_scaled(o, value) for o, value in zip(self._objectives, result.objectives, strict=True))
        if any(all(old >= new - self._little for old, new in zip(known, gains, strict=True)) for known in self._front):
            return
        self._front.append(gains)
        self._reached = self._trials - 1

    def stalled(self, *, expected_gain: float | None = None) -> bool:
        """Whether another trial is unlikely to be worth it.

        ``expected_gain`` is what the model expects of the best next trial, relative to the best so far. Without a
        model, a long run without progress decides: of m trials since the best, the chance that the next is a new best
        is about 1 / (m + 1).
        """
        since = self._trials - 1 - self._reached
        if expected_gain is not None:
            return since >= self._patience // 2 and expected_gain < self._little / 2
        return since >= max(self._patience, 2 * self._reached)


def _scaled(objective: Objective, value: float) -> float:
    """More is better, and equal steps matter equally: shares as they are, sizes and times by their logarithm."""
    return objective.gain(value if objective.kind == "share" else math.log(max(value, 1e-9)))
