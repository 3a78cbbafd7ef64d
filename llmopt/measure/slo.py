"""Service-level objectives: ``ttft<500ms,itl<50ms,e2e<10s`` → limits that one request meets or misses."""

from __future__ import annotations

import difflib
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from llmopt.errors import UsageError
from llmopt.measure import timing
from llmopt.records import Sample

__all__ = ["Limit", "Slo", "parse_slo"]

UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
COMPLETE = "complete"
_LIMIT = re.compile(r"([a-z0-9_]+)\s*(<=?|=<|≤)\s*([0-9]*\.?[0-9]+)\s*([a-zμµ]*)")


def _mean(gaps: tuple[float, ...]) -> float | None:
    return statistics.fmean(gaps) if gaps else None


MEASURES: Mapping[str, Callable[[Sample], float | None]] = {
    "ttft": lambda sample: timing.ttft_s(sample, planned=True),
    "ttfot": lambda sample: timing.ttfot_s(sample, planned=True),
    "itl": lambda sample: _mean(timing.token_gaps_s(sample)),
    "stall": lambda sample: max(timing.chunk_gaps_s(sample), default=None),
    "tpot": timing.tpot_s,
    "e2e": lambda sample: timing.e2e_s(sample, planned=True),
}
"""What a limit may be put on, for one request; starts count from the *planned* moment (the same in a closed loop)."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit: ``name`` of MEASURES, at most ``seconds``."""

    name: str
    seconds: float

    def met(self, sample: Sample) -> bool:
        """Whether this request keeps it; a gap that does not exist (one token) breaks none, a missing start does."""
        value = MEASURES[self.name](sample)
        return value <= self.seconds if value is not None else self.name in {"itl", "stall", "tpot"}


@dataclass(frozen=True, kw_only=True)
class Slo:
    """Limits a request must meet together; ``complete`` adds that the answer was not cut by max_tokens."""

    text: str
    limits: tuple[Limit, ...]
    complete: bool = False

    def met(self, sample: Sample) -> bool:
        """Whether one request is good: answered with content, within every limit."""
        if not sample.ok or not sample.token_s or (self.complete and sample.finish_reason == "length"):
            return False
        return all(limit.met(sample) for limit in self.limits)


def parse_slo(text: str) -> Slo:
    """Read ``name<number unit`` parts joined by commas (units us, ms, s, m), and the word ``complete``.

    Raises UsageError that names the part, and the nearest name where it is a slip.
    """
    limits: list[Limit] = []
    complete = False
    for part in (piece.strip().lower() for piece in text.split(",")):
        if part == COMPLETE:
            complete = True
            continue
        found = _LIMIT.fullmatch(part)
        if found is None:
            raise UsageError("measure.slo_part", part=part or "(…)", text=text)
        name, _, number, unit = found.groups()
        unit = unit.replace("μ", "u").replace("µ", "u")
        if name not in MEASURES:
            _unknown(name)
        if unit not in UNITS_S:
            raise UsageError("measure.slo_unit", part=part, units=", ".join(UNITS_S))
        if float(number) <= 0:
            raise UsageError("measure.slo_part", part=part, text=text)
        limits.append(Limit(name=name, seconds=float(number) * UNITS_S[unit]))
    return Slo(text=text, limits=tuple(limits), complete=complete)


def _unknown(name: str) -> NoReturn:
    near = difflib.get_close_matches(name, MEASURES, n=1, cutoff=0.4)
    raise UsageError("measure.slo_name", name=name, near=near[0] if near else "ttft", names=", ".join(MEASURES))
