"""A study as an Optuna study, for Optuna's dashboard and tools: written once from our records, never read back."""

from __future__ import annotations

import re
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmopt.errors import StorageError, UsageError
from llmopt.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

    from llmopt.objective import Constraint, Objective
    from llmopt.records import SettingValue
    from llmopt.store.database import Store
    from llmopt.store.rows import StudyRow, TrialRow

__all__ = ["export_study"]

_JOURNAL = (".log", ".journal", ".jsonl")
_SECRET = re.compile(r"(?<=://)([^:/@]+):[^@]+@")


def export_study(
    store: Store,
    study: StudyRow,
    url: str,
    *,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint] = (),
) -> int:
    """Write the ended search trials of ``study`` to the Optuna storage at ``url``; how many were written.

    ``url`` is a database URL (``sqlite:///study.db``) or the path of a journal file (``study.log``). Raises UsageError
    where that storage already has a study of this name, StorageError where it cannot be written.
    """
    import optuna  # noqa: PLC0415 - 0.7 s, only for the export
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - comes with Optuna

    shown = _SECRET.sub(r"\1:***@", url)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = _storage(url)
        target = optuna.create_study(
            storage=storage,
            study_name=study.name,
            directions=["maximize" if objective.maximize else "minimize" for objective in objectives],
        )
        with warnings.catch_warnings():
            # naming the metrics is marked experimental; without it the dashboard shows "Objective 0"
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            target.set_metric_names([objective.name for objective in objectives])
        for name in ("model", "engine", "dataset", "hardware"):
            target.set_user_attr(f"llmopt_{name}", getattr(study, name))
        return _write(store, study, target, constraints)
    except optuna.exceptions.DuplicatedStudyError:
        raise UsageError("export.exists", name=study.name, url=shown) from None
    except (SQLAlchemyError, OSError, ImportError, ValueError) as error:
        # the edge to whatever storage the user names: its drivers and files fail in their own ways
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StorageError("export.failed", url=shown, reason=_SECRET.sub(r"\1:***@", reason)) from error
    finally:
        optuna.logging.set_verbosity(verbosity)


def _storage(url: str) -> BaseStorage:
    from optuna.storages import JournalStorage, get_storage  # noqa: PLC0415 - only for the export
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415 - only for the export

    if "://" not in url or url.endswith(_JOURNAL):
        return JournalStorage(JournalFileBackend(url.removeprefix("journal://")))
    return get_storage(url)


def _write(store: Store, study: StudyRow, target: optuna.Study, constraints: Sequence[Constraint]) -> int:
    kinds = _distributions(store, study)
    written = 0
    for trial in store.trials(study.id):
        if trial.phase != "confirm" and trial.outcome is not Outcome.RUNNING:
            target.add_trial(_frozen(trial, kinds, target.directions, constraints))
            written += 1
    return written


def _distributions(store: Store, study: StudyRow) -> dict[str, BaseDistribution]:
    """One distribution for each setting that took more than one value, wide enough for all of them."""
    values: dict[str, dict[SettingValue, None]] = {}
    seen = 0
    present: dict[str, int] = {}
    for trial in store.trials(study.id):
        if trial.phase == "confirm" or trial.outcome is Outcome.RUNNING:
            continue
        seen += 1
        for name, value in trial.configuration.flat().items():
            values.setdefault(name, {})[value] = None
            present[name] = present.get(name, 0) + 1
    return {
        name: _distribution(list(found)) for name, found in values.items() if len(found) > 1 or present[name] < seen
    }


def _distribution(values: Sequence[SettingValue]) -> BaseDistribution:
    from optuna import distributions  # noqa: PLC0415 - only for the export

    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return distributions.CategoricalDistribution(sorted(values, key=str))
    if all(isinstance(number, int) for number in numbers):
        return distributions.IntDistribution(int(min(numbers)), int(max(numbers)))
    return distributions.FloatDistribution(float(min(numbers)), float(max(numbers)))


def _frozen(
    trial: TrialRow, kinds: Mapping[str, BaseDistribution], directions: Sequence[Any], constraints: Sequence[Constraint]
) -> optuna.trial.FrozenTrial:
    import optuna  # noqa: PLC0415 - 0.7 s, only for the export

    settings = trial.configuration.flat()
    state, values = _state(trial, len(directions))
    violated = trial.outcome in (Outcome.INFEASIBLE, Outcome.FAILED)
    names = [constraint.text for constraint in constraints]
    known = trial.violations if trial.violations and len(trial.violations) == len(names) else None
    measured = known or (1.0 if violated else 0.0,) * len(names)
    violations = {"feasible": 1.0 if violated else -1.0, **dict(zip(names, measured, strict=True))}
    frozen = optuna.trial.create_trial(
        state=state,
        values=values,
        params={name: settings[name] for name in kinds if name in settings},
        distributions={name: kind for name, kind in kinds.items() if name in settings},
        user_attrs=_attributes(trial, fixed={n: v for n, v in settings.items() if n not in kinds}),
        # the dashboard reads only the list of former versions
        system_attrs={"constraints": list(violations.values())},
        constraints=violations,
    )
    frozen.datetime_start = _moment(trial.started_s)
    frozen.datetime_complete = _moment(trial.ended_s if trial.ended_s is not None else trial.started_s)
    return frozen


def _state(trial: TrialRow, objectives: int) -> tuple[Any, list[float] | None]:
    from optuna.trial import TrialState  # noqa: PLC0415 - only for the export

    complete = trial.objectives is not None and len(trial.objectives) == objectives
    if trial.outcome is Outcome.DONE and complete:
        return TrialState.COMPLETE, list(trial.objectives or ())
    if trial.outcome in (Outcome.RACED_OUT, Outcome.INFEASIBLE):
        return TrialState.PRUNED, None
    return TrialState.FAIL, None


def _attributes(trial: TrialRow, *, fixed: Mapping[str, SettingValue]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "llmopt_number": trial.number,
        "outcome": trial.outcome.value,
        "origin": trial.origin,
        "phase": trial.phase,
        "fidelity": trial.fidelity,
        "fixed_settings": dict(fixed),
    }
    if trial.measurement is not None:
        for name, estimate in trial.measurement.estimates.items():
            found[name] = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "unit": estimate.unit}
    if trial.failure is not None:
        found["failure"] = dict(trial.failure)
    return found


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
