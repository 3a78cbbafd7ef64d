"""What a study wants: objectives, limits, and which of several results is better.

A measurement holds many figures; the user names the ones that matter (``quality,answers_per_minute``) and the limits
that must hold (``ttft_p95<800ms``). Here those words become numbers a search can follow and a report can defend.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

from llmopt.errors import UsageError
from llmopt.records import Estimate, Measurement, Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Constraint",
    "Floor",
    "Goal",
    "LimitCheck",
    "LimitStatus",
    "Objective",
    "dominates",
    "named_points",
    "objective_names",
    "objective_values",
    "pareto_front",
    "parse_constraint",
    "parse_constraints",
    "parse_objectives",
    "strategy_goal",
]

Kind = Literal["share", "per_minute", "per_s", "ms", "bytes"]

_ONE_SIDED_OF_TWO_SIDED = 1.6449 / 1.9600
"""Scales half of a two-sided 95 % interval to a one-sided 95 % bound (normal approximation)."""

_UNITS: Mapping[Kind, Mapping[str, float]] = {
    "share": {"": 1.0, "%": 0.01},
    "per_minute": {"": 1.0, "/min": 1.0, "/s": 60.0, "/h": 1.0 / 60.0},
    "per_s": {"": 1.0, "/s": 1.0, "/min": 1.0 / 60.0},
    "ms": {"": 1.0, "us": 0.001, "ms": 1.0, "s": 1000.0, "min": 60_000.0},
    "bytes": {
        "": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
        "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40,
    },
}  # fmt: skip

_SHOWN_UNIT: Mapping[Kind, str] = {"share": "", "per_minute": "/min", "per_s": "/s", "ms": "ms", "bytes": "B"}


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One figure to improve: ``estimate`` is its name in a Measurement, ``name`` the word shown to the user."""

    name: str
    estimate: str
    maximize: bool
    unit: str
    kind: Kind

    def value(self, measurement: Measurement) -> float | None:
        """The figure as measured, or None where it was not."""
        return measurement.value(self.estimate)

    def gain(self, value: float) -> float:
        """The value turned so that more is better."""
        return value if self.maximize else -value


def _metric(name: str, estimate: str, kind: Kind, *, maximize: bool) -> Objective:
    return Objective(name=name, estimate=estimate, maximize=maximize, unit=_SHOWN_UNIT[kind], kind=kind)


def _vocabulary() -> dict[str, Objective]:
    words = {
        "quality": _metric("quality", "accuracy", "share", maximize=True),
        "answers_per_minute": _metric("answers_per_minute", "answers_per_minute", "per_minute", maximize=True),
        "tokens_per_s": _metric("tokens_per_s", "output_tokens_per_s", "per_s", maximize=True),
        "memory": _metric("memory", "memory_bytes", "bytes", maximize=False),
        "diversity": _metric("diversity", "diversity", "share", maximize=True),
        "error_rate": _metric("error_rate", "error_rate", "share", maximize=False),
    }
    for stage in ("ttft", "itl", "tpot", "e2e"):
        for percentile in (50, 90, 95, 99):
            name = f"{stage}_p{percentile}"
            words[name] = _metric(name, f"{name}_ms", "ms", maximize=False)
    return words


_METRICS = _vocabulary()
_ALIASES = {
    "accuracy": "quality",
    "speed": "answers_per_minute",
    "output_tokens_per_s": "tokens_per_s",
    "tokens/s": "tokens_per_s",
    "memory_bytes": "memory",
    "ttft": "ttft_p50",
    "itl": "itl_p50",
    "tpot": "tpot_p50",
    "e2e": "e2e_p50",
}


def objective_names() -> tuple[str, ...]:
    """Every word a user may name, aliases included."""
    return tuple(sorted({*_METRICS, *_ALIASES}))


def _lookup(word: str) -> Objective:
    name = word.strip().lower().removesuffix("_ms")
    name = _ALIASES.get(name, name)
    found = _METRICS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, objective_names(), n=3, cutoff=0.4)
        raise UsageError("objective.unknown", name=word.strip(), near=", ".join(near or objective_names()))
    return found


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Objectives from ``"quality,answers_per_minute"``, the first being the one verdicts are about.

    Raises UsageError for an unknown name (with the nearest ones), an empty list or a name given twice.
    """
    words = [word for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError("objective.empty", names=", ".join(_METRICS))
    found: list[Objective] = []
    for word in words:
        objective = _lookup(word)
        if objective in found:
            raise UsageError("objective.twice", name=objective.name)
        found.append(objective)
    return tuple(found)


def objective_values(measurement: Measurement, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """The objectives' values in order, or None where one of them is missing or not a finite number."""
    values = [objective.value(measurement) for objective in objectives]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return tuple(value for value in values if value is not None)


