"""What a study says of its trials: the data of events, always plain."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from llmopt.hardware.levels import LevelChange
from llmopt.objective import Objective
from llmopt.records import Configuration, Measurement, Outcome, Sample
from llmopt.search.proposer import Result
from llmopt.search.trial import TrialResult
from llmopt.study.events import Event, Listener
from llmopt.study.knowledge import Knowledge

__all__ = ["Teller", "cause"]

SHOWN = ("accuracy", "answers_per_minute", "memory_bytes")


class Teller:
    """Turns trials into events; knows which one is the best so far."""

    def __init__(self, say: Listener, baseline: Configuration, objectives: Sequence[Objective]) -> None:
        self.say = say
        self._baseline = baseline.flat()
        self._objectives = objectives
        self._best_gain: float | None = None
        self.answers = 0
        """Of the pass that runs, or ran last."""
        self.first_answer_s: float | None = None
        """When its first answer came, monotonic."""

    def phase(self, name: str) -> None:
        """Say that a part of the study begins."""
        self.say(Event(kind="phase", data={"name": name}))

    def knows(self, knowledge: Knowledge) -> None:
        """Say what is known before the first trial of the search."""
        if knowledge.foreseen:
            self.say(Event(kind="note", data={"key": "study.foreseen"}))
        if knowledge.studies:
            names = {"names": ", ".join(knowledge.studies)}
            self.say(Event(kind="note", data={"key": "study.learnt_from", "values": names}))

    def started(self, number: int, configuration: Configuration, *, items: int, left_s: float | None) -> None:
        """Say what is about to be tried, as its difference from the baseline."""
        changed = {name: v for name, v in configuration.flat().items() if self._baseline.get(name) != v}
        data = {"number": number, "settings": changed, "items": items, "left_s": left_s}
        self.say(Event(kind="trial_started", data=data))

    def ended(self, number: int, result: TrialResult, told: Result, *, left_s: float | None) -> None:
        """Say how it went."""
        measurement = result.measurement
        accuracy = measurement.estimates.get("accuracy") if measurement else None
        data: dict[str, Any] = {
            "number": number,
            "outcome": result.outcome.value,
            "share": result.fidelity,
            **{name: measurement.value(name) if measurement else None for name in SHOWN},
            "items": accuracy.n if accuracy else 0,
            "why": result.failed.text if result.failed else None,
            "warnings": list(measurement.warnings) if measurement else [],
            "new_best": result.outcome is Outcome.DONE and self.is_new_best(measurement, told),
            "left_s": left_s,
        }
        self.say(Event(kind="trial_ended", data=data))

    def is_new_best(self, measurement: Measurement | None, told: Result) -> bool:
        """Whether this trial is feasible and has the largest product of objectives so far."""
        if measurement is None or told.objectives is None or any(v > 0 for v in told.violations or ()):
            return False
        gain = 1.0
        for objective, value in zip(self._objectives, told.objectives, strict=True):
            gain *= value if objective.maximize else 1.0 / max(value, 1e-9)
        if self._best_gain is not None and gain <= self._best_gain:
            return False
        self._best_gain = gain
        return True

    def level_changed(self, change: LevelChange) -> None:
        """Say that memory became tighter or easier; called from the watch's thread."""
        used = change.reading.host_total_bytes - change.reading.host_available_bytes
        self.say(Event(kind="memory", data={"level": change.after.name.lower(), "bytes": used}))

    def counting(self, total: int) -> Callable[[Sample], None]:
        """A callback that says how many of ``total`` answers came."""
        self.answers, self.first_answer_s = 0, None

        def note(sample: Sample) -> None:
            del sample
            self.answers += 1
            self.first_answer_s = self.first_answer_s or time.monotonic()
            self.say(Event(kind="sample", data={"done": self.answers, "total": total}))

        return note


def cause(result: TrialResult) -> dict[str, str]:
    """Why a trial has no measurement and what mends it (``why``), and the log's last lines (``detail``)."""
    failed = result.failed
    if failed is None:
        return {"why": result.outcome.value, "detail": ""}
    return {"why": f"{failed.text} {failed.remedy}".strip(), "detail": failed.detail}
