"""How many launches: asked for, else from what calibration found of this machine, else the fewest that say anything."""

from __future__ import annotations

from collections.abc import Sequence

from llmopt.measure.stats.looks import Look, plan_looks
from llmopt.study.events import Event, Listener
from llmopt.study.prepare import Prepared

__all__ = ["MOST", "launches_for", "looks_for", "pairs_for", "tell_resolution"]

MOST_DERIVED = 12
"""Calibration asks for no more than this by itself; a user may."""
MOST = 16
"""Where measuring until it is decided ends, unless told otherwise."""


def pairs_for(prepared: Prepared, *, requests: int, least: int) -> int:
    """Pairs of launches that find a difference of the speed margin, as calibrated; ``least`` where it was not."""
    margin = prepared.request.speed_margin
    if prepared.noise is None or margin <= 0:
        return least
    return min(max(prepared.noise.at(requests).pairs_for(margin), least), MOST_DERIVED)


def launches_for(prepared: Prepared, *, requests: int, precision: float, least: int) -> int:
    """Launches after which a mean is known to ``precision`` (relative), as calibrated; ``least`` where it was not."""
    if prepared.noise is None or precision <= 0:
        return least
    return min(max(prepared.noise.at(requests).launches_for(precision), least), MOST_DERIVED)


def looks_for(first: int, *, until_decided: bool, most: int | None) -> tuple[Look, ...]:
    """The planned looks: one after ``first`` launches, or several up to ``most`` where it goes on until decided."""
    return plan_looks(first, max(first, most or MOST) if until_decided else first)


def tell_resolution(listener: Listener, prepared: Prepared, *, requests: int, launches: Sequence[int]) -> None:
    """Say what so many launches of so many requests can tell from chance, or that nobody has measured that yet."""
    if prepared.noise is None:
        listener(Event(kind="note", data={"key": "measure.uncalibrated_here", "values": {}}))
        return
    floor = prepared.noise.at(requests)
    told = ", ".join(f"{n}: ±{100 * floor.resolves(n):.1f}%" for n in launches)
    listener(Event(kind="note", data={"key": "measure.resolves", "values": {"told": told, "pairs": floor.pairs}}))
