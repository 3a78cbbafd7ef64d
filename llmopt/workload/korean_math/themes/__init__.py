"""The problems themselves, one file a theme. All sentences were written for this set."""

from __future__ import annotations

from functools import cache

from llmopt.workload.korean_math.template import Template
from llmopt.workload.korean_math.themes import ages, clock, geometry, money, rates, ratios, remainders, things, units

__all__ = ["all_templates"]


@cache
def all_templates() -> tuple[Template, ...]:
    """Every template, themes in a fixed order (the order decides the splits)."""
    return (
        *things.TEMPLATES,
        *money.TEMPLATES,
        *ages.TEMPLATES,
        *clock.TEMPLATES,
        *units.TEMPLATES,
        *ratios.TEMPLATES,
        *remainders.TEMPLATES,
        *geometry.TEMPLATES,
        *rates.TEMPLATES,
    )