# ── limits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class LimitStatus(str, Enum):
    """What may be said about a limit: met and violated only where the one-sided 95 % bound says so."""

    MET = "met"
    VIOLATED = "violated"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class LimitCheck:
    """One limit against one measurement.

    ``violation`` is ≤ 0 exactly where the limit is met: the logarithm of the ratio to the limit, at the one-sided bound
    where the estimate has an interval. ``point_violation`` uses the value alone, for a search while samples are few.
    """

    status: LimitStatus
    violation: float
    point_violation: float
    value: float | None
    bound: float | None
    more_samples: int | None = None
    """How many further samples would probably tell, where undecided."""


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A limit on one figure: ``limit`` in the estimate's own unit, ``text`` as the user wrote it."""

    metric: Objective
    upper: bool
    strict: bool
    limit: float
    text: str

    def check(self, measurement: Measurement) -> LimitCheck:
        """Whether ``measurement`` meets the limit; a figure that was not measured is undecided, violation 1."""
        estimate = measurement.estimates.get(self.metric.estimate)
        if estimate is None or not math.isfinite(estimate.value):
            return LimitCheck(status=LimitStatus.UNDECIDED, violation=1.0, point_violation=1.0, value=None, bound=None)
        bound = _one_sided(estimate, upper=self.upper)
        other = _one_sided(estimate, upper=not self.upper)
        violation = self._violation(bound)
        if violation <= 0:
            status = LimitStatus.MET
        else:
            status = LimitStatus.VIOLATED if self._violation(other) > 0 else LimitStatus.UNDECIDED
        return LimitCheck(
            status=status,
            violation=violation,
            point_violation=self._violation(estimate.value),
            value=estimate.value,
            bound=bound,
            more_samples=self._more(estimate, bound, other) if status is LimitStatus.UNDECIDED else None,
        )

    def _more(self, estimate: Estimate, bound: float, other: float) -> int | None:
        """Further samples after which the bound would probably lie on the same side of the limit as the value."""
        distance = abs(estimate.value - self.limit)
        reach = abs((bound if self._violation(estimate.value) <= 0 else other) - estimate.value)
        if not distance or not reach or not estimate.n:
            return None
        return max(math.ceil(estimate.n * (reach / distance) ** 2) - estimate.n, 1)

    def _violation(self, value: float) -> float:
        if self.limit > 0 and value > 0:
            # a ratio's logarithm: half and double are equally far, and five percent are 0.05
            excess = math.log(value / self.limit) if self.upper else math.log(self.limit / value)
        else:
            excess = value - self.limit if self.upper else self.limit - value
            excess /= self.limit or 1.0
        if excess == 0 and self.strict:
            return math.ulp(1.0)
        return excess


def _one_sided(estimate: Estimate, *, upper: bool) -> float:
    """The one-sided 95 % bound; the value itself where the estimate has no interval."""
    edge = estimate.high if upper else estimate.low
    if edge is None or not math.isfinite(edge):
        return estimate.value
    return estimate.value + (edge - estimate.value) * _ONE_SIDED_OF_TWO_SIDED


_LIMIT = re.compile(
    r"^\s*(?P<name>[A-Za-z][\w/]*)\s*(?P<op><=|>=|<|>|≤|≥)\s*"
    r"(?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-z/%]*)\s*$"
)


def parse_constraint(text: str) -> Constraint:
    """A limit from ``"ttft_p95<800ms"``, ``"memory<2GB"`` (10⁹; ``GiB`` is 2³⁰) or ``"accuracy>=30%"``.

    Raises UsageError for a bad form, an unknown name or unit, and a limit that nothing or everything meets.
    """
    match = _LIMIT.match(text)
    if match is None:
        raise UsageError("objective.limit_form", text=text.strip())
    metric = _lookup(match["name"])
    units = _UNITS[metric.kind]
    factor = units.get(match["unit"].lower())
    if factor is None:
        raise UsageError(
            "objective.limit_unit",
            text=text.strip(),
            unit=match["unit"],
            units=", ".join(unit for unit in units if unit),
        )
    limit = float(match["number"]) * factor
    upper = match["op"] in ("<", "<=", "≤")
    strict = match["op"] in ("<", ">")
    _refuse_absurd(text, metric, limit, upper=upper, strict=strict)
    return Constraint(metric=metric, upper=upper, strict=strict, limit=limit, text=text.strip())


def _refuse_absurd(text: str, metric: Objective, limit: float, *, upper: bool, strict: bool) -> None:
    if not math.isfinite(limit) or limit < 0:
        raise UsageError("objective.limit_negative", text=text.strip())
    if metric.kind == "share" and limit > 1:
        raise UsageError("objective.limit_share", text=text.strip(), percent=f"{limit:g}%")
    nothing_below = upper and strict and limit == 0
    nothing_above = not upper and strict and metric.kind == "share" and limit == 1
    if nothing_below or nothing_above:
        raise UsageError("objective.limit_impossible", text=text.strip())


