"""What a user asked for, before anything is looked up: every field has the command line's default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from llmopt.errors import UsageError
from llmopt.measure.arrivals import open_load
from llmopt.measure.load import SharedPrefix, parse_shared_prefix
from llmopt.records import Load, Strategy

__all__ = ["METHODS", "StudyRequest"]

MOST_SEEDS = 100
METHODS = ("auto", "tpe", "gp", "nsga2", "random", "grid")


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """One optimisation as asked for. ``None`` leaves a choice to settings, dataset or hardware."""

    model: str
    dataset: str
    engine: str | None = None
    strategy: Strategy | None = None
    objectives: str | None = None
    constraints: tuple[str, ...] = ()
    method: str = "auto"
    trials: int = 30
    timeout_s: float | None = None
    soft_limit: bool = False
    """The time limit is a wish: a slower machine stretches it to the smallest useful one (the demo's limit)."""
    samples: int | None = None
    confirm_samples: int | None = None
    streams: int = 4
    rate: float | None = None
    arrival: str | None = None
    """How an open load's requests are spread: constant, poisson (the default) or gamma."""
    burstiness: float | None = None
    ramp: str | None = None
    """``FROM:SECONDS``: the rate starts at FROM and reaches ``rate`` after so many seconds."""
    shared_prefix: str | None = None
    """``TOKENS`` or ``TOKENS:GROUPS``: a text before every prompt, to see what prefix caching gains."""
    max_tokens: int | None = None
    seed: int = 0
    safe: bool = False
    cluster: str | None = None
    """``auto`` or the address of a Ray cluster whose machines run the trials; None for this machine."""
    name: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    examples: str | None = None
    """A file of worked examples for the prompts."""
    evaluator: str | None = None
    """Who scores every answer, in place of each item's kind: a built-in scorer or one of an installed package."""
    quality_only: bool = False
    """No speed is measured: kept answers may be used again, and likelihoods may be an answer."""
    choices: str = "generated"
    """How options are chosen: letters ``generated``, or by the ``logprobs`` of one token."""
    seeds: int | None = None
    """Answers to each item where the temperature is above 0; None: 1, or what diversity needs."""
    quality_margin: float = 0.02
    speed_margin: float = 0.05
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no machine could do, in one sentence each."""
        if self.trials < 1:
            raise UsageError("study.trials", value=self.trials)
        if self.timeout_s is not None and not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise UsageError("study.timeout", value=self.timeout_s)
        if self.method not in METHODS:
            raise UsageError("study.method", value=self.method, known=", ".join(METHODS))
        if self.samples is not None and self.samples < 2:  # noqa: PLR2004 - one item supports no interval
            raise UsageError("study.samples", value=self.samples)
        if self.streams < 1:
            raise UsageError("study.streams", value=self.streams)
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError("study.max_tokens", value=self.max_tokens)
        if self.seeds is not None and not 1 <= self.seeds <= MOST_SEEDS:
            raise UsageError("study.seeds", value=self.seeds, most=MOST_SEEDS)
        _ = self.load, self.prefix

    @property
    def load(self) -> Load:
        """How requests arrive; raises UsageError for what is no load."""
        if self.rate is not None:
            return open_load(
                self.rate, arrival=self.arrival, burstiness=self.burstiness, ramp=self.ramp, seed=self.seed
            )
        for option in ("arrival", "burstiness", "ramp"):
            if getattr(self, option) is not None:
                raise UsageError("measure.open_load_only", option=f"--{option}")
        return Load(streams=self.streams, seed=self.seed)

    @property
    def prefix(self) -> SharedPrefix | None:
        """What stands before every prompt; raises UsageError for what cannot be read."""
        return None if self.shared_prefix is None else parse_shared_prefix(self.shared_prefix)

    def to_spec(self) -> dict[str, Any]:
        """Plain data for the database; ``from_spec`` reads it back."""
        spec = asdict(self)
        spec["strategy"] = self.strategy.value if self.strategy else None
        return spec

    def conditions(self) -> dict[str, Any]:
        """What must be equal for trials to stand side by side: everything but name and budget."""
        budget = {"name", "trials", "timeout_s", "soft_limit"}
        return {name: value for name, value in self.to_spec().items() if name not in budget}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> StudyRequest:
        """The request of a stored study; fields of later versions are ignored."""
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in spec.items() if name in known}
        values["constraints"] = tuple(values.get("constraints") or ())
        strategy = values.get("strategy")
        values["strategy"] = Strategy(strategy) if strategy else None
        return cls(**values)
