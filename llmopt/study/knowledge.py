"""What is known before the first trial: earlier studies of something similar, and what the predictor foretells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from llmopt.models.memory_fit import Correction
from llmopt.objective import Constraint, Objective
from llmopt.predict.machine import load_speed
from llmopt.predict.study import Scene, StudyForecast
from llmopt.records import Measurement, Outcome, Task
from llmopt.search.proposer import Prior, Proposal
from llmopt.search.space import Space
from llmopt.search.transfer import Circumstances, Earlier, History, first_trials
from llmopt.store.database import Store
from llmopt.store.rows import StudyRow, TrialRow
from llmopt.study.foresight import (
    Foresight,
    Surroundings,
    correction_of,
    plain_model,
    prompts_of,
    seen_runs,
    tokens_per_byte,
)
from llmopt.study.prepare import Prepared
from llmopt.study.recorder import result_of

__all__ = ["Knowledge", "circumstances", "gather", "learnt_memory", "recorded_facts"]

MOST_STUDIES = 50
MOST_TRIALS = 200
"""Of one earlier study: its best and its newest."""


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What the search is given: first trials, and priors that are never trusted over a measurement."""

    priors: tuple[Prior, ...] = ()
    first: tuple[Proposal, ...] = ()
    foreseen: bool = False
    """Whether the speed of configurations could be foretold, not only their order guessed."""
    studies: tuple[str, ...] = ()
    """Names of the earlier studies that had a say."""


def circumstances(prepared: Prepared) -> Circumstances:
    """What this study runs on, as later studies compare it."""
    model, hardware = prepared.model, prepared.hardware
    devices = ", ".join(device.name for device in hardware.devices)
    return Circumstances(
        engine=prepared.engine.name,
        engine_version=prepared.engine.installation().version or "",
        model=model.sha256 or model.name,
        architecture=model.architecture or "",
        parameters=model.parameters,
        quantization=model.quantization or "",
        hardware=hardware.fingerprint,
        processor=devices or hardware.cpu.model,
        dataset=prepared.dataset.fingerprint,
        streams=prepared.work.load.streams,
    )


def recorded_facts(prepared: Prepared) -> dict[str, Any]:
    """What is kept with a study so that later ones can learn from it."""
    return {"circumstances": asdict(circumstances(prepared)), "model_facts": plain_model(prepared.model)}


def learnt_memory(prepared: Prepared, store: Store) -> Correction:
    """What earlier launches of this engine on this machine taught about its memory."""
    return correction_of(store, _around(prepared))


def gather(
    prepared: Prepared,
    store: Store,
    study_id: int,
    *,
    space: Space,
    limits: Sequence[Constraint],
    task: Task,
    baseline: TrialRow,
) -> Knowledge:
    """Everything that is known for this study: forecasts of its configurations, and earlier studies alike."""
    now, objectives = circumstances(prepared), prepared.goal.objectives
    runs = seen_runs(store, _around(prepared), without=study_id)
    forecast = StudyForecast(_scene(prepared, task, baseline), runs, guess=True)
    foresight = Foresight(forecast, objectives, limits)
    earlier = _earlier(store, study_id, objectives, limits)
    history = History(space, objectives, earlier, now)
    guided = foresight.predict(prepared.baseline) is not None
    return Knowledge(
        priors=(*((foresight,) if guided else ()), *((history,) if history.used else ())),
        foreseen=foresight.knows(prepared.baseline),
        first=tuple(first_trials(space, objectives, earlier, now)),
        studies=history.names,
    )


def _around(prepared: Prepared) -> Surroundings:
    return Surroundings(engine=prepared.engine.name, hardware=prepared.hardware)


def _scene(prepared: Prepared, task: Task, baseline: TrialRow) -> Scene:
    """What is foretold from: how long prompts and answers are was seen in the baseline."""
    items = prepared.search_items
    measured = baseline.measurement or Measurement(estimates={})
    tokens = tokens_per_byte(prepared.dataset, items, measured.value("prompt_tokens_mean"))
    return Scene(
        model=prepared.model,
        engine=prepared.engine.name,
        engine_version=prepared.engine.installation().version or "",
        hardware=prepared.hardware,
        task=task,
        prompts=prompts_of(prepared.dataset, items, tokens),
        answer_tokens=measured.value("output_tokens_mean") or float(task.max_tokens),
        requests=len(items),
        speed=load_speed(hardware=prepared.hardware.fingerprint),
    )


def _earlier(
    store: Store, study_id: int, objectives: Sequence[Objective], limits: Sequence[Constraint]
) -> list[Earlier]:
    found = []
    for row in store.studies(limit=MOST_STUDIES):
        ran_on = _circumstances_of(row)
        if row.id == study_id or ran_on is None:
            continue
        rows = store.best_and_newest(row.id, limit=MOST_TRIALS)
        # by this study's goal and limits, whatever its own were; a raced-out trial says too little
        trials = tuple(
            (one.configuration, result_of(one, objectives, limits))
            for one in rows
            if one.outcome is not Outcome.RACED_OUT
        )
        found.append(Earlier(name=row.name, circumstances=ran_on, trials=trials))
    return found


def _circumstances_of(row: StudyRow) -> Circumstances | None:
    """As recorded with the study; None for benchmarks, comparisons and studies of an older version."""
    recorded: Any = row.spec.get("circumstances")
    if not isinstance(recorded, Mapping):
        return None
    known = {field.name for field in fields(Circumstances)}
    return Circumstances(**{name: value for name, value in recorded.items() if name in known})
