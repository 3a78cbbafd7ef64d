"""The Python API: one class, the same machinery the command line runs, with or without a user's own evaluator."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmopt.config.models import ModelConfig
from llmopt.config.settings import load_settings
from llmopt.errors import UsageError
from llmopt.measure.stats.intervals import mean_interval
from llmopt.objective import Objective
from llmopt.paths import Workspace
from llmopt.records import (
    Configuration,
    Dataset,
    Estimate,
    InferenceParams,
    Measurement,
    Outcome,
    Parameter,
    Verdict,
    VerdictKind,
    digest,
)
from llmopt.search.coordinator import Coordinator
from llmopt.search.proposer import Proposal
from llmopt.search.space import Space
from llmopt.search.trial import Failed, TrialResult
from llmopt.store.database import Store
from llmopt.study.events import Event, Listener, silent
from llmopt.study.optimize import optimize, study_name
from llmopt.study.recorder import Recorder, told_of
from llmopt.study.request import StudyRequest

__all__ = ["INFERENCE_SPACE", "OptimizationResult", "SafeOptimizer"]

INFERENCE_SPACE: tuple[Parameter, ...] = (
    Parameter(name="temperature", level="request", low=0.0, high=1.5, step=0.1),
    Parameter(name="top_p", level="request", low=0.1, high=1.0, step=0.1),
    Parameter(name="top_k", level="request", values=(5, 10, 20, 40, 50, 100), ordinal=True),
)
"""What is searched with a user's evaluator where no ``space=`` is given."""

USER_ENGINE = "user"
"""The engine's name in records of studies that start no engine."""
REPEATS = 5
"""Pairs of evaluations of winner and baseline in the confirmation."""
LEAST_TO_SPLIT = 8
"""Fewer items than this are not split into search and confirmation."""


