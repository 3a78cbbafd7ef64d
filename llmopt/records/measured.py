"""What was measured, how it ended, and what may be claimed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, Literal

__all__ = [
    "UNJUDGED",
    "AnswerStatus",
    "Estimate",
    "Measurement",
    "Outcome",
    "Sample",
    "Score",
    "Verdict",
    "VerdictKind",
]


UNJUDGED = "answered"
"""The rule of an answer to an open question that was compared with nothing: its score is not a quality."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One answered (or failed) request; all times are seconds on the client's monotonic clock."""

    item_id: str
    planned_s: float
    sent_s: float
    ended_s: float
    token_s: tuple[float, ...] = ()
    """Arrival of each content-bearing event."""
    token_counts: tuple[int, ...] = ()
    """Tokens in each of those events; empty means one each (or not known)."""
    first_answer_s: float | None = None
    """Arrival of the first event that is not reasoning."""
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_counted_by: Literal["usage", "tokenizer", "chunks"] = "usage"
    error: str | None = None
    """A short class and message where the request failed; never the key."""

    @property
    def ok(self) -> bool:
        """Whether an answer came."""
        return self.error is None


class AnswerStatus(str, Enum):
    """How an answer ended, besides its score."""

    OK = "ok"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    NO_ANSWER = "no_answer_found"
    WRONG_LANGUAGE = "wrong_language"
    REFUSED = "refused"
    REQUEST_ERROR = "request_error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One scored answer; ``value`` is 0..1, ``rule`` names the extraction rule that fired."""

    item_id: str
    value: float
    status: AnswerStatus
    extracted: str | None = None
    rule: str = ""

    @property
    def counted(self) -> bool:
        """Whether it says anything about quality: a failed request and an answer nobody could judge do not."""
        return self.status is not AnswerStatus.REQUEST_ERROR and self.rule != UNJUDGED


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its unit, sample count and 95 % interval; ``low``/``high`` are None where n supports none."""

    value: float
    unit: str
    n: int
    low: float | None = None
    high: float | None = None
    method: str = ""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one trial found: named estimates, and whether they may be believed.

    Names in use: ``accuracy`` (0..1), ``answers_per_minute``, ``output_tokens_per_s``, ``ttft_p50_ms``,
    ``ttft_p95_ms``, ``itl_p50_ms``, ``tpot_p50_ms``, ``e2e_p50_ms``, ``memory_bytes``, ``error_rate``, ``diversity``.
    """

    estimates: Mapping[str, Estimate]
    valid: bool = True
    warnings: tuple[str, ...] = ()
    """Message keys of the certificate: client-limited, not steady, co-load, too few samples."""
    certificate: Mapping[str, Any] = field(default_factory=dict)
    provisional: Mapping[str, float] = field(default_factory=dict)
    """Percentiles of a sample too small to support them: they steer a search, and are never a result."""

    def steering(self) -> Measurement:
        """With the provisional figures where there are no better ones: what a search goes by."""
        rough = {name: Estimate(value=v, unit="", n=0, method="provisional") for name, v in self.provisional.items()}
        return replace(self, estimates={**rough, **self.estimates})

    def value(self, name: str) -> float | None:
        """The figure of one estimate, or None where it was not measured."""
        estimate = self.estimates.get(name)
        return None if estimate is None else estimate.value

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the database and ``result.json``."""
        return asdict(self)


class Outcome(str, Enum):
    """How a trial ended."""

    RUNNING = "running"
    DONE = "done"
    INFEASIBLE = "infeasible"
    """Refused before launch, or ended by memory or an unsupported combination."""
    FAILED = "failed"
    RACED_OUT = "raced_out"
    ABANDONED = "abandoned"


class VerdictKind(str, Enum):
    """What a comparison may claim."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    TIE = "tie"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One configuration against another on one objective: ``effect`` is the ratio or difference, with its interval."""

    kind: VerdictKind
    objective: str
    effect: Estimate
    relative: bool
    """True where the effect is a ratio (speed), False where it is a difference (quality)."""
    method: str = ""
    more_samples: int | None = None
    """How many further samples would probably decide, where undecided."""
