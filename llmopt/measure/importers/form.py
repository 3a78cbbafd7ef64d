"""The one form in which results of other tools are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmopt.records import Estimate

__all__ = ["ImportedRun", "Statistics", "number"]

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, kw_only=True)
class ImportedRun:
    """One load of another tool: figures under our names, and where its meaning of a name differs from ours."""

    tool: str
    version: str
    model: str
    load: str
    """As the tool describes it: ``concurrency 8``, ``poisson 2.0/s`` …"""
    estimates: Mapping[str, Estimate]
    differences: tuple[str, ...] = ()
    """Message keys of what to know before comparing."""
    extra: Mapping[str, Any] = field(default_factory=dict)


class Statistics:
    """Collects figures of one tool; what is missing or not a finite number is left out."""

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self.estimates: dict[str, Estimate] = {}

    def put(self, name: str, value: object, unit: str, *, n: int = 0, low: object = None, high: object = None) -> None:
        """One figure, with the tool's own interval where it has one."""
        found = number(value)
        if found is not None:
            self.estimates[name] = Estimate(
                value=found, unit=unit, n=n, low=number(low), high=number(high), method=f"as {self._tool} reports it"
            )

    def latency(
        self,
        name: str,
        statistics: Mapping[str, object],
        *,
        n: int = 0,
        scale: float = 1.0,
        bounds: Mapping[str, object] | None = None,
    ) -> None:
        """Mean and percentiles (``mean``, ``p50`` …) of one latency; ``scale`` turns its unit into milliseconds.

        ``bounds`` has ``lower`` and ``upper`` under the same keys, where the tool gives intervals.
        """
        for key in ("mean", *(f"p{p}" for p in PERCENTILES)):
            value = number(statistics.get(key))
            if value is None:
                continue
            found = (bounds or {}).get(key)
            edges = found if isinstance(found, dict) else {}
            low, high = number(edges.get("lower")), number(edges.get("upper"))
            low, high = (None, None) if low is None or high is None else (low * scale, high * scale)
            self.put(f"{name}_{key}_ms", value * scale, "ms", n=n, low=low, high=high)


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
