"""Our own Bayesian proposer: what was predicted, corrected by what was measured, weighed by what it costs to try.

Objectives and limits are Gaussian processes over the predictions (a prior), what runs at all is a classifier. The next
trial has the largest expected improvement (for several objectives: of hypervolume) times the probability of meeting
every limit, per second it takes on the engine that runs now. Every fourth proposal knows nothing of the prior, so that
a wrong one cannot trap the search.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from llmopt.records import Outcome
from llmopt.search.acquisition import expected_hypervolume, expected_improvement, non_dominated
from llmopt.search.features import Candidates, Encoder
from llmopt.search.gaussian import Classifier, Hyper, Regression, distances, normal_cdf
from llmopt.search.grid import seeded, unseen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from llmopt.objective import Objective
    from llmopt.records import Configuration
    from llmopt.search.proposer import PastTrial, Prediction, Prior, Question, Result
    from llmopt.search.space import Space

    Array = NDArray[np.float64]

__all__ = ["FREE_EVERY", "GaussianProposer"]

FREE_EVERY = 4
"""One proposal in so many knows nothing of the prior."""

_MOST_OBSERVED = 120
"""Observations a fit uses: the best and the newest; more cost time and change little."""

_FIRST = 4
"""Spread-out trials before the process is asked, where nothing was predicted."""

_REFIT = 1.1
"""Lengths and noise are fitted again when the observations have grown by a tenth."""

_HOPELESS = 0.33
"""A configuration less likely to run than this is not worth a launch while others are left."""

_INFEASIBLE = (Outcome.INFEASIBLE, Outcome.FAILED)
_RUNS_BEFORE = 5.0
"""Ten configurations in eleven run, before anything is known."""


class GaussianProposer:
    """Proposes by Gaussian processes over the legal configurations; ``priors`` may be none, one or several."""

    origin = "gp"
    stays = False

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        *,
        limits: Sequence[str] = (),
        priors: Sequence[Prior] = (),
        seed: int,
    ) -> None:
        self._space = space
        self._objectives = tuple(objectives)
        self._limits = len(limits)
        self._priors = tuple(priors)
        self._seed = seed
        self._encoder = Encoder(space)
        self._candidates = Candidates(space)
        self._told: dict[str, tuple[Configuration, Result]] = {}
        self._predicted: dict[str, tuple[Prediction | None, ...]] = {}
        self._hyper: dict[tuple[str, int, bool], tuple[int, Hyper]] = {}
        self.expected_gain: float | None = None
        """The improvement expected of the last proposal, relative to the best; None before there is a model."""

    # ── the protocol ───────────────────────────────────────────────────────────────────────────────────────────────

    def learn(self, configuration: Configuration, result: Result, *, sampler: Mapping[str, Any] | None = None) -> None:
        """Keep the newest result of a configuration."""
        del sampler
        if result.objectives is not None or result.outcome in _INFEASIBLE:
            self._told.pop(configuration.key, None)
            self._told[configuration.key] = (configuration, result)

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Begin again from earlier trials."""
        self._told.clear()
        for trial in past:
            self.learn(trial.configuration, trial.result)

    def propose(self, question: Question) -> tuple[Configuration, Mapping[str, Any]] | None:
        """The candidate most worth its time; spread-out ones first, where nothing was predicted or measured yet."""
        source = seeded(self._seed, self.origin, question.position)
        best = [configuration for configuration, _ in self._best(5)]
        pool = self._candidates.choose(source, around=best, launch=question.near)
        pool = [candidate for candidate in pool if not question.seen(candidate)]
        if not pool:
            left = unseen(self._space, question, source)
            return None if left is None else (left, {})
        trusting = bool(self._priors) and question.position % FREE_EVERY != FREE_EVERY - 1
        measured = sum(result.objectives is not None for _, result in self._told.values())
        if measured < _FIRST and not (trusting and self._known(pool)):
            return self._farthest(pool, source.random()), {}
        worth = self._worth(pool, trusting=trusting) * self._apart(pool, question.pending)
        value = worth / self._seconds(pool, question)
        self.expected_gain = self._relative(float(np.max(worth)))
        ties = np.flatnonzero(value >= np.max(value) * (1 - 1e-9))
        return pool[int(ties[source.randrange(len(ties))])], {}

    # ── what a candidate is worth ──────────────────────────────────────────────────────────────────────────────────

    def _worth(self, pool: Sequence[Configuration], *, trusting: bool) -> Array:
        observed = self._observed()
        rows = self._encoder.rows(pool)
        measured = [(c, r) for c, r in observed if r.objectives is not None]
        feasible = self._allowed(pool, rows, measured, trusting=trusting)
        runs = self._runs(pool, rows, observed, trusting=trusting)
        # a launch that dies costs more than its time: what will probably die waits until nothing else is left
        likely = feasible * np.where(runs < _HOPELESS, 1e-12, 1.0) * np.square(runs)
        means, spreads, at_observed = [], [], []
        for k in range(len(self._objectives)):
            mean, spread, known = self._objective(k, pool, rows, measured, trusting=trusting)
            means.append(mean)
            spreads.append(spread)
            at_observed.append(known)
        met = np.array([all(v <= 0 for v in r.violations or ()) for _, r in measured], dtype=bool)
        if not met.any():
            # nothing allowed was found yet: look where it is likely, at what promises most there
            return np.asarray(likely * self._promise(means) + 1e-300)
        gains = np.array(at_observed).T
        if len(means) == 1:
            worth = expected_improvement(means[0], spreads[0], float(gains[met].max()))
        else:
            front = non_dominated(gains[met])
            reference = gains[met].min(axis=0) - 0.1 * np.maximum(np.ptp(gains[met], axis=0), 0.05)
            worth = expected_hypervolume(np.array(means).T, np.array(spreads).T, front, reference)
        return np.asarray(worth * likely + 1e-300)

    def _promise(self, means: Sequence[Array]) -> Array:
        """What each candidate is worth if it is allowed: the product of its shares of the best in each objective."""
        promise = np.ones(len(means[0]))
        for objective, mean in zip(self._objectives, means, strict=True):
            if objective.kind == "share":
                promise *= 0.1 + 0.9 * (mean - mean.min()) / (np.ptp(mean) or 1.0)
            else:
                promise *= np.exp(mean - mean.max())
        return promise

    def _objective(
        self,
        k: int,
        pool: Sequence[Configuration],
        rows: Array,
        measured: Sequence[tuple[Configuration, Result]],
        *,
        trusting: bool,
    ) -> tuple[Array, Array, Array]:
        """Mean and spread of the transformed gain over the pool, and its smoothed value where it was measured."""
        trends, trends_at = self._trends(k, pool, [c for c, _ in measured], trusting=trusting)
        y = np.array([self._gain(k, (r.objectives or ())[k]) for _, r in measured])
        if not len(y):
            total = trends.sum(axis=1)
            return total, np.full(len(pool), 0.5), y
        model = self._regression(("objective", k), measured, y, trends_at, trends)
        mean, spread = model.predict(rows, trends=trends)
        known, _ = model.predict(self._encoder.rows([c for c, _ in measured]), trends=trends_at)
        return mean, spread, known

    def _allowed(
        self,
        pool: Sequence[Configuration],
        rows: Array,
        measured: Sequence[tuple[Configuration, Result]],
        *,
        trusting: bool,
    ) -> Array:
        """The probability that every limit is met."""
        probability = np.ones(len(pool))
        complete = [(c, r) for c, r in measured if r.violations is not None and len(r.violations) == self._limits]
        for k in range(self._limits):
            trends, trends_at = self._limit_trends(k, pool, [c for c, _ in complete], trusting=trusting)
            y = np.array([_squeezed((r.violations or ())[k]) for _, r in complete])
            if len(y):
                mean, spread = self._regression(("limit", k), complete, y, trends_at, trends).predict(
                    rows, trends=trends
                )
            elif trends.size:
                mean, spread = trends.sum(axis=1), np.full(len(pool), 0.3)
            else:
                continue
            probability *= normal_cdf(-mean / np.maximum(spread, 1e-9))
        return probability

    def _runs(
        self,
        pool: Sequence[Configuration],
        rows: Array,
        observed: Sequence[tuple[Configuration, Result]],
        *,
        trusting: bool,
    ) -> Array:
        prior = self._runs_logit(pool, trusting=trusting)
        failed = [result.outcome in _INFEASIBLE for _, result in observed]
        if not any(failed):
            return np.asarray(1.0 / (1.0 + np.exp(-prior)))
        ran = 1.0 - np.array(failed, dtype=float)
        tried = [configuration for configuration, _ in observed]
        model = Classifier(
            self._encoder.rows(tried),
            ran,
            self._runs_logit(tried, trusting=trusting),
            unordered=self._encoder.unordered,
        )
        return model.predict(rows, prior)

    def _regression(
        self,
        name: tuple[str, int],
        measured: Sequence[tuple[Configuration, Result]],
        y: Array,
        trends_at: Array,
        trends: Array,
    ) -> Regression:
        """The process, its lengths fitted again only when there is a tenth more to fit them to."""
        which = (*name, trends_at.shape[1] > 0)
        fitted_at, hyper = self._hyper.get(which, (0, None))
        keep = hyper if len(y) < max(fitted_at + 1, fitted_at * _REFIT) else None
        model = Regression(
            self._encoder.rows([c for c, _ in measured]),
            y,
            unordered=self._encoder.unordered,
            trends=trends_at,
            doubt=np.array([1.0 / math.sqrt(max(r.fidelity, 0.01)) for _, r in measured]),
            hyper=keep,
            scale=float(np.std(y)),
            rough=self._roughness(name) if trends.shape[1] else None,
        )
        if keep is None:
            self._hyper[which] = (len(y), model.hyper)
        return model

    def _roughness(self, name: tuple[str, int]) -> float:
        """How far the predictions say they are off, on average; of limits as of objectives."""
        kind, k = name
        known = [p for found in self._predicted.values() for p in found if p is not None]
        spreads = [p.spread[k if kind == "objective" else 0] for p in known[:: max(len(known) // 100, 1)]]
        return float(np.mean(spreads)) if spreads else 0.3

    # ── what was predicted ─────────────────────────────────────────────────────────────────────────────────────────

    def _predictions(self, configuration: Configuration) -> tuple[Prediction | None, ...]:
        found = self._predicted.get(configuration.key)
        if found is None:
            found = tuple(prior.predict(configuration) for prior in self._priors)
            self._predicted[configuration.key] = found
        return found

    def _known(self, pool: Sequence[Configuration]) -> bool:
        """Whether the prior has an answer for most of the pool."""
        sample = pool[:: max(len(pool) // 50, 1)]
        answered = sum(any(p is not None for p in self._predictions(candidate)) for candidate in sample)
        return answered >= len(sample) / 2

    def _trends(
        self, k: int, pool: Sequence[Configuration], at: Sequence[Configuration], *, trusting: bool
    ) -> tuple[Array, Array]:
        return self._columns(
            pool, at, trusting=trusting, figure=lambda p: self._gain(k, p.objectives[k]) if p.objectives else None
        )

    def _limit_trends(
        self, k: int, pool: Sequence[Configuration], at: Sequence[Configuration], *, trusting: bool
    ) -> tuple[Array, Array]:
        return self._columns(
            pool, at, trusting=trusting, figure=lambda p: _squeezed(p.violations[k]) if p.violations else None
        )

    def _columns(
        self, pool: Sequence[Configuration], at: Sequence[Configuration], *, trusting: bool, figure: Any
    ) -> tuple[Array, Array]:
        """One column a prior that knows the figure; where it does not know a configuration, its mean elsewhere."""
        columns: list[tuple[Array, Array]] = []
        for i in range(len(self._priors) if trusting else 0):
            values = []
            for configuration in (*pool, *at):
                prediction = self._predictions(configuration)[i]
                value = None if prediction is None else figure(prediction)
                values.append(math.nan if value is None else value)
            column = np.array(values)
            if np.isfinite(column).any():
                column = np.where(np.isfinite(column), column, np.nanmean(column))
                columns.append((column[: len(pool)], column[len(pool) :]))
        if not columns:
            return np.zeros((len(pool), 0)), np.zeros((len(at), 0))
        # several priors speak of the same thing: each stands for its share
        share = 1.0 / len(columns)
        return np.array([c * share for c, _ in columns]).T, np.array([c * share for _, c in columns]).T

    def _runs_logit(self, pool: Sequence[Configuration], *, trusting: bool) -> Array:
        """What is believed of running at all: the predicted probability, else the share that ran so far."""
        failed = sum(result.outcome in _INFEASIBLE for _, result in self._told.values())
        usual = math.log((len(self._told) - failed + _RUNS_BEFORE) / (failed + 0.5))
        logits = []
        for configuration in pool:
            known = [p.fits for p in self._predictions(configuration) if p is not None] if trusting else []
            fits = min(max(math.prod(known), 0.005), 0.995) if known else None
            logits.append(usual if fits is None else math.log(fits / (1 - fits)))
        return np.array(logits)

    # ── small things ───────────────────────────────────────────────────────────────────────────────────────────────

    def _gain(self, k: int, value: float) -> float:
        """More is better; sizes and times by their logarithms, shares as they are."""
        objective = self._objectives[k]
        if objective.kind == "share":
            return objective.gain(value)
        return objective.gain(math.log(max(value, 1e-9)))

    def _relative(self, worth: float) -> float | None:
        """A worth in relative terms: of a logarithm it is one already, of a share relative to the best."""
        if len(self._objectives) > 1 or not self._best(1):
            return None
        objective = self._objectives[0]
        if objective.kind != "share":
            return worth
        _, result = self._best(1)[0]
        return worth / max(abs((result.objectives or (1.0,))[0]), 1e-9)

    def _best(self, count: int) -> list[tuple[Configuration, Result]]:
        """The best allowed ones, in turn of each objective."""
        found = [
            (c, r)
            for c, r in self._told.values()
            if r.objectives is not None and all(v <= 0 for v in r.violations or ())
        ]
        orders = [
            sorted(found, key=lambda entry, k=k: -self._objectives[k].gain((entry[1].objectives or ())[k]))  # type: ignore[misc]
            for k in range(len(self._objectives))
        ]
        chosen: dict[str, tuple[Configuration, Result]] = {}
        for rank in range(len(found)):
            for order in orders:
                if len(chosen) < count:
                    chosen[order[rank][0].key] = order[rank]
        return list(chosen.values())

    def _observed(self) -> list[tuple[Configuration, Result]]:
        """The best and the newest trials, as many as a fit takes."""
        everything = list(self._told.values())
        if len(everything) <= _MOST_OBSERVED:
            return everything
        best = {configuration.key for configuration, _ in self._best(_MOST_OBSERVED // 2)}
        newest = {configuration.key for configuration, _ in everything[-_MOST_OBSERVED // 2 :]}
        return [entry for entry in everything if entry[0].key in best | newest]

    def _farthest(self, pool: Sequence[Configuration], chance: float) -> Configuration:
        """The candidate farthest from all that was tried; the first by chance."""
        tried = [configuration for configuration, _ in self._told.values()]
        if not tried:
            return pool[int(chance * len(pool))]
        apart = distances(self._encoder.rows(pool), self._encoder.rows(tried), self._encoder.unordered).sum(axis=0)
        nearest = apart.min(axis=1)
        farthest = np.flatnonzero(nearest >= nearest.max() - 1e-12)
        return pool[int(farthest[int(chance * len(farthest))])]

    def _apart(self, pool: Sequence[Configuration], pending: Sequence[Configuration]) -> Array:
        """Near 0 beside what is being measured at this moment: its result is about to tell."""
        if not pending:
            return np.ones(len(pool))
        apart = distances(self._encoder.rows(pool), self._encoder.rows(pending), self._encoder.unordered).sum(axis=0)
        return np.asarray(np.prod(1.0 - np.exp(-8.0 * apart), axis=1))

    @staticmethod
    def _seconds(pool: Sequence[Configuration], question: Question) -> Array:
        """What each candidate takes: a measurement, and a launch where it does not run on the present engine."""
        if question.costs is None:
            return np.ones(len(pool))
        costs = question.costs
        restart = np.array([candidate.launch_key != question.running for candidate in pool], dtype=float)
        return np.asarray(max(costs.measure_s, 1e-3) + costs.launch_s * restart)


def _squeezed(violation: float) -> float:
    """A violation with its extremes cut off: how hopeless a hopeless one is says nothing."""
    return min(max(violation, -3.0), 3.0)
