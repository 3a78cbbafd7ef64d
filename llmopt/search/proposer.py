"""What proposes the next configuration, and what it is told about the last ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmopt.records import Configuration, Outcome, SettingValue

__all__ = ["Costs", "PastTrial", "Prediction", "Prior", "Proposal", "Proposer", "Question", "Result"]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a launch (with warm-up) and the measurement of one configuration take, in seconds."""

    launch_s: float
    measure_s: float


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A configuration to try. ``position`` is its place in the proposer's sequence (None for enqueued ones).

    ``sampler`` is what the solver needs to know again at a resume; store it with the trial.
    """

    configuration: Configuration
    origin: str
    """``baseline``, ``preset``, ``user``, ``history``, ``prior``, ``random``, ``grid``, ``tpe``, ``nsga2``, ``gp`` …"""
    position: int | None = None
    derived_from: int | None = None
    sampler: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a trial ended: ``objectives`` and ``violations`` (≤ 0 where met) in the study's order, None if unmeasured."""

    outcome: Outcome
    objectives: tuple[float, ...] | None = None
    violations: tuple[float, ...] | None = None
    fidelity: float = 1.0
    launch_s: float | None = None
    warmup_s: float | None = None
    measure_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """A trial of an earlier run of the same study, as the store recorded it."""

    configuration: Configuration
    origin: str
    position: int | None
    result: Result
    sampler: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is believed about a configuration before it runs.

    ``objectives`` in the study's order and units; ``spread`` is the standard deviation of each one's logarithm (of the
    value itself for shares); ``violations`` of the study's limits, where foreseen; ``fits`` the probability that it
    runs at all.
    """

    objectives: tuple[float, ...]
    spread: tuple[float, ...]
    violations: tuple[float, ...] | None = None
    fits: float = 1.0


class Prior(Protocol):
    """Knowledge before the first trial; None is an honest *I do not know*."""

    def predict(self, configuration: Configuration) -> Prediction | None:
        """The prediction for one configuration."""
        ...


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the coordinator wants: the next in the sequence, not ``seen``, on the ``launch`` given if there is one.

    ``running`` is the launch key of the engine that runs and ``near`` its settings; a proposer that weighs ``costs``
    itself is given those and no ``launch``. ``pending`` were asked for and not told yet.
    """

    position: int
    seen: Callable[[Configuration], bool]
    launch: Mapping[str, SettingValue] | None = None
    running: str | None = None
    near: Mapping[str, SettingValue] | None = None
    costs: Costs | None = None
    pending: tuple[Configuration, ...] = ()


class Proposer(Protocol):
    """A source of configurations.

    ``stays`` says whether the coordinator keeps it on a running launch; others order their launches themselves.
    """

    origin: str
    stays: bool

    def propose(self, question: Question) -> tuple[Configuration, Mapping[str, Any]] | None:
        """The next configuration with the solver's own notes; None where nothing unseen is left."""
        ...

    def learn(self, configuration: Configuration, result: Result, *, sampler: Mapping[str, Any] | None = None) -> None:
        """Take a result into account, whoever proposed the configuration."""
        ...

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Begin again from earlier trials."""
        ...