def parse_constraints(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """All limits of a study; raises UsageError where two of them exclude each other."""
    constraints = tuple(parse_constraint(text) for text in texts)
    for ceiling in (c for c in constraints if c.upper):
        for floor in (c for c in constraints if not c.upper and c.metric == ceiling.metric):
            touching = floor.limit == ceiling.limit and (floor.strict or ceiling.strict)
            if floor.limit > ceiling.limit or touching:
                raise UsageError("objective.limit_conflict", first=floor.text, second=ceiling.text)
    return constraints


# ── strategies ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A limit relative to the baseline's own figure: a share of it, or so much below it."""

    metric: Objective
    share: float | None = None
    below: float | None = None

    def at(self, baseline: Measurement) -> Constraint | None:
        """The limit in numbers; None where the baseline has no such figure."""
        value = baseline.value(self.metric.estimate)
        if value is None or not math.isfinite(value):
            return None
        limit = max(0.0, value * self.share if self.share is not None else value - (self.below or 0.0))
        text = f"{self.metric.name}>={limit:.4g}{self.metric.unit}"
        return Constraint(metric=self.metric, upper=False, strict=False, limit=limit, text=text)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a strategy optimises and what it must not give away for it."""

    objectives: tuple[Objective, ...]
    floors: tuple[Floor, ...]


def strategy_goal(strategy: Strategy) -> Goal:
    """The objective and floor of a strategy: 2 points of quality, or half of the baseline's speed, may not be lost."""
    quality, speed = _METRICS["quality"], _METRICS["answers_per_minute"]
    keeps_quality = Floor(metric=quality, below=0.02)
    if strategy is Strategy.ACCURACY:
        return Goal(objectives=(quality,), floors=(Floor(metric=speed, share=0.5),))
    if strategy is Strategy.CREATIVITY:
        return Goal(objectives=(_METRICS["diversity"],), floors=(keeps_quality,))
    return Goal(objectives=(speed,), floors=(keeps_quality,))


# ── several objectives ─────────────────────────────────────────────────────────────────────────────────────────────


def dominates(first: Sequence[float], second: Sequence[float], objectives: Sequence[Objective]) -> bool:
    """Whether ``first`` is at least as good everywhere and better somewhere."""
    gains = [o.gain(a) - o.gain(b) for o, a, b in zip(objectives, first, second, strict=True)]
    return all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)


def pareto_front(values: Sequence[Sequence[float]], objectives: Sequence[Objective]) -> list[int]:
    """Positions of the values nobody dominates, in their given order; of equal values the first stands for all."""
    gains = [tuple(o.gain(v) for o, v in zip(objectives, row, strict=True)) for row in values]
    # after sorting by gain, a value can only be dominated by an earlier one: one pass against the front suffices
    order = sorted(range(len(gains)), key=lambda i: (*(-g for g in gains[i]), i))
    front: list[int] = []
    for i in order:
        if not any(all(f >= g for f, g in zip(gains[j], gains[i], strict=True)) for j in front):
            front.append(i)
    return sorted(front)


def named_points(measurements: Sequence[Measurement], objectives: Sequence[Objective]) -> dict[str, int]:
    """The named members of a Pareto set: ``recommended``, ``best_quality``, ``fastest``, ``smallest`` → position.

    *Recommended* has the largest product of shares of the best value in each objective (for one objective: the best).
    A name is missing where its figure was not measured; ties go to the better balanced, then to the earlier.
    """
    complete = [i for i, m in enumerate(measurements) if objective_values(m, objectives) is not None]
    if not complete:
        return {}
    balance = _balance([measurements[i] for i in complete], objectives)
    by_position = dict(zip(complete, balance, strict=True))
    points = {"recommended": max(complete, key=lambda i: (by_position[i], -i))}
    for name, metric in _POINT_METRICS.items():
        known = [(metric.value(measurements[i]), i) for i in complete]
        measured = [(metric.gain(v), by_position[i], -i) for v, i in known if v is not None and math.isfinite(v)]
        if measured:
            points[name] = -max(measured)[2]
    return points


_POINT_METRICS = {
    "best_quality": _METRICS["quality"],
    "fastest": _METRICS["answers_per_minute"],
    "smallest": _METRICS["memory"],
}


def _balance(measurements: Sequence[Measurement], objectives: Sequence[Objective]) -> list[float]:
    shares = [1.0] * len(measurements)
    for objective in objectives:
        values = [objective.value(m) or 0.0 for m in measurements]
        best = max(values) if objective.maximize else min(values)
        for i, value in enumerate(values):
            if objective.maximize:
                shares[i] *= value / best if best > 0 else 1.0
            else:
                shares[i] *= best / value if value > 0 else 1.0
    return shares