@dataclass(frozen=True, kw_only=True)
class OptimizationResult:
    """What was found; ``verdict`` compares with ``baseline_params`` by fresh, paired evaluations."""

    study: str
    best_params: InferenceParams
    best_score: float
    baseline_params: InferenceParams
    baseline_score: float
    verdict: Verdict
    trials: int
    folder: Path
    held_out: bool
    """Whether the verdict was measured on items the search never saw."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """The whole ``result.json`` where an engine was run."""


class SafeOptimizer:
    """Finds the best parameters for a model on a dataset; every finished trial is on disk before the next begins."""

    def __init__(
        self,
        *,
        workspace: Workspace | None = None,
        trials: int = 30,
        timeout_s: float | None = None,
        method: str = "auto",
        seed: int = 0,
        listener: Listener = silent,
    ) -> None:
        self.workspace = workspace or Workspace.here()
        self.trials = trials
        self.timeout_s = timeout_s
        self.method = method
        self.seed = seed
        self.listener = listener

    async def optimize_parameters(
        self,
        model: str | ModelConfig,
        dataset: str | Path | Sequence[Mapping[str, Any]],
        evaluator: Any = None,
        *,
        space: Sequence[Parameter] | None = None,
        baseline: InferenceParams | None = None,
        maximize: bool = True,
        name: str | None = None,
        **request: Any,
    ) -> OptimizationResult:
        """Search with ``evaluator`` (async or plain: model, dataset, params → score), or with a real engine if None.

        With an evaluator no engine is started and the space is INFERENCE_SPACE unless ``space`` is given; an exception
        it raises fails that trial only. Without one, ``request`` are further fields of StudyRequest and the command
        line's study runs. Raises UsageError for what cannot be called, and the LlmoptError kinds of a study.
        """
        if evaluator is None:
            return await self._with_engine(model, dataset, name, request)
        if request:
            raise UsageError("study.unknown_arguments", names=", ".join(sorted(request)))
        call = _callable(evaluator)
        objective = Objective(name="score", estimate="score", maximize=maximize, unit="", kind="share")
        parts = self._parts(dataset)
        study = _EvaluatorStudy(
            self,
            model=model,
            parts=parts,
            call=call,
            objective=objective,
            parameters=tuple(space or INFERENCE_SPACE),
            baseline=baseline,
        )
        return await study.run(name or study_name(StudyRequest(model=_name_of(model), dataset=_label(dataset))))

    async def _with_engine(
        self, model: str | ModelConfig, dataset: Any, name: str | None, more: Mapping[str, Any]
    ) -> OptimizationResult:
        settings = load_settings(self.workspace)
        request = StudyRequest(
            model=model.model_path if isinstance(model, ModelConfig) else model,
            dataset=str(dataset) if isinstance(dataset, (str, Path)) else _written(dataset, self.workspace),
            trials=self.trials,
            timeout_s=self.timeout_s,
            method=self.method,
            seed=self.seed,
            name=name,
            **more,
        )
        result = await optimize(request, workspace=self.workspace, settings=settings, listener=self.listener)
        sides = {side: InferenceParams(**result[side]["configuration"]["request"]) for side in ("best", "baseline")}
        verdict = result["verdict"]
        first = verdict["objective"]
        low, high = verdict["interval"] or (None, None)
        effect = Estimate(value=verdict["effect"] or 0.0, unit="", n=verdict.get("n", 0), low=low, high=high)
        return OptimizationResult(
            study=result["study"],
            best_params=sides["best"],
            best_score=_first_value(result["best"]),
            baseline_params=sides["baseline"],
            baseline_score=_first_value(result["baseline"]),
            verdict=Verdict(
                kind=VerdictKind(verdict["kind"]),
                objective=first,
                effect=effect,
                relative=verdict.get("relative", False),
            ),
            trials=len(result["trials"]),
            folder=self.workspace.results / result["study"],
            held_out=True,
            details=result,
        )

    def _parts(self, dataset: str | Path | Sequence[Mapping[str, Any]]) -> tuple[Any, Any, bool]:
        """What the evaluator gets in the search and in the confirmation, and whether they are apart.

        A list of rows is split in two by content; a name or path is loaded and split as every dataset is.
        """
        if isinstance(dataset, (str, Path)):
            from llmopt.workload.datasets import load_dataset  # noqa: PLC0415 - not needed for a list

            loaded = load_dataset(dataset, workspace=self.workspace, seed=self.seed)
            search, confirm = (replace(loaded, items=loaded.split(part)) for part in ("search", "confirm"))
            return search, confirm, True
        rows = list(dataset)
        if len(rows) < LEAST_TO_SPLIT:
            return rows, rows, False
        order = sorted(rows, key=lambda row: digest([self.seed, row]))
        return order[::2], order[1::2], True


class _EvaluatorStudy:
    """One search with a user's evaluator."""

    def __init__(
        self,
        optimizer: SafeOptimizer,
        *,
        model: Any,
        parts: tuple[Any, Any, bool],
        call: Callable[[Any, Any, InferenceParams], Any],
        objective: Objective,
        parameters: tuple[Parameter, ...],
        baseline: InferenceParams | None,
    ) -> None:
        self.optimizer = optimizer
        self.model = model
        self.search_part, self.confirm_part, self.held_out = parts
        self.call = call
        self.objective = objective
        self.baseline = Configuration(engine=USER_ENGINE, launch={}, request=baseline or InferenceParams())
        self.space = Space(parameters, engine=USER_ENGINE, request_defaults=self.baseline.request)
        self.deadline_s = None if optimizer.timeout_s is None else time.monotonic() + optimizer.timeout_s

    async def run(self, name: str) -> OptimizationResult:
        workspace = self.optimizer.workspace
        folder = workspace.results / name
        with Store.open(workspace.database) as store:
            study_id = store.create_study(
                name,
                {"evaluator": True},
                fingerprint=self.space.fingerprint,
                model=_name_of(self.model),
                engine=USER_ENGINE,
            )
            recorder = Recorder(store, study_id, folder, objectives=(self.objective,), hardware="", engine=USER_ENGINE)
            try:
                await self._search(recorder)
                result = await self._conclude(store, study_id, name, folder)
            except BaseException as error:
                stopped = isinstance(error, (asyncio.CancelledError, KeyboardInterrupt))
                store.end_study(study_id, "interrupted" if stopped else "failed")
                raise
            summary = {"verdict": result.verdict.kind.value, "sentence": "", "elapsed_s": None}
            store.end_study(study_id, "finished", summary=summary)
        return result

    async def _search(self, recorder: Recorder) -> None:
        coordinator = Coordinator(
            self.space,
            (self.objective,),
            method=self.optimizer.method,
            seed=self.optimizer.seed,
            first=[Proposal(configuration=self.baseline, origin="baseline")],
        )
        for _ in range(self.optimizer.trials):
            if self.deadline_s is not None and time.monotonic() >= self.deadline_s:
                break
            proposal = coordinator.ask(None)
            if proposal is None:
                break
            phase = "baseline" if proposal.origin == "baseline" else "search"
            number = recorder.started(
                proposal.configuration,
                origin=proposal.origin,
                phase=phase,
                position=proposal.position,
                sampler=proposal.sampler,
            )
            with recorder.running(number):
                result = await self._trial(proposal.configuration, self.search_part)
                told = recorder.finished(number, result)
            coordinator.tell(proposal.configuration, told)
            self._say(number, result)

    async def _trial(self, configuration: Configuration, part: Any) -> TrialResult:
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(None if self.deadline_s is None else self.deadline_s - time.monotonic()):
                value = await self._score(configuration.request, part)
        except Exception as error:  # noqa: BLE001 - boundary: a user's evaluator may raise anything; it fails this trial
            failed = Failed(id="user.evaluator", category="evaluator", text=f"{type(error).__name__}: {error}")
            return TrialResult(outcome=Outcome.FAILED, failed=failed)
        score = Estimate(value=value, unit="", n=1)
        return TrialResult(
            outcome=Outcome.DONE,
            measurement=Measurement(estimates={"score": score}),
            measure_s=time.monotonic() - began_s,
        )

    async def _score(self, params: InferenceParams, part: Any) -> float:
        found = self.call(self.model, part, params)
        if inspect.isawaitable(found):
            found = await found
        value = next(iter(found.values())) if isinstance(found, Mapping) else found
        return float(value)

    async def _conclude(self, store: Store, study_id: int, name: str, folder: Path) -> OptimizationResult:
        rows = [row for row in store.trials(study_id) if told_of(row).objectives is not None]
        if not rows:
            failed = next((row.failure for row in store.trials(study_id) if row.failure), None)
            raise UsageError("study.evaluator_never_worked", why=failed["text"] if failed else "-")
        best = max(rows, key=lambda row: self.objective.gain((row.objectives or (0.0,))[0]))
        base = next((row for row in rows if row.phase == "baseline"), None)
        verdict = await self._compare(best.configuration)
        return OptimizationResult(
            study=name,
            best_params=best.configuration.request,
            best_score=(best.objectives or (0.0,))[0],
            baseline_params=self.baseline.request,
            baseline_score=(base.objectives or (0.0,))[0] if base else float("nan"),
            verdict=verdict,
            trials=len(rows),
            folder=folder,
            held_out=self.held_out,
        )

    async def _compare(self, best: Configuration) -> Verdict:
        """Winner and baseline evaluated anew in turns; the effect is the mean paired difference."""
        if best.key == self.baseline.key:
            return Verdict(
                kind=VerdictKind.TIE, objective="score", effect=Estimate(value=0.0, unit="", n=0), relative=False
            )
        differences: list[float] = []
        for _ in range(REPEATS):
            pair = [await self._trial(one, self.confirm_part) for one in (self.baseline, best)]
            values = [r.measurement.value("score") for r in pair if r.measurement is not None]
            if len(values) == len(pair) and None not in values:
                differences.append(self.objective.gain((values[1] or 0.0) - (values[0] or 0.0)))
        found = mean_interval(differences) if differences else None
        effect = Estimate(
            value=found.value if found else 0.0,
            unit="",
            n=len(differences),
            low=found.low if found else None,
            high=found.high if found else None,
            method="t over paired evaluations",
        )
        return Verdict(kind=_kind(effect), objective="score", effect=effect, relative=False, method=effect.method)

    def _say(self, number: int, result: TrialResult) -> None:
        score = result.measurement.value("score") if result.measurement else None
        data = {"number": number, "outcome": result.outcome.value, "score": score}
        self.optimizer.listener(Event(kind="trial_ended", data=data))


