"""Limits that nothing reaches: which of several they are, and how near the search came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmopt.errors import UsageError
from llmopt.models.memory_fit import memory_fit
from llmopt.objective import Constraint
from llmopt.records import Measurement, Task
from llmopt.study.prepare import Prepared

__all__ = ["Unreached", "refuse_hopeless", "unreached"]


@dataclass(frozen=True, kw_only=True)
class Unreached:
    """A limit that no measured configuration met; ``nearest`` is the best value seen, in the limit's own unit.

    ``alone``: some configuration meets this one, but none meets it together with the others.
    """

    text: str
    nearest: float | None
    unit: str
    alone: bool = False


def unreached(limits: Sequence[Constraint], measured: Sequence[Measurement]) -> tuple[Unreached, ...]:
    """The limits to blame where no measurement meets all; empty where one does."""
    violations = [[limit.check(one).point_violation for limit in limits] for one in measured]
    if not limits or any(all(v <= 0 for v in row) for row in violations):
        return ()
    found = []
    for k, limit in enumerate(limits):
        values = [v for one in measured if (v := limit.metric.value(one)) is not None]
        nearest = (min if limit.upper else max)(values, default=None)
        if all(row[k] > 0 for row in violations):
            found.append(Unreached(text=limit.text, nearest=nearest, unit=limit.metric.unit))
    if found:
        return tuple(found)
    # each can be met, but not together: the one that is nearest to it when all the others are met, or nearly so
    least = min(range(len(measured)), key=lambda i: max(violations[i]))
    broken = [k for k in range(len(limits)) if violations[least][k] > 0]
    return tuple(
        Unreached(
            text=limits[k].text, nearest=limits[k].metric.value(measured[least]), unit=limits[k].metric.unit, alone=True
        )
        for k in broken
    )


def refuse_hopeless(prepared: Prepared, task: Task, limits: Sequence[Constraint]) -> None:
    """Raise UsageError for a memory limit that not even the weights keep, with the nearest value that can be had."""
    fit = memory_fit(prepared.engine.name, prepared.model, prepared.baseline.launch, prepared.hardware, task)
    weights = fit.bytes_of("weights")
    for limit in limits:
        if limit.metric.name == "memory" and limit.upper and weights > limit.limit:
            raise UsageError("study.limit_unreachable", limit=limit.text, nearest=f"{weights / 1e6:.0f}MB")
