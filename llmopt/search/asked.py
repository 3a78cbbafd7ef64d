"""What a trial is asked and how it ends: answers scored as they come, a referee that may stop it, the result."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llmopt.failures import Failure
from llmopt.measure.warmup import WarmUp
from llmopt.messages import t
from llmopt.records import Configuration, Item, Measurement, Outcome, Sample, Score
from llmopt.search.workload import Workload

if TYPE_CHECKING:
    from llmopt.hardware.sampler import TracePoint
    from llmopt.search.racing import Decision

__all__ = ["Asked", "Failed", "Referee", "TrialResult"]


class Referee(Protocol):
    """Watches a running trial; says after each answer whether it may stop."""

    def answered(self, sample: Sample, score: Score) -> Decision:
        """Take one more answer into account."""
        ...


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why a trial has no measurement: the catalogue's id, what happened and why, and the log's last lines."""

    id: str
    category: str
    text: str
    remedy: str = ""
    detail: str = ""
    done: str = ""
    """What the tool does about it by itself, in words."""
    advice: dict[str, Any] | None = None
    """The same as plain data, where a derived trial follows: its settings and the labels of the advice so far."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How a trial ended, with everything it measured; times in seconds."""

    outcome: Outcome
    measurement: Measurement | None = None
    samples: tuple[Sample, ...] = ()
    scores: tuple[Score, ...] = ()
    failed: Failed | None = None
    failure: Failure | None = None
    """The same as classified, for advice; not kept on disk."""
    fidelity: float = 1.0
    """Share of the items that were answered: below 1 only where the trial was raced out."""
    launch_s: float = 0.0
    warmup_s: float = 0.0
    measure_s: float = 0.0
    course: tuple[TracePoint, ...] = ()
    """The engine's memory over time, from the trial's beginning (its launch, where it had one of its own)."""
    number: int | None = None
    """Its number in the records of the study, once it is there."""


class Asked:
    """One configuration under measurement: scores each answer as it comes and asks the referee."""

    def __init__(
        self, configuration: Configuration, items: Sequence[Item], work: Workload, referee: Referee | None
    ) -> None:
        self.configuration = configuration
        self.load = work.load
        self.warm: WarmUp | None = None
        """How the engine was warmed up for it; None where it follows another on the same engine."""
        self.decided = asyncio.Event()
        """Set when the referee has ended the trial."""
        self._items = {item.id: item for item in items}
        self._judge = work.judge
        self._referee = referee
        self._decision: Decision | None = None
        self._scores: dict[int, Score] = {}

    def note(self, sample: Sample) -> None:
        """One more answer came."""
        if self._referee is None or self.decided.is_set():
            return
        decision = self._referee.answered(sample, self._score(sample))
        if decision.drop:
            self._decision = decision
            self.decided.set()

    def scores(self, samples: Sequence[Sample]) -> tuple[Score, ...]:
        """The scores of all of its samples, each computed once."""
        return tuple(self._score(sample) for sample in samples)

    def _score(self, sample: Sample) -> Score:
        if id(sample) not in self._scores:
            (self._scores[id(sample)],) = self._judge.scores(self._items, [sample])
        return self._scores[id(sample)]

    def result(self, measurement: Measurement, samples: tuple[Sample, ...], scores: tuple[Score, ...]) -> TrialResult:
        """The trial as it ended: in full, or raced out with the share of the items it answered."""
        answered = len({sample.item_id for sample in samples})
        if self._decision is None or answered == len(self._items):
            return TrialResult(outcome=Outcome.DONE, measurement=measurement, samples=samples, scores=scores)
        reason = self._decision.reason
        return TrialResult(
            outcome=Outcome.RACED_OUT,
            measurement=measurement,
            samples=samples,
            scores=scores,
            failed=Failed(id=reason, category="raced_out", text=t(reason)),
            fidelity=answered / len(self._items),
        )