def _kind(effect: Estimate) -> VerdictKind:
    if effect.low is None or effect.high is None:
        return VerdictKind.UNDECIDED
    if effect.low > 0:
        return VerdictKind.BETTER
    return VerdictKind.WORSE if effect.high < 0 else VerdictKind.TIE


def _callable(evaluator: Any) -> Callable[[Any, Any, InferenceParams], Any]:
    found = getattr(evaluator, "evaluate", evaluator)
    if not callable(found):
        raise UsageError("study.not_an_evaluator", what=type(evaluator).__name__)
    call: Callable[[Any, Any, InferenceParams], Any] = found
    return call


def _name_of(model: Any) -> str:
    return model.name if isinstance(model, ModelConfig) else str(model)


def _label(dataset: Any) -> str:
    if isinstance(dataset, (str, Path)):
        return str(dataset)
    return dataset.name if isinstance(dataset, Dataset) else f"rows-{digest(list(dataset), size=3)}"


def _first_value(side: Mapping[str, Any]) -> float:
    found = (side["confirmed"] or {}).get("accuracy") or side["search"]["estimates"].get("accuracy")
    return float(found["value"]) if found else float("nan")


def _written(rows: Sequence[Mapping[str, Any]], workspace: Workspace) -> str:
    """A list of rows as a JSON-lines file of the workspace, so that a study can be resumed with it."""
    import json  # noqa: PLC0415 - one use

    from llmopt.paths import ensure  # noqa: PLC0415 - one use
    from llmopt.report.writing import written  # noqa: PLC0415 - one use

    path = ensure(workspace.data) / f"rows-{digest(list(rows))}.jsonl"
    written(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))
    return str(path)
