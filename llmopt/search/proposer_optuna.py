"""Optuna as a proposer: an in-memory study that is asked and told, and rebuilt from our own records.

Conditional parameters are suggested only where active. Infeasible trials teach: PRUNED with a positive constraint for
TPE, COMPLETE with pessimistic values for NSGA-II (it reads nothing else); FAIL teaches no sampler and is used only for
suggestions that were never run.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmopt.records import Outcome
from llmopt.search.grid import seeded, unseen
from llmopt.search.proposer import PastTrial, Question, Result
from llmopt.search.space import tidy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import optuna
    from optuna.distributions import BaseDistribution

    from llmopt.objective import Objective
    from llmopt.records import Configuration, Parameter, SettingValue
    from llmopt.search.space import Space

__all__ = ["OptunaProposer", "distribution", "parameters_of", "value_of"]

_KEPT = 250
"""Trials the sampler keeps at a rebuild: its time grows with its history, its model hardly gains from more."""

_REBUILD_AT = 400
_ATTEMPTS = 8
_INFEASIBLE = (Outcome.INFEASIBLE, Outcome.FAILED)


def distribution(parameter: Parameter) -> BaseDistribution:
    """How Optuna sees a parameter: ordered values by their place, unordered ones by themselves, ranges as ranges."""
    from optuna import distributions  # noqa: PLC0415 - 0.7 s, only when a study runs

    if parameter.values:
        if parameter.ordinal:
            return distributions.IntDistribution(0, len(parameter.values) - 1)
        return distributions.CategoricalDistribution(parameter.values)
    low, high = float(parameter.low or 0), float(parameter.high or 0)
    if parameter.integer:
        step = 1 if parameter.log else int(parameter.step or 1)
        return distributions.IntDistribution(int(low), int(high), log=parameter.log, step=step)
    return distributions.FloatDistribution(low, high, log=parameter.log, step=None if parameter.log else parameter.step)


def value_of(parameter: Parameter, suggested: Any) -> SettingValue:
    """The setting that a suggested value stands for."""
    if parameter.values:
        chosen: SettingValue = parameter.values[suggested] if parameter.ordinal else suggested
        return chosen
    return tidy(parameter, suggested)


def parameters_of(space: Space, configuration: Configuration) -> dict[str, Any] | None:
    """A configuration as Optuna parameters, a size off the list as its nearest; None where it has no place."""
    found: dict[str, Any] = {}
    for name, value in space.assignment(configuration).items():
        place = _place(space.by_name[name], value)
        if place is _NOWHERE:
            return None
        found[name] = place
    return found


_NOWHERE = object()


def _place(parameter: Parameter, value: SettingValue) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if parameter.values and not parameter.ordinal:
        return value if value in parameter.values else _NOWHERE
    if parameter.values:
        if value in parameter.values:
            return parameter.values.index(value)
        sizes = [(abs(v - value), i) for i, v in enumerate(parameter.values) if number and isinstance(v, int | float)]  # type: ignore[operator]
        return min(sizes)[1] if sizes else _NOWHERE
    inside = number and float(parameter.low or 0) <= float(value or 0) <= float(parameter.high or 0)
    return value if inside else _NOWHERE


class OptunaProposer:
    """TPE or NSGA-II over a space, single writer of its own in-memory study."""

    stays = True

    def __init__(
        self, space: Space, objectives: Sequence[Objective], *, limits: Sequence[str] = (), sampler: str, seed: int
    ) -> None:
        self.origin = sampler
        self._space = space
        self._objectives = tuple(objectives)
        self._limits = ("feasible", *limits)
        self._seed = seed
        self._distributions = {parameter.name: distribution(parameter) for parameter in space.parameters}
        self._asked: dict[str, int] = {}
        self._past: list[PastTrial] = []
        self._rebuilds = 0
        self._study = self._new_study()

    # ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def propose(self, question: Question) -> tuple[Configuration, Mapping[str, Any]] | None:
        """The sampler's suggestion; where it insists on what was seen or is illegal, something unseen at random."""
        for _ in range(_ATTEMPTS):
            trial = self._ask(question.launch)
            configuration = self._on_launch(self._suggest(trial), question.launch)
            if not question.seen(configuration) and self._space.legal(self._space.assignment(configuration)):
                self._asked[configuration.key] = trial.number
                return configuration, self._system_attributes(trial.number)
            self._study.tell(trial.number, state=_states().FAIL)
        left = unseen(self._space, question, seeded(self._seed, self.origin, question.position))
        return None if left is None else (left, {})

    def _ask(self, launch: Mapping[str, SettingValue] | None) -> optuna.Trial:
        if launch is not None and self._space.request_parameters:
            fixed = parameters_of(self._space, self._space.configuration(launch))
            names = {parameter.name for parameter in self._space.launch_parameters}
            if fixed is not None:
                # an enqueued part of a trial is kept; the sampler fills in the rest
                self._study.enqueue_trial({name: value for name, value in fixed.items() if name in names})
        return self._study.ask()

    def _suggest(self, trial: optuna.Trial) -> Configuration:
        decided: dict[str, SettingValue] = {}
        for parameter in self._space.parameters:
            if self._space.active(parameter, decided):
                suggested = _suggest(trial, parameter.name, self._distributions[parameter.name])
                decided[parameter.name] = value_of(parameter, suggested)
        return self._space.configuration(decided)

    def _on_launch(self, suggested: Configuration, launch: Mapping[str, SettingValue] | None) -> Configuration:
        """The suggestion with exactly the running launch's values, of which Optuna may know only the nearest."""
        if launch is None:
            return suggested
        return self._space.configuration({**self._space.assignment(suggested), **launch})

    def _system_attributes(self, number: int) -> dict[str, Any]:
        return dict(self._study.get_trials(deepcopy=False)[number].system_attrs)

    # ── telling ────────────────────────────────────────────────────────────────────────────────────────────────────

    def learn(self, configuration: Configuration, result: Result, *, sampler: Mapping[str, Any] | None = None) -> None:
        """Tell the study; a configuration that another source proposed is added to it."""
        self._past.append(
            PastTrial(configuration=configuration, origin="", position=None, result=result, sampler=sampler or {})
        )
        number = self._asked.pop(configuration.key, None)
        if number is None:
            self._add(self._past[-1])
        else:
            self._tell(number, result)
        if len(self._study.get_trials(deepcopy=False)) >= _REBUILD_AT:
            self._rebuild()

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Rebuild the study from the best and newest of earlier trials."""
        self._past = list(past)
        self._asked.clear()
        self._rebuild()

    def _tell(self, number: int, result: Result) -> None:
        state, values, violations = self._encoded(result)
        if violations:
            trial = self._trial(number)
            for name, violation in violations.items():
                trial.set_constraint(name, violation)
        self._study.tell(number, values, state=state)

    def _trial(self, number: int) -> optuna.Trial:
        import optuna  # noqa: PLC0415 - 0.7 s, only when a study runs

        return optuna.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)  # noqa: SLF001

    def _add(self, past: PastTrial) -> None:
        parameters = parameters_of(self._space, past.configuration)
        state, values, violations = self._encoded(past.result)
        if parameters is None or state == _states().FAIL:
            return
        import optuna  # noqa: PLC0415 - 0.7 s, only when a study runs

        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                values=values,
                params=parameters,
                distributions={name: self._distributions[name] for name in parameters},
                system_attrs=dict(past.sampler),
                constraints=violations,
            )
        )

    def _encoded(self, result: Result) -> tuple[Any, list[float] | None, dict[str, float] | None]:
        """State, values and constraints: always the full list of constraints, in one order."""
        states = _states()
        if result.objectives is not None and result.outcome in (Outcome.DONE, Outcome.RACED_OUT):
            violations = result.violations or (0.0,) * (len(self._limits) - 1)
            named = dict(zip(self._limits, (-1.0, *violations), strict=True))
            return states.COMPLETE, list(result.objectives), named
        if result.outcome not in _INFEASIBLE:
            return states.FAIL, None, None
        violated = dict.fromkeys(self._limits, 1.0)
        if self.origin == "nsga2":
            return states.COMPLETE, self._pessimistic(), violated
        return states.PRUNED, None, violated

    def _pessimistic(self) -> list[float]:
        """Worse than anything seen, in every objective."""
        known = [past.result.objectives for past in self._past if past.result.objectives is not None]
        worst = []
        for i, objective in enumerate(self._objectives):
            values = [values[i] for values in known] or [0.0]
            span = max(values) - min(values) or 1.0
            worst.append(min(values) - span if objective.maximize else max(values) + span)
        return worst

    # ── the study ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _rebuild(self) -> None:
        """A fresh study of the best and newest trials, and of those still running."""
        pending = {
            key: dict(self._study.get_trials(deepcopy=False)[number].params) for key, number in self._asked.items()
        }
        self._rebuilds += 1
        self._past = _best_and_newest(self._past, self._objectives, _KEPT)
        self._study = self._new_study()
        for past in self._past:
            self._add(past)
        for key, parameters in pending.items():
            self._study.enqueue_trial(parameters)
            trial = self._study.ask()
            self._suggest(trial)
            self._asked[key] = trial.number

    def _new_study(self) -> optuna.Study:
        import optuna  # noqa: PLC0415 - 0.7 s, only when a study runs

        seed = seeded(self._seed, self.origin, self._rebuilds, len(self._past)).getrandbits(32)
        with _quiet():
            sampler: optuna.samplers.BaseSampler
            if self.origin == "nsga2":
                sampler = optuna.samplers.NSGAIISampler(population_size=16, seed=seed)
            else:
                grouped = self._space.conditional
                sampler = optuna.samplers.TPESampler(seed=seed, group=grouped, multivariate=True if grouped else None)
            study_direction = optuna.study.StudyDirection
            directions = [
                study_direction.MAXIMIZE if objective.maximize else study_direction.MINIMIZE
                for objective in self._objectives
            ]
            return optuna.create_study(sampler=sampler, directions=directions)


def _suggest(trial: optuna.Trial, name: str, kind: BaseDistribution) -> Any:
    from optuna import distributions  # noqa: PLC0415 - 0.7 s, only when a study runs

    if isinstance(kind, distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, kind.choices)
    if isinstance(kind, distributions.IntDistribution):
        return trial.suggest_int(name, kind.low, kind.high, step=kind.step, log=kind.log)
    assert isinstance(kind, distributions.FloatDistribution)
    return trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)


def _states() -> Any:
    from optuna.trial import TrialState  # noqa: PLC0415 - 0.7 s, only when a study runs

    return TrialState


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its notes: `group` of TPE is marked experimental, which our tests watch for us."""
    import optuna  # noqa: PLC0415 - 0.7 s, only when a study runs

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _best_and_newest(past: Sequence[PastTrial], objectives: Sequence[Objective], limit: int) -> list[PastTrial]:
    """Half of ``limit`` the best in turn of each objective, the rest the newest; in their order."""
    if len(past) <= limit:
        return list(past)
    keep = set(range(len(past) - limit // 2, len(past)))
    measured = [i for i, trial in enumerate(past) if trial.result.objectives is not None]
    orders = [
        sorted(measured, key=lambda i, k=k: -objectives[k].gain((past[i].result.objectives or ())[k]))  # type: ignore[misc]
        for k in range(len(objectives))
    ]
    for rank in range(len(measured)):
        for order in orders:
            if len(keep) < limit:
                keep.add(order[rank])
    return [past[i] for i in sorted(keep)]
