"""Everything that happened goes to disk before it is believed: trials and confirmation passes into the store."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmopt.logs import mask
from llmopt.objective import Constraint, Objective, objective_values
from llmopt.records import Configuration, Outcome
from llmopt.search.confirm import Arm, ArmPass
from llmopt.search.proposer import PastTrial, Result
from llmopt.search.trial import Failed, TrialResult
from llmopt.store.beside import read_answers, write_answers, write_course
from llmopt.store.database import Store
from llmopt.store.rows import TrialRow

__all__ = ["Recorder", "result_of", "told_of", "trial_result"]

OPEN = frozenset({Outcome.ABANDONED, Outcome.RUNNING})
"""Trials without an end of their own: they are run again, under another number."""


class Recorder:
    """Writes one study. ``constraints`` may be completed once the baseline is known (floors are relative to it)."""

    def __init__(
        self, store: Store, study_id: int, folder: Path, *, objectives: Sequence[Objective], hardware: str, engine: str
    ) -> None:
        self.store = store
        self.study_id = study_id
        self.folder = folder
        self.objectives = tuple(objectives)
        self.constraints: tuple[Constraint, ...] = ()
        self._hardware = hardware
        self._engine = engine
        self._attempt = secrets.token_hex(4)

    def started(
        self,
        configuration: Configuration,
        *,
        origin: str,
        phase: str,
        position: int | None = None,
        derived_from: int | None = None,
        sampler: Any = None,
    ) -> int:
        """Record that a trial begins; its number."""
        return self.store.start_trial(
            self.study_id,
            configuration,
            origin=origin,
            phase=phase,
            position=position,
            derived_from=derived_from,
            sampler=sampler,
            hardware=self._hardware,
        )

    def finished(self, number: int, result: TrialResult) -> Result:
        """Commit a trial's end with its raw samples; what the coordinator is to be told."""
        told = result_of(result, self.objectives, self.constraints)
        name = None
        if result.samples:
            name = write_answers(self.folder, number, result.samples, result.scores)
            write_course(self.folder, number, result.course)
        gain = self.objectives[0].gain(told.objectives[0]) if told.objectives else None
        self.store.finish_trial(
            self.study_id,
            number,
            result.outcome,
            measurement=result.measurement,
            objectives=told.objectives,
            violations=told.violations,
            score=gain,
            failure=asdict(result.failed) if result.failed else None,
            samples=name,
            fidelity=result.fidelity,
            launch_s=result.launch_s,
            warmup_s=result.warmup_s,
            measure_s=result.measure_s,
        )
        if result.failed is not None and result.outcome is not Outcome.RACED_OUT:
            failed = result.failed
            self.store.history.record_error(
                failed.id,
                category=failed.category,
                engine=self._engine,
                study_id=self.study_id,
                number=number,
                data={"text": mask(failed.text), "remedy": mask(failed.remedy), "done": mask(failed.done)},
            )
        return told

    def abandoned(self, number: int) -> None:
        """Record that a running trial was given up (Ctrl-C, time limit)."""
        self.store.finish_trial(self.study_id, number, Outcome.ABANDONED)

    @contextmanager
    def running(self, *numbers: int) -> Iterator[None]:
        """Trials that are left by an exception are recorded as abandoned."""
        try:
            yield
        except BaseException:
            for number in numbers:
                self.abandoned(number)
            raise

    def recorded(self, block: int, arm: Arm, result: TrialResult) -> None:
        """Commit one confirmation pass (the PassRecorder of ``search.confirm``)."""
        number = self.started(
            arm.configuration, origin="confirm", phase="confirm", position=block, sampler={"attempt": self._attempt}
        )
        self.finished(number, result)

    def past_trials(self) -> list[PastTrial]:
        """The search trials of an earlier run, for the coordinator."""
        return [
            PastTrial(
                configuration=row.configuration,
                origin=row.origin,
                position=row.position,
                result=told_of(row),
                sampler=row.sampler,
            )
            for row in self.store.best_and_newest(self.study_id)
            if row.phase != "confirm" and not (row.derived_from is not None and row.outcome in OPEN)
        ]

    def advised(self) -> list[TrialRow]:
        """The failed trials of the search and what was derived from them, in order: a resume goes on from there."""
        rows = self.store.trials(self.study_id, phase="search")
        return [row for row in rows if row.failure is not None or row.derived_from is not None]

    def ended_keys(self) -> set[str]:
        """The keys of all search trials that ended: none of them is ever run again."""
        open_ = {outcome.value for outcome in OPEN}
        points = self.store.points(self.study_id)
        return {p.key for p in points if p.phase != "confirm" and p.outcome not in open_}

    def past_passes(self) -> list[ArmPass]:
        """The finished confirmation passes of an earlier run, with their raw samples."""
        return [
            ArmPass(
                block=row.position or 0,
                key=row.configuration.key,
                result=trial_result(row, self.folder),
                attempt=str(row.sampler.get("attempt", "")),
            )
            for row in self.store.trials(self.study_id)
            if row.phase == "confirm" and row.outcome is Outcome.DONE
        ]


def told_of(row: TrialRow) -> Result:
    """What a coordinator needs to know of a stored trial."""
    return Result(
        outcome=row.outcome,
        objectives=row.objectives,
        violations=row.violations,
        fidelity=row.fidelity,
        launch_s=row.launch_s,
        warmup_s=row.warmup_s,
        measure_s=row.measure_s,
    )


def result_of(
    result: TrialResult | TrialRow, objectives: Sequence[Objective], constraints: Sequence[Constraint]
) -> Result:
    """What a search needs to know of a trial, judged by this goal and these limits, in their order."""
    measurement = result.measurement.steering() if result.measurement else None
    values = objective_values(measurement, objectives) if measurement else None
    violations = tuple(c.check(measurement).point_violation for c in constraints) if measurement else None
    return Result(
        outcome=result.outcome,
        objectives=values,
        violations=violations,
        fidelity=result.fidelity,
        launch_s=result.launch_s or None,
        warmup_s=result.warmup_s,
        measure_s=result.measure_s or None,
    )


def trial_result(row: TrialRow, folder: Path) -> TrialResult:
    """A stored trial as it was when it ended."""
    samples, scores = read_answers(folder, row.number) if row.samples else ((), ())
    return TrialResult(
        outcome=row.outcome,
        measurement=row.measurement,
        samples=samples,
        scores=scores,
        failed=Failed(**row.failure) if row.failure else None,
        fidelity=row.fidelity,
        launch_s=row.launch_s or 0.0,
        warmup_s=row.warmup_s or 0.0,
        measure_s=row.measure_s or 0.0,
        number=row.number,
    )
