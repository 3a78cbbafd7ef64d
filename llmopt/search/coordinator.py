"""Which configuration next: enqueued ones first, then the method's own, never the same twice, restarts spared."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from llmopt.errors import UsageError
from llmopt.records import Outcome
from llmopt.search.grid import Grid, Random
from llmopt.search.proposer import Costs, PastTrial, Prior, Proposal, Proposer, Question, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llmopt.objective import Objective
    from llmopt.records import Configuration, SettingValue
    from llmopt.search.space import Space

__all__ = ["METHODS", "Coordinator"]

METHODS = ("auto", "tpe", "gp", "nsga2", "random", "grid")

_MOST_PER_LAUNCH = 8


class Coordinator:
    """Asked for proposals and told results; the single owner of the order of a study.

    ``first`` are enqueued proposals (baseline, presets, earlier studies) in order of importance; illegal ones are left
    out and listed in ``skipped``. ``limits`` name the constraints whose violations every result carries. ``priors``
    (predictions, earlier studies) are used by the methods ``auto`` and ``gp``.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        *,
        limits: Sequence[str] = (),
        method: str = "auto",
        seed: int = 0,
        first: Sequence[Proposal] = (),
        priors: Sequence[Prior] = (),
        per_launch: int = 3,
    ) -> None:
        if method not in METHODS:
            raise UsageError("search.unknown_method", method=method, methods=", ".join(METHODS))
        self.space = space
        self.method = method
        self.skipped: list[Proposal] = []
        self._proposer: Proposer
        if method == "random":
            self._proposer = Random(space, seed=seed, per_launch=per_launch)
        elif method == "grid":
            self._proposer = Grid(space, seed=seed)
        elif method in ("auto", "gp"):
            from llmopt.search.proposer_gp import GaussianProposer  # noqa: PLC0415 - loads numpy

            self._proposer = GaussianProposer(space, objectives, limits=limits, priors=priors, seed=seed)
        else:
            from llmopt.search.proposer_optuna import OptunaProposer  # noqa: PLC0415 - loads Optuna, 0.7 s

            self._proposer = OptunaProposer(space, objectives, limits=limits, sampler=method, seed=seed)
        self._seen: set[str] = set()
        self._queue: deque[Proposal] = deque()
        self._launches: dict[str, dict[str, SettingValue]] = {}
        self._visits: dict[str, int] = {}
        self._position = 0
        self._launch_s: list[float] = []
        self._measure_s: list[float] = []
        self._pending: dict[str, Proposal] = {}
        # those of one launch together, to spare restarts; an order known beforehand is the same after any kill
        launches = {key: place for place, key in enumerate(dict.fromkeys(p.configuration.launch_key for p in first))}
        for proposal in sorted(first, key=lambda p: launches[p.configuration.launch_key]):
            self.enqueue(proposal)

    # ── what the study calls ───────────────────────────────────────────────────────────────────────────────────────

    def enqueue(self, proposal: Proposal, *, front: bool = False, again: bool = False) -> bool:
        """Add a proposal to those that go first; False where it is illegal or (unless ``again``) known already."""
        if self.space.problem(proposal.configuration) is not None and proposal.origin != "baseline":
            self.skipped.append(proposal)
            return False
        key = proposal.configuration.key
        if (key in self._seen and not again) or any(waiting.configuration.key == key for waiting in self._queue):
            return False
        (self._queue.appendleft if front else self._queue.append)(proposal)
        return True

    def ask(self, running_launch_key: str | None = None, *, costs: Costs | None = None) -> Proposal | None:
        """The next proposal, on the running launch where that pays; None where the space is used up.

        May be asked again before results are told (several request settings at once, several machines).
        """
        waiting = self._queue.popleft() if self._queue else None
        proposal = waiting or self._proposed(running_launch_key, costs or self.costs)
        if proposal is None:
            return None
        configuration = proposal.configuration
        self._note(configuration)
        self._pending[configuration.key] = proposal
        self._visits[configuration.launch_key] = self._visits.get(configuration.launch_key, 0) + 1
        return proposal

    def ask_group(
        self,
        running_launch_key: str | None = None,
        *,
        most: int,
        at_most: Callable[[Configuration], int] | None = None,
    ) -> list[Proposal]:
        """Up to ``most`` proposals that share a launch; empty where the space is used up.

        ``at_most`` limits the group by what its launch settings allow.
        """
        first = self.ask(running_launch_key)
        if first is None:
            return []
        found, key = [first], first.configuration.launch_key
        count = most if at_most is None else min(most, at_most(first.configuration))
        while len(found) < count:
            following = self.ask(key)
            if following is None:
                break
            if following.configuration.launch_key != key:
                self.put_back(following)
                break
            found.append(following)
        return found

    def put_back(self, proposal: Proposal) -> None:
        """Undo an ``ask``: the proposal will be the next one."""
        key, launch_key = proposal.configuration.key, proposal.configuration.launch_key
        self._pending.pop(key, None)
        self._seen.discard(key)
        self._visits[launch_key] -= 1
        self._queue.appendleft(proposal)

    def tell(self, configuration: Configuration, result: Result) -> None:
        """Report how a trial ended, also one that was not asked for (a derived trial, the baseline)."""
        self._note(configuration)
        proposal = self._pending.pop(configuration.key, None)
        if result.launch_s is not None:
            self._launch_s.append(result.launch_s + (result.warmup_s or 0.0))
        if result.measure_s is not None:
            self._measure_s.append(result.measure_s)
        self._proposer.learn(configuration, result, sampler=None if proposal is None else proposal.sampler)

    def resume(self, past: Iterable[PastTrial], *, seen: Iterable[str] = ()) -> None:
        """Continue an earlier run: trials that never ended go first again, none that ended is proposed twice.

        ``past`` may be a part (best and newest) of a long study; ``seen`` are then the keys of all that ended.
        """
        ended: list[PastTrial] = []
        open_: list[PastTrial] = []
        for trial in past:
            if trial.position is not None:
                self._position = max(self._position, trial.position + 1)
            if trial.result.outcome in (Outcome.ABANDONED, Outcome.RUNNING):
                open_.append(trial)
                continue
            ended.append(trial)
            self._note(trial.configuration)
        self._seen.update(seen)
        self._queue = deque(p for p in self._queue if p.configuration.key not in self._seen)
        self._requeue([trial for trial in open_ if trial.configuration.key not in self._seen])
        self._proposer.resume(ended)

    @property
    def expected_gain(self) -> float | None:
        """The relative gain the model expected of its last proposal; None where the method has no model."""
        found: float | None = getattr(self._proposer, "expected_gain", None)
        return found

    @property
    def costs(self) -> Costs | None:
        """Mean measured costs so far; None before the first launch and measurement."""
        if not self._launch_s or not self._measure_s:
            return None
        recent_launches, recent_measures = self._launch_s[-20:], self._measure_s[-50:]
        return Costs(
            launch_s=sum(recent_launches) / len(recent_launches), measure_s=sum(recent_measures) / len(recent_measures)
        )

    @property
    def per_launch(self) -> float:
        """Measurements for each launch so far; 1 before there was any."""
        return max(len(self._measure_s), 1) / max(len(self._launch_s), 1)

    # ── the order ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _proposed(self, running: str | None, costs: Costs | None) -> Proposal | None:
        position = self._position
        near = None if running is None else self._launches.get(running)
        question = Question(
            position=position,
            seen=self._was_seen,
            launch=near if running is not None and self._stay(running, costs) else None,
            running=running,
            near=near,
            costs=costs,
            pending=tuple(proposal.configuration for proposal in self._pending.values()),
        )
        found = self._proposer.propose(question)
        if found is None and question.launch is not None:
            found = self._proposer.propose(replace(question, launch=None))
        if found is None:
            return None
        self._position += 1
        configuration, notes = found
        return Proposal(configuration=configuration, origin=self._proposer.origin, position=position, sampler=notes)

    def _stay(self, running: str, costs: Costs | None) -> bool:
        """Whether another request setting on the running launch is worth more than a restart.

        The dearer a launch is beside a measurement, the more measurements it is given. Random and grid order their
        launches themselves, independent of time, so that a resume repeats them; the Gaussian process weighs seconds.
        """
        if not self._proposer.stays or not self.space.request_parameters:
            return False
        allowed = 2 if costs is None else 1 + round(costs.launch_s / max(costs.measure_s, 1e-3))
        return self._visits.get(running, 0) < min(_MOST_PER_LAUNCH, allowed)

    def _was_seen(self, configuration: Configuration) -> bool:
        return configuration.key in self._seen

    def _note(self, configuration: Configuration) -> None:
        self._seen.add(configuration.key)
        if configuration.launch_key not in self._launches:
            values = self.space.assignment(configuration)
            names = {parameter.name for parameter in self.space.launch_parameters}
            self._launches[configuration.launch_key] = {k: v for k, v in values.items() if k in names}

    def _requeue(self, open_: Sequence[PastTrial]) -> None:
        for trial in reversed(open_):
            proposal = Proposal(
                configuration=trial.configuration, origin=trial.origin, position=trial.position, sampler=trial.sampler
            )
            self._queue = deque(p for p in self._queue if p.configuration.key != trial.configuration.key)
            self.enqueue(proposal, front=True)
