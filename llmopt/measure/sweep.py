"""How much load an endpoint bears: a sweep from one stream to saturation, and the highest load that meets an SLO."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llmopt.records import Estimate, Load, Measurement

__all__ = ["Boundary", "Probe", "Sweep", "SweepPoint", "highest_load", "shown", "sweep"]

Probe = Callable[[Load], Awaitable[Measurement]]
"""Measures one load; whoever sweeps decides how many requests and for how long."""

OVERLOAD = 1.25
"""Times the capacity: a rate that has to saturate."""
NEAR = 0.15
"""Within this relative distance of the boundary one probe may be a matter of luck; it is repeated."""


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One load of a sweep and what came of it."""

    load: Load
    estimates: Mapping[str, Estimate]
    saturated: bool
    """Requests came faster than they were answered; also the closed loop that shows the capacity."""
    warnings: tuple[str, ...] = ()
    """What its certificate warns of."""
    certificate: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answered_per_s(self) -> float:
        """Answers delivered per second."""
        return self.estimates["answers_per_minute"].value / 60


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The points in rising order of load."""

    points: tuple[SweepPoint, ...]

    @property
    def fullest(self) -> SweepPoint:
        """The load that drew out most answers; a saturated rate's own figure counts time spent waiting."""
        bearable = [point for point in self.points if not (point.saturated and point.load.is_open)]
        return max(bearable, key=lambda point: point.answered_per_s)

    @property
    def capacity_per_s(self) -> float:
        """The most answers per second that a load drew out."""
        return self.fullest.answered_per_s


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Where loads stop being met: the highest seen to be met and the lowest seen to fail (None: none failed)."""

    met: float | None
    failed: float | None
    probes: int


async def sweep(measure: Probe, *, streams: int, levels: int = 6, seed: int = 0) -> Sweep:
    """One stream, ``streams`` at once (the capacity), ``levels`` Poisson rates evenly between, and one beyond it.

    Ends early at the first rate that saturates the endpoint: higher ones would say the same.
    """
    alone = await _point(measure, Load(streams=1, seed=seed))
    full = await _point(measure, Load(streams=streams, seed=seed))
    low, high = alone.answered_per_s, full.answered_per_s
    between: list[SweepPoint] = []
    rates = [low + (high - low) * level / (levels + 1) for level in range(1, levels + 1) if high > low]
    for rate in (*rates, OVERLOAD * max(low, high)):
        between.append(await _point(measure, Load(streams=None, rate=shown(rate), arrival="poisson", seed=seed)))
        if between[-1].saturated:
            break
    return Sweep(points=(alone, *between, replace(full, saturated=True)))


async def highest_load(
    meets: Callable[[float], Awaitable[bool]],
    *,
    start: float,
    ceiling: float = math.inf,
    tolerance: float = 0.05,
    votes: int = 3,
) -> Boundary:
    """The highest load that ``meets``: doubling from ``start``, then halving the (geometric) gap to ``tolerance``.

    Near the boundary a load is asked ``votes`` times and the majority decides. ``met`` is None where even a load far
    below ``start`` fails.
    """
    probes = 0

    async def decide(load: float, *, times: int) -> bool:
        nonlocal probes
        yes = 0
        for asked in range(1, times + 1):
            probes += 1
            yes += await meets(load)
            if max(yes, asked - yes) > times // 2:
                break
        return yes > times // 2

    met, failed = None, None
    load = start
    while failed is None and (met is None or met < ceiling):
        if await decide(load, times=1):
            met, load = load, min(load * 2, ceiling)
        else:
            failed = load
    floor = start / 1024
    while met is None and failed is not None and failed > floor:
        if await decide(failed / 2, times=1):
            met = failed / 2
        else:
            failed /= 2
    while met is not None and failed is not None and failed / met > 1 + tolerance:
        middle = math.sqrt(met * failed)
        if await decide(middle, times=votes if failed / met < 1 + 2 * NEAR else 1):
            met = middle
        else:
            failed = middle
    return Boundary(met=met, failed=failed, probes=probes)


def shown(rate: float) -> float:
    """A rate with three digits: what is shown is what was sent."""
    return float(f"{rate:.3g}")


async def _point(measure: Probe, load: Load) -> SweepPoint:
    found = await measure(load)
    return SweepPoint(
        load=load,
        estimates=found.estimates,
        saturated=bool(found.certificate.get("saturated")),
        warnings=found.warnings,
        certificate=found.certificate,
    )
