"""What is believed about configurations that were not measured: predictions, corrected by what was.

A belief trusts the predictions (they are the trends of its Gaussian processes) or knows nothing of them. How well it
foretells the trials that did run, each left out in turn, says how much to listen to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmopt.records import Outcome
from llmopt.search.gaussian import Classifier, Hyper, Regression, normal_cdf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from llmopt.objective import Objective
    from llmopt.records import Configuration
    from llmopt.search.features import Encoder, Pool
    from llmopt.search.proposer import Prediction, Prior, Result

    Array = NDArray[np.float64]
    Observed = Sequence[tuple[Configuration, Result]]

__all__ = ["INFEASIBLE", "Belief", "Forecasts", "Outlook", "transformed"]

INFEASIBLE = (Outcome.INFEASIBLE, Outcome.FAILED)

_REFIT = 1.1
"""Lengths and noise are fitted again when the observations have grown by a tenth."""

_RUNS_BEFORE = 5.0
"""Ten configurations in eleven run, before anything is known."""

_ROUGH = 0.3
"""How far predictions are off where they do not say."""


def transformed(objective: Objective, value: float) -> float:
    """The gain the processes work with, more being better: of sizes and times the logarithm, of shares as it is."""
    return objective.gain(value if objective.kind == "share" else math.log(max(value, 1e-9)))


def _cut(violation: float) -> float:
    """A violation with its extremes cut off: how hopeless a hopeless one is says nothing."""
    return min(max(violation, -3.0), 3.0)


class Forecasts:
    """The predictions of all priors, asked once for each configuration."""

    def __init__(self, priors: Sequence[Prior], objectives: Sequence[Objective]) -> None:
        self.priors = tuple(priors)
        self._objectives = tuple(objectives)
        self._known: dict[str, tuple[Prediction | None, ...]] = {}

    def of(self, configuration: Configuration) -> tuple[Prediction | None, ...]:
        """Each prior's prediction."""
        found = self._known.get(configuration.key)
        if found is None:
            found = tuple(prior.predict(configuration) for prior in self.priors)
            self._known[configuration.key] = found
        return found

    def cover(self, pool: Sequence[Configuration]) -> bool:
        """Whether there is an answer for at least half of the pool."""
        sample = pool[:: max(len(pool) // 50, 1)] if self.priors else []
        answered = sum(any(p is not None for p in self.of(candidate)) for candidate in sample)
        return bool(sample) and answered >= len(sample) / 2

    def gains(self, k: int, configurations: Sequence[Configuration]) -> Array:
        """One column a prior: the predicted gain in objective ``k``."""
        return self._columns(configurations, lambda p: transformed(self._objectives[k], p.objectives[k]))

    def violations(self, k: int, configurations: Sequence[Configuration]) -> Array:
        """One column a prior that foresees limits: the predicted violation of limit ``k``."""
        return self._columns(configurations, lambda p: None if p.violations is None else _cut(p.violations[k]))

    def roughness(self, k: int) -> float:
        """How far the predictions say they are off in objective ``k``, on average."""
        known = [p for found in self._known.values() for p in found if p is not None]
        spreads = [p.spread[k] for p in known[:: max(len(known) // 100, 1)]]
        return float(np.mean(spreads)) if spreads else _ROUGH

    def fits(self, configuration: Configuration) -> float | None:
        """The predicted probability of running at all; None where nobody knows."""
        known = [p.fits for p in self.of(configuration) if p is not None]
        return min(max(math.prod(known), 0.005), 0.995) if known else None

    def _columns(self, configurations: Sequence[Configuration], figure: Callable[[Prediction], float | None]) -> Array:
        columns = []
        for i in range(len(self.priors)):
            values = []
            for configuration in configurations:
                prediction = self.of(configuration)[i]
                value = None if prediction is None else figure(prediction)
                values.append(math.nan if value is None else value)
            column = np.array(values)
            if np.isfinite(column).any():
                # where this prior has no answer it must not pull either way
                columns.append(np.where(np.isfinite(column), column, np.nanmean(column)))
        if not columns:
            return np.zeros((len(configurations), 0))
        # several priors speak of the same thing: each stands for its share
        return np.array(columns).T / len(columns)


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a belief says of a pool: gains (objectives × pool), the chance to meet all limits, the chance to run."""

    means: Array
    spreads: Array
    smoothed: Array
    """The gains of the measured configurations without their noise (objectives × measured)."""
    allowed: Array
    runs: Array
    credit: float
    """The logarithm of how well it foretells each trial from the others."""


class Belief:
    """Gaussian processes over the trials of a study, with or without the predictions as their trends."""

    def __init__(
        self, encoder: Encoder, objectives: Sequence[Objective], limits: int, forecasts: Forecasts, *, trusting: bool
    ) -> None:
        self._encoder = encoder
        self._objectives = tuple(objectives)
        self._limits = limits
        self._forecasts = forecasts
        self._trusting = trusting
        self._hyper: dict[tuple[str, int], tuple[int, Hyper]] = {}

    def outlook(self, candidates: Pool, observed: Observed) -> Outlook:
        """The belief about every candidate."""
        pool, rows = candidates.configurations, candidates.rows
        measured = [(c, r) for c, r in observed if r.objectives is not None]
        means, spreads, smoothed, credit = [], [], [], 0.0
        for k in range(len(self._objectives)):
            y = np.array([transformed(self._objectives[k], (r.objectives or ())[k]) for _, r in measured])
            trends, trends_at = self._trends("objective", k, pool, measured)
            if len(y):
                model = self._process(("objective", k), measured, y, trends_at)
                mean, spread = model.predict(rows, trends=trends)
                known, _ = model.predict(self._encoder.rows([c for c, _ in measured]), trends=trends_at)
                credit += model.foresight
            else:
                mean, spread, known = trends.sum(axis=1), np.full(len(pool), self._forecasts.roughness(k)), y
            means.append(mean)
            spreads.append(spread)
            smoothed.append(known)
        allowed, limit_credit = self._allowed(pool, rows, measured)
        return Outlook(
            means=np.array(means),
            spreads=np.array(spreads),
            smoothed=np.array(smoothed),
            allowed=allowed,
            runs=self._runs(pool, rows, observed),
            credit=credit + limit_credit,
        )

    def process(self, k: int, observed: Observed) -> tuple[Regression, list[Configuration]]:
        """The process of objective ``k`` itself, and the configurations it rests on (needs one measured trial)."""
        measured = [(c, r) for c, r in observed if r.objectives is not None]
        y = np.array([transformed(self._objectives[k], (r.objectives or ())[k]) for _, r in measured])
        _, trends_at = self._trends("objective", k, [], measured)
        return self._process(("objective", k), measured, y, trends_at), [c for c, _ in measured]

    def _trends(self, kind: str, k: int, pool: Sequence[Configuration], measured: Observed) -> tuple[Array, Array]:
        both = [*pool, *(c for c, _ in measured)]
        if not self._trusting:
            columns = np.zeros((len(both), 0))
        else:
            columns = self._forecasts.gains(k, both) if kind == "objective" else self._forecasts.violations(k, both)
        return columns[: len(pool)], columns[len(pool) :]

    def _process(self, name: tuple[str, int], measured: Observed, y: Array, trends: Array) -> Regression:
        """A fitted process; its lengths are fitted again only when there is a tenth more to fit them to."""
        fitted_at, hyper = self._hyper.get(name, (0, None))
        keep = hyper if len(y) < max(fitted_at + 1, fitted_at * _REFIT) else None
        rough = self._forecasts.roughness(name[1] if name[0] == "objective" else 0) if trends.shape[1] else None
        model = Regression(
            self._encoder.rows([c for c, _ in measured]),
            y,
            unordered=self._encoder.unordered,
            trends=trends,
            doubt=np.array([1.0 / math.sqrt(max(r.fidelity, 0.01)) for _, r in measured]),
            hyper=keep,
            rough=rough,
        )
        if keep is None:
            self._hyper[name] = (len(y), model.hyper)
        return model

    def _allowed(self, pool: Sequence[Configuration], rows: Array, measured: Observed) -> tuple[Array, float]:
        """The probability that every limit is met."""
        probability, credit = np.ones(len(pool)), 0.0
        complete = [(c, r) for c, r in measured if r.violations is not None and len(r.violations) == self._limits]
        for k in range(self._limits):
            y = np.array([_cut((r.violations or ())[k]) for _, r in complete])
            trends, trends_at = self._trends("limit", k, pool, complete)
            if len(y):
                model = self._process(("limit", k), complete, y, trends_at)
                mean, spread = model.predict(rows, trends=trends)
                credit += model.foresight
            elif trends.size:
                mean, spread = trends.sum(axis=1), np.full(len(pool), self._forecasts.roughness(0))
            else:
                continue
            probability *= normal_cdf(-mean / np.maximum(spread, 1e-9))
        return probability, credit

    def _runs(self, pool: Sequence[Configuration], rows: Array, observed: Observed) -> Array:
        """The probability that each configuration runs at all."""
        prior = self._logits(pool, observed)
        failed = np.array([result.outcome in INFEASIBLE for _, result in observed], dtype=float)
        if not failed.any():
            return np.asarray(1.0 / (1.0 + np.exp(-prior)))
        tried = [configuration for configuration, _ in observed]
        model = Classifier(
            self._encoder.rows(tried),
            1.0 - failed,
            self._logits(tried, observed),
            unordered=self._encoder.unordered,
        )
        return model.predict(rows, prior)

    def _logits(self, configurations: Sequence[Configuration], observed: Observed) -> Array:
        """What is believed of running before a neighbour was tried: the prediction, else the share that ran so far."""
        failed = sum(result.outcome in INFEASIBLE for _, result in observed)
        usual = math.log((len(observed) - failed + _RUNS_BEFORE) / (failed + 0.5))
        logits = []
        for configuration in configurations:
            fits = self._forecasts.fits(configuration) if self._trusting else None
            logits.append(usual if fits is None else math.log(fits / (1 - fits)))
        return np.array(logits)
