"""Our own Bayesian proposer: what was predicted, corrected by what was measured, weighed by what it costs to try.

The next trial has the largest expected improvement (for several objectives: of hypervolume) times the probability of
meeting every limit, per second it takes on the engine that runs now. Two beliefs are asked, one that trusts the
predictions and one that does not; each counts by how well it foretells the trials that ran. Every fourth proposal knows
nothing of the predictions, so that wrong ones cannot trap the search.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llmopt.runtime.linear_algebra import one_thread
from llmopt.search.acquisition import expected_hypervolume, expected_improvement, non_dominated
from llmopt.search.belief import INFEASIBLE, Belief, Forecasts, transformed
from llmopt.search.features import Candidates, Encoder
from llmopt.search.gaussian import distances
from llmopt.search.grid import seeded, unseen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from llmopt.objective import Objective
    from llmopt.records import Configuration
    from llmopt.search.belief import Observed, Outlook
    from llmopt.search.features import Pool
    from llmopt.search.proposer import PastTrial, Prior, Question, Result
    from llmopt.search.space import Space

    Array = NDArray[np.float64]

__all__ = ["FREE_EVERY", "GaussianProposer"]

FREE_EVERY = 4
"""One proposal in so many knows nothing of the predictions."""

_MOST_OBSERVED = 120
"""Observations a fit uses: the best and the newest; more cost time and change little."""

_FIRST = 4
"""Before so many trials, proposals that know nothing of predictions are spread out, for trade-offs or to doubt them.

