"""When requests of an open loop start: a schedule of absolute times, the same for every configuration with its seed.

Rates change by time-warping one unit-rate series, so two configurations (or two rates) see the same bursts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from llmopt.errors import UsageError
from llmopt.records import Load

__all__ = ["ARRIVALS", "Ramp", "arrival_times", "open_load"]

ARRIVALS = ("constant", "poisson", "gamma")


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A rate that moves from ``from_rate`` to ``to_rate`` (per second) in ``seconds``, then stays."""

    from_rate: float
    to_rate: float
    seconds: float
    shape: Literal["linear", "exponential"] = "linear"

    def __post_init__(self) -> None:
        if min(self.from_rate, self.to_rate, self.seconds) <= 0:
            raise ValueError("a ramp needs positive rates and a positive duration")

    def expected(self, at_s: float) -> float:
        """How many arrivals are expected by ``at_s``: the integral of the rate."""
        inside_s = min(at_s, self.seconds)
        if self.shape == "linear" or self.from_rate == self.to_rate:
            slope = (self.to_rate - self.from_rate) / self.seconds
            count = self.from_rate * inside_s + slope * inside_s**2 / 2
        else:
            growth = math.log(self.to_rate / self.from_rate) / self.seconds
            count = self.from_rate / growth * math.expm1(growth * inside_s)
        return count + self.to_rate * max(at_s - self.seconds, 0.0)

    def when(self, count: float) -> float:
        """The time by which ``count`` arrivals are expected: the inverse of ``expected``."""
        total = self.expected(self.seconds)
        if count >= total:
            return self.seconds + (count - total) / self.to_rate
        if self.shape == "linear" or self.from_rate == self.to_rate:
            slope = (self.to_rate - self.from_rate) / self.seconds
            root = math.sqrt(self.from_rate**2 + 2 * slope * count)
            return 2 * count / (self.from_rate + root)
        growth = math.log(self.to_rate / self.from_rate) / self.seconds
        return math.log1p(growth * count / self.from_rate) / growth


def arrival_times(load: Load, count: int) -> tuple[float, ...]:
    """Seconds from the start of the load at which each of ``count`` requests is due; never decreasing.

    ``gamma`` arrivals have gaps of shape ``burstiness`` (1 is Poisson, less is burstier, CV = 1/√burstiness).
    Raises ValueError without a positive rate.
    """
    rate = load.rate
    if rate is None or rate <= 0:
        raise ValueError("an open loop needs a positive rate")
    due = itertools.islice(_unit_rate(load), count)
    if load.ramp_from is None:
        return tuple(position / rate for position in due)
    ramp = Ramp(from_rate=load.ramp_from, to_rate=rate, seconds=load.ramp_s, shape=load.ramp_shape)
    return tuple(ramp.when(position) for position in due)


def open_load(
    rate: float, *, arrival: str | None = None, burstiness: float | None = None, ramp: str | None = None, seed: int = 0
) -> Load:
    """The open load of command line words; ``ramp`` is ``FROM:SECONDS`` or ``FROM:SECONDS:exponential``.

    Raises UsageError for what is no load: one sentence that says what is expected.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise UsageError("study.rate", value=rate)
    chosen = arrival or ("poisson" if burstiness is None else "gamma")
    if chosen not in ARRIVALS:
        raise UsageError("measure.arrival", value=chosen, known=", ".join(ARRIVALS))
    if burstiness is not None and chosen != "gamma":
        raise UsageError("measure.burstiness_without_gamma", arrival=chosen)
    if burstiness is not None and not (math.isfinite(burstiness) and burstiness > 0):
        raise UsageError("measure.burstiness", value=burstiness)
    plain = Load(streams=None, rate=rate, arrival=chosen, burstiness=burstiness or 1.0, seed=seed)  # type: ignore[arg-type]
    return plain if ramp is None else _ramped(plain, ramp)


def _ramped(load: Load, text: str) -> Load:
    start, _, rest = text.partition(":")
    seconds, _, shape = rest.partition(":")
    try:
        from_rate, ramp_s = float(start), float(seconds.removesuffix("s"))
    except ValueError:
        raise UsageError("measure.ramp", value=text) from None
    positive = math.isfinite(from_rate) and math.isfinite(ramp_s) and min(from_rate, ramp_s) > 0
    if not positive or shape not in {"", "linear", "exponential"}:
        raise UsageError("measure.ramp", value=text)
    return replace(load, ramp_from=from_rate, ramp_s=ramp_s, ramp_shape=shape or "linear")  # type: ignore[arg-type]


def _unit_rate(load: Load) -> Iterator[float]:
    """Arrivals of rate 1: the series that is stretched to the rate asked for."""
    from random import Random  # noqa: PLC0415 - a closed loop draws nothing

    rng = Random(f"arrivals {load.seed}")
    position = 0.0
    while True:
        if load.arrival == "poisson":
            position += -math.log1p(-rng.random())
        elif load.arrival == "gamma":
            position += rng.gammavariate(load.burstiness, 1 / load.burstiness)
        yield position
        if load.arrival in {"constant", "closed"}:
            position += 1.0
