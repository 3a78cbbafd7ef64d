"""What a speed costs on a machine that has a price."""

from __future__ import annotations

from collections.abc import Mapping

from llmopt.records import Estimate

__all__ = ["costs"]

TOKENS, ANSWERS = 1_000_000, 1_000


def costs(figures: Mapping[str, Estimate], price_per_hour: float | None) -> dict[str, Estimate]:
    """What a million output tokens and a thousand answers cost at this speed; the interval is that of the speed.

    Nothing where the machine has no price, and nothing of a speed that was not measured.
    """
    found: dict[str, Estimate] = {}
    if not price_per_hour:
        return found
    for name, speed, per_hour, unit in (
        ("cost_per_million_tokens", "output_tokens_per_s", 3600 / TOKENS, "price/1M tokens"),
        ("cost_per_thousand_answers", "answers_per_minute", 60 / ANSWERS, "price/1k answers"),
    ):
        estimate = figures.get(speed)
        if estimate is None or estimate.value <= 0:
            continue
        low, high = (_cost(price_per_hour, rate, per_hour) for rate in (estimate.high, estimate.low))
        if low is None or high is None:
            low = high = None
        value = price_per_hour / (estimate.value * per_hour)
        found[name] = Estimate(value=value, unit=unit, n=estimate.n, low=low, high=high, method=f"price / {speed}")
    return found


def _cost(price_per_hour: float, rate: float | None, per_hour: float) -> float | None:
    """None where the rate is not known, or its interval holds 0: then no cost is too high."""
    return price_per_hour / (rate * per_hour) if rate is not None and rate > 0 else None
