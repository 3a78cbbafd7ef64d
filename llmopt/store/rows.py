"""What the store hands out: a study, a trial, and the few figures of a trial that lists and plots need."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmopt.records import Outcome
from llmopt.store.encoding import configuration_from_json, measurement_from_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from llmopt.records import Configuration, Measurement

__all__ = ["POINT_COLUMNS", "ErrorRow", "EventRow", "StudyRow", "TrialPoint", "TrialRow"]


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A study: what it is (``spec``), how far it came (``counts`` by outcome) and, when finished, its ``summary``."""

    id: int
    name: str
    state: str
    """``running``, ``interrupted``, ``finished`` or ``failed``."""
    fingerprint: str
    model: str
    engine: str
    dataset: str
    hardware: str
    created_s: float
    updated_s: float
    spec: Mapping[str, Any]
    summary: Mapping[str, Any] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def trials(self) -> int:
        """How many trials were started."""
        return sum(self.counts.values())


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial with everything recorded about it; times of day in seconds since 1970, durations in seconds."""

    study_id: int
    number: int
    configuration: Configuration
    origin: str
    phase: str
    """``baseline``, ``search`` or ``confirm``."""
    position: int | None
    """Its place in the proposer's own sequence, from which random numbers are drawn again at a resume."""
    derived_from: int | None
    fidelity: float
    outcome: Outcome
    objectives: tuple[float, ...] | None
    violations: tuple[float, ...] | None
    measurement: Measurement | None
    failure: Mapping[str, Any] | None
    sampler: Mapping[str, Any]
    samples: str | None
    hardware: str
    started_s: float
    ended_s: float | None
    launch_s: float | None
    warmup_s: float | None
    measure_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPoint:
    """The figures of a trial that plots, lists and a resume read for all trials."""

    number: int
    key: str
    launch_key: str
    outcome: str
    phase: str
    position: int | None
    fidelity: float
    objectives: tuple[float, ...] | None
    violations: tuple[float, ...] | None
    started_s: float
    ended_s: float | None


@dataclass(frozen=True, kw_only=True)
class ErrorRow:
    """One error of the history; ``signature`` is the catalogue's id."""

    time_s: float
    signature: str
    category: str
    engine: str
    study: str | None
    number: int | None
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """Something that happened in a study."""

    id: int
    time_s: float
    kind: str
    data: Mapping[str, Any]


POINT_COLUMNS = (
    "number, key, launch_key, outcome, phase, position, fidelity, objectives, violations, started_s, ended_s"
)


def study_from(row: sqlite3.Row, counts: Mapping[str, int]) -> StudyRow:
    """A StudyRow from its table row."""
    names = ("id", "name", "state", "fingerprint", "model", "engine", "dataset", "hardware", "created_s", "updated_s")
    return StudyRow(
        **{name: row[name] for name in names},
        spec=json.loads(row["spec"]),
        summary=_loaded(row["summary"]),
        counts=counts,
    )


def trial_from(row: sqlite3.Row) -> TrialRow:
    """A TrialRow from its table row."""
    names = (
        "study_id", "number", "origin", "phase", "position", "derived_from", "fidelity", "samples", "hardware",
        "started_s", "ended_s", "launch_s", "warmup_s", "measure_s",
    )  # fmt: skip
    return TrialRow(
        **{name: row[name] for name in names},
        configuration=configuration_from_json(row["configuration"]),
        outcome=Outcome(row["outcome"]),
        objectives=_numbers(row["objectives"]),
        violations=_numbers(row["violations"]),
        measurement=None if row["measurement"] is None else measurement_from_json(row["measurement"]),
        failure=_loaded(row["failure"]),
        sampler=_loaded(row["sampler"]) or {},
    )


def point_from(row: sqlite3.Row) -> TrialPoint:
    """A TrialPoint from a row of ``POINT_COLUMNS``."""
    names = ("number", "key", "launch_key", "outcome", "phase", "position", "fidelity", "started_s", "ended_s")
    return TrialPoint(
        **{name: row[name] for name in names},
        objectives=_numbers(row["objectives"]),
        violations=_numbers(row["violations"]),
    )


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _numbers(text: str | None) -> tuple[float, ...] | None:
    return None if text is None else tuple(json.loads(text))
