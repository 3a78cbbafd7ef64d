"""Why: how much each setting matters, what it does with everything else fixed, and why not another value.

All answers come from the Gaussian process over the trials that ran (raced-out ones with the doubt of their few
answers), with 95 % intervals from its joint distribution; a configuration that ran is answered with its own record.
Over a handful of trials a process only repeats what it believed before: then nothing but records and rules is told.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from llmopt.errors import UsageError
from llmopt.records import Outcome
from llmopt.runtime.linear_algebra import one_thread
from llmopt.search.belief import Belief, Forecasts
from llmopt.search.features import Encoder, Pool
from llmopt.search.grid import seeded
from llmopt.search.space import grid_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from llmopt.objective import Objective
    from llmopt.records import Configuration, SettingValue
    from llmopt.search.proposer import Prior, Result
    from llmopt.search.space import Problem, Space

    Array = NDArray[np.float64]

__all__ = ["ENOUGH", "Effect", "Explainer", "Importance", "WhyNot"]

_BASES = 24
"""Random surroundings over which a setting's main effect is averaged."""

_DRAWS = 200
ENOUGH = 5
"""With fewer measured trials nothing is said of what was not tried."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """A setting's main effect as a share of all variation between configurations, with its 95 % interval."""

    parameter: str
    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One other value of one setting, everything else as it is: the objective there against here.

    ``value`` is a ratio (``relative``) or, for shares, a difference; ``trials`` counts recorded ones of exactly that.
    """

    parameter: str
    setting: SettingValue
    value: float
    low: float
    high: float
    relative: bool
    trials: int


@dataclass(frozen=True, kw_only=True)
class WhyNot:
    """The answer to *why not these settings?*

    ``illegal``: ``problem`` names the rule they break. ``failed`` and ``measured``: a trial of exactly them exists.
    ``estimated``: nobody tried; effect and the probabilities to run and to meet all limits are believed. ``untried``:
    nobody did, and too few trials were measured to believe anything.
    """

    kind: Literal["illegal", "failed", "measured", "estimated", "untried"]
    configuration: Configuration
    problem: Problem | None = None
    result: Result | None = None
    effect: Effect | None = None
    runs: float | None = None
    allowed: float | None = None


class Explainer:
    """Answers about one study; without ``ENOUGH`` measured trials importance and effects are empty."""

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        trials: Sequence[tuple[Configuration, Result]],
        *,
        limits: int = 0,
        priors: Sequence[Prior] = (),
        seed: int = 0,
    ) -> None:
        self._enough = sum(result.objectives is not None for _, result in trials) >= ENOUGH
        self._space = space
        self._objectives = tuple(objectives)
        self._trials = list(trials)
        self._encoder = Encoder(space)
        forecasts = Forecasts(priors, objectives)
        self._forecasts = forecasts
        self._trusting = bool(priors)
        self._belief = Belief(self._encoder, objectives, limits, forecasts, trusting=self._trusting)
        self._seed = seed

    @one_thread()
    def importance(self, objective: int = 0) -> tuple[Importance, ...]:
        """Every setting's share, the most important first; shares need not add up to one (settings interact)."""
        if not self._enough:
            return ()
        source = seeded(self._seed, "importance")
        bases = [base for _ in range(4 * _BASES) if (base := self._draw(source)) is not None][:_BASES]
        blocks: list[tuple[str, list[list[int]]]] = []
        points: list[Configuration] = [self._space.configuration(base) for base in bases]
        everywhere = len(points)
        for parameter in self._space.parameters:
            groups: list[list[int]] = []
            for value in grid_values(parameter):
                group = []
                for base in bases:
                    changed = {**base, parameter.name: value}
                    if parameter.name in base and self._space.legal(changed):
                        group.append(len(points))
                        points.append(self._space.configuration(changed))
                if group:
                    groups.append(group)
            blocks.append((parameter.name, groups))
        drawn = self._draws(objective, points)
        total = np.maximum(drawn[:, :everywhere].var(axis=1), 1e-12)
        found = [_share(name, groups, drawn, total) for name, groups in blocks]
        return tuple(sorted(found, key=lambda importance: -importance.share))

    @one_thread()
    def effects(self, at: Configuration, objective: int = 0) -> tuple[Effect, ...]:
        """Each legal other value of each active setting of ``at``, one at a time."""
        if not self._enough:
            return ()
        assignment = self._space.assignment(at)
        found = []
        for name, present in assignment.items():
            for value in grid_values(self._space.by_name[name]):
                changed = {**assignment, name: value}
                if value != present and self._space.legal(changed):
                    found.append(self._effect(at, self._space.configuration(changed), name, value, objective))
        return tuple(found)

    @one_thread()
    def why_not(self, at: Configuration, changes: Mapping[str, SettingValue], objective: int = 0) -> WhyNot:
        """Why ``at`` was chosen and not ``at`` with these changes. Raises UsageError for an unknown setting."""
        for name in changes:
            if name not in self._space.by_name:
                raise UsageError("search.unknown_setting", parameter=name)
        other = self._space.configuration(self._completed(at, changes))
        problem = self._space.problem(other)
        if problem is not None:
            return WhyNot(kind="illegal", configuration=other, problem=problem)
        for configuration, result in reversed(self._trials):
            if configuration.key == other.key:
                failed = result.outcome in (Outcome.INFEASIBLE, Outcome.FAILED)
                return WhyNot(kind="failed" if failed else "measured", configuration=other, result=result)
        if not self._enough:
            return WhyNot(kind="untried", configuration=other)
        outlook = self._belief.outlook(Pool(configurations=[other], rows=self._encoder.rows([other])), self._trials)
        name, value = next(iter(changes.items()))
        return WhyNot(
            kind="estimated",
            configuration=other,
            effect=self._effect(at, other, name, value, objective),
            runs=float(outlook.runs[0]),
            allowed=float(outlook.allowed[0]),
        )

    def _completed(self, at: Configuration, changes: Mapping[str, SettingValue]) -> dict[str, SettingValue]:
        """The assignment of ``at`` with the changes; what they make active is taken from a trial like it, if any."""
        found = {**self._space.assignment(at), **changes}
        woken = [p for p in self._space.parameters if p.name not in found and self._space.active(p, found)]
        if not woken:
            return found
        names = {parameter.name for parameter in woken}
        for configuration, _ in reversed(self._trials):
            tried = self._space.assignment(configuration)
            if tried.keys() >= names and all(tried.get(name) == value for name, value in found.items()):
                return tried
        return {**found, **{parameter.name: grid_values(parameter)[-1] for parameter in woken}}

    # ── the process behind ─────────────────────────────────────────────────────────────────────────────────────────

    def _draw(self, source: object) -> dict[str, SettingValue] | None:
        launch = self._space.draw_launch(source)  # type: ignore[arg-type]
        return None if launch is None else self._space.draw_request(launch, source)  # type: ignore[arg-type]

    def _joint(self, objective: int, points: Sequence[Configuration]) -> tuple[Array, Array]:
        process, _ = self._belief.process(objective, self._trials)
        trends = self._forecasts.gains(objective, points) if self._trusting else None
        return process.joint(self._encoder.rows(points), trends=trends)

    def _draws(self, objective: int, points: Sequence[Configuration]) -> Array:
        """Functions that could be the truth: draws × points."""
        mean, covariance = self._joint(objective, points)
        covariance[np.diag_indices_from(covariance)] += 1e-8 + 1e-6 * float(np.trace(covariance)) / len(points)
        source = np.random.default_rng(self._seed)
        factor = np.linalg.cholesky(covariance)
        return np.asarray(mean + source.standard_normal((_DRAWS, len(points))) @ factor.T)

    def _effect(
        self, at: Configuration, other: Configuration, name: str, setting: SettingValue, objective: int
    ) -> Effect:
        mean, covariance = self._joint(objective, [at, other])
        difference = float(mean[1] - mean[0])
        spread = math.sqrt(max(float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]), 0.0))
        goal = self._objectives[objective]
        ends = sorted(s * goal.gain(1.0) for s in (difference - 1.96 * spread, difference + 1.96 * spread))
        figures = [difference * goal.gain(1.0), *ends]
        relative = goal.kind != "share"
        value, low, high = (math.exp(min(f, 50.0)) if relative else f for f in figures)
        trials = sum(configuration.key == other.key for configuration, _ in self._trials)
        return Effect(
            parameter=name, setting=setting, value=value, low=low, high=high, relative=relative, trials=trials
        )


def _share(name: str, groups: list[list[int]], drawn: Array, total: Array) -> Importance:
    if len(groups) < 2:  # noqa: PLR2004 - one value has no effect
        return Importance(parameter=name, share=0.0, low=0.0, high=0.0)
    main = np.array([drawn[:, group].mean(axis=1) for group in groups])
    shares = np.minimum(main.var(axis=0) / total, 1.0)
    low, middle, high = np.quantile(shares, [0.025, 0.5, 0.975])
    return Importance(parameter=name, share=float(middle), low=float(low), high=float(high))