One goal of which nothing was predicted is reached sooner by asking the process at once.
"""

_TRUST = math.log(4.0)
"""Predictions are believed four to one before the first trial."""

_FEW = 6
"""With so many allowed trials the front is known well enough to be improved where it is."""

_RATES = ("per_minute", "per_s")
_FAR = 8.0
"""A measurement is believed to be at most so many times longer or shorter than a usual one."""

_HOPELESS = 0.33
"""A configuration less likely to run than this is not worth a launch while others are left."""


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
        self._seed = seed
        self._encoder = Encoder(space)
        self._candidates = Candidates(space, self._encoder)
        self._forecasts = Forecasts(priors, objectives)
        self._plain, self._trusting = (
            Belief(self._encoder, objectives, len(limits), self._forecasts, trusting=trusting)
            for trusting in (False, True)
        )
        self._told: dict[str, tuple[Configuration, Result]] = {}
        self.expected_gain: float | None = None
        """The improvement expected of the last proposal, relative to the best; None before there is a model."""

    # ── the protocol ───────────────────────────────────────────────────────────────────────────────────────────────

    def learn(self, configuration: Configuration, result: Result, *, sampler: Mapping[str, Any] | None = None) -> None:
        """Keep the newest result of a configuration."""
        del sampler
        if result.objectives is not None or result.outcome in INFEASIBLE:
            self._told.pop(configuration.key, None)
            self._told[configuration.key] = (configuration, result)

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Begin again from earlier trials."""
        self._told.clear()
        for trial in past:
            self.learn(trial.configuration, trial.result)

    @one_thread()
    def propose(self, question: Question) -> tuple[Configuration, Mapping[str, Any]] | None:
        """The candidate most worth its time; where nothing was predicted the first is the plainest."""
        source = seeded(self._seed, self.origin, question.position)
        best = [configuration for configuration, _ in self._best(5)]
        pool = self._candidates.choose(source, seen=question.seen, around=best, launch=question.near)
        if not len(pool):
            left = unseen(self._space, question, source)
            return None if left is None else (left, {})
        trusting = question.position % FREE_EVERY != FREE_EVERY - 1 and self._forecasts.cover(pool.configurations)
        measured = sum(result.objectives is not None for _, result in self._told.values())
        if measured < _FIRST and not trusting and (self._forecasts.priors or len(self._objectives) > 1):
            return self._farthest(pool, source.random()), {}
        worth, pace = self._worth(pool, trusting=trusting)
        worth = worth * self._apart(pool, question.pending)
        value = worth / self._seconds(pool, question, pace)
        self.expected_gain = self._relative(float(np.max(worth)))
        ties = [pool.configurations[int(k)] for k in np.flatnonzero(value >= np.max(value) * (1 - 1e-9))]
        return source.choice(self._plainest(ties)), {}

    # ── what a candidate is worth ──────────────────────────────────────────────────────────────────────────────────

    def _worth(self, pool: Pool, *, trusting: bool) -> tuple[Array, Array]:
        """What each candidate is worth, and how long its measurement is beside a usual one."""
        observed = self._observed()
        if not trusting:
            plain = self._plain.outlook(pool, observed)
            return self._worth_by(plain, observed), self._pace(plain)
        believing = self._trusting.outlook(pool, observed)
        if believing.smoothed.shape[1] < 2:  # noqa: PLR2004 - one trial cannot contradict a prediction
            return self._worth_by(believing, observed), self._pace(believing)
        doubting = self._plain.outlook(pool, observed)
        # what is said of memory stands by itself (a wrong speed makes nothing fit), and the darker view counts
        runs = np.minimum(believing.runs, doubting.runs)
        believing, doubting = replace(believing, runs=runs), replace(doubting, runs=runs)
        odds = min(max(_TRUST + believing.credit - doubting.credit, -30.0), 30.0)
        # two trials have no spread of their own: they say nothing against a prediction
        share = 1.0 / (1.0 + math.exp(-odds)) if believing.smoothed.shape[1] > 2 else 1.0  # noqa: PLR2004
        worth = share * self._worth_by(believing, observed) + (1.0 - share) * self._worth_by(doubting, observed)
        return worth, share * self._pace(believing) + (1.0 - share) * self._pace(doubting)

    def _worth_by(self, outlook: Outlook, observed: Observed) -> Array:
        # a launch that dies costs more than its time: what will probably die waits until nothing else is left
        likely = outlook.allowed * np.where(outlook.runs < _HOPELESS, 1e-12, 1.0) * np.square(outlook.runs)
        results = [result for _, result in observed if result.objectives is not None]
        met = np.array([all(v <= 0 for v in result.violations or ()) for result in results], dtype=bool)
        if not met.any():
            # nothing allowed was found yet: look where it is likely, at what promises most there
            return np.asarray(likely * self._promise(outlook.means) + 1e-300)
        gains = outlook.smoothed.T[met]
        if len(self._objectives) == 1:
            worth = expected_improvement(outlook.means[0], outlook.spreads[0], float(gains.max()))
        else:
            seen = gains
            likely_to_run = outlook.means.T[outlook.runs >= _HOPELESS]
            if len(gains) < _FEW and len(likely_to_run):
                # the ends of the believed front count too, or the first trials would stay around the very first
                seen = np.vstack([gains, likely_to_run[likely_to_run.argmax(axis=0)]])
            reference = seen.min(axis=0) - 0.1 * np.maximum(np.ptp(seen, axis=0), 0.05)
            worth = expected_hypervolume(outlook.means.T, outlook.spreads.T, non_dominated(gains), reference)
        return np.asarray(worth * likely + 1e-300)

    def _pace(self, outlook: Outlook) -> Array:
        """The same items at half the rate take twice as long; where no objective is a rate, all take as long."""
        for k, objective in enumerate(self._objectives):
            if objective.kind in _RATES and outlook.smoothed.shape[1]:
                usual = float(np.mean(np.exp(-outlook.smoothed[k])))
                return np.asarray(np.clip(np.exp(-outlook.means[k]) / usual, 1.0 / _FAR, _FAR))
        return np.ones(outlook.means.shape[1])

    def _promise(self, means: Array) -> Array:
        """What each candidate is worth if it is allowed: the product of its shares of the best in each objective."""
        promise = np.ones(means.shape[1])
        for objective, mean in zip(self._objectives, means, strict=True):
            if objective.kind == "share":
                promise *= 0.1 + 0.9 * (mean - mean.min()) / (np.ptp(mean) or 1.0)
            else:
                promise *= np.exp(mean - mean.max())
        return promise

    # ── small things ───────────────────────────────────────────────────────────────────────────────────────────────

    def _relative(self, worth: float) -> float | None:
        """A worth in relative terms: of a logarithm it is one already, of a share relative to the best."""
        best = self._best(1)
        if len(self._objectives) > 1 or not best:
            return None
        objective = self._objectives[0]
        if objective.kind != "share":
            return worth
        return worth / max(abs((best[0][1].objectives or (1.0,))[0]), 1e-9)

    def _best(self, count: int) -> list[tuple[Configuration, Result]]:
        """The best allowed ones, in turn of each objective."""
        found = [
            (c, r)
            for c, r in self._told.values()
            if r.objectives is not None and all(v <= 0 for v in r.violations or ())
        ]
        orders = []
        for k, objective in enumerate(self._objectives):
            gains = [transformed(objective, (r.objectives or ())[k]) for _, r in found]
            orders.append([found[i] for i in sorted(range(len(found)), key=lambda i, g=gains: -g[i])])  # type: ignore[misc]
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

    def _farthest(self, pool: Pool, chance: float) -> Configuration:
        """The candidate farthest from all that was tried; the first by chance."""
        tried = [configuration for configuration, _ in self._told.values()]
        if not tried:
            return pool.configurations[int(chance * len(pool))]
        nearest = self._squared(pool, tried).min(axis=1)
        farthest = np.flatnonzero(nearest >= nearest.max() - 1e-12)
        return pool.configurations[int(farthest[int(chance * len(farthest))])]

    def _plainest(self, equal: Sequence[Configuration]) -> list[Configuration]:
        """Those of ``equal`` worth that change the fewest defaults: what nobody expects a gain from is left alone."""
        defaults = {**self._space.defaults, **self._space.request_defaults.given()}
        changes = [sum(found.get(n) != value for n, value in defaults.items()) for found in (c.flat() for c in equal)]
        fewest = min(changes)
        return [configuration for configuration, count in zip(equal, changes, strict=True) if count == fewest]

    def _apart(self, pool: Pool, pending: Sequence[Configuration]) -> Array:
        """Near 0 beside what is being measured at this moment: its result is about to tell."""
        if not pending:
            return np.ones(len(pool))
        return np.asarray(np.prod(1.0 - np.exp(-8.0 * self._squared(pool, pending)), axis=1))

    def _squared(self, pool: Pool, others: Sequence[Configuration]) -> Array:
        return np.asarray(distances(pool.rows, self._encoder.rows(others), self._encoder.unordered).sum(axis=0))

    @staticmethod
    def _seconds(pool: Pool, question: Question, pace: Array) -> Array:
        """What each candidate takes: a measurement, and a launch where it does not run on the present engine."""
        if question.costs is None:
            return np.ones(len(pool))
        costs = question.costs
        restart = np.array([candidate.launch_key != question.running for candidate in pool.configurations], dtype=float)
        return np.asarray(max(costs.measure_s, 1e-3) * pace + costs.launch_s * restart)
