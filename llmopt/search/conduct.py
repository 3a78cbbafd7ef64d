"""A study over an executor: proposals become launch groups, reports become results, what was lost is run again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from llmopt.errors import UsageError
from llmopt.search.executor import Group, Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmopt.records import Configuration
    from llmopt.search.coordinator import Coordinator
    from llmopt.search.executor import Executor, Report
    from llmopt.search.proposer import Proposal, Result

__all__ = ["Conducted", "Ledger", "conduct"]

_WAIT_S = 1.0


class Ledger(Protocol):
    """Writes what happens; on disk when a call returns."""

    def started(self, proposal: Proposal) -> int:
        """A trial begins; its number."""
        ...

    def finished(self, number: int, value: Mapping[str, Any], *, hardware: str) -> Result | None:
        """A trial ended with what the worker returned; None where it already had a result."""
        ...

    def failed(self, number: int, why: str, *, hardware: str) -> Result:
        """A trial ended because its worker raised."""
        ...

    def abandoned(self, number: int, why: str) -> None:
        """A trial was running on a machine that is gone."""
        ...


@dataclass(frozen=True, kw_only=True)
class Conducted:
    """What a run over an executor did."""

    finished: int
    lost_groups: int
    unsuitable: tuple[str, ...]
    """Machines that were passed over, each with why."""
    refused: tuple[str, ...]
    """Why groups were refused: no machine has what they need."""


@dataclass(kw_only=True)
class _Open:
    """A group under way: its trials that were not reported yet, by idempotency key."""

    proposals: dict[str, Proposal]
    numbers: dict[str, int]
    attempt: int


@dataclass(kw_only=True)
class _Score:
    finished: int = 0
    started: int = 0
    lost: int = 0
    refused: list[str] = field(default_factory=list)
    unsuitable: list[str] = field(default_factory=list)


def conduct(
    coordinator: Coordinator,
    executor: Executor,
    ledger: Ledger,
    *,
    study: str,
    work: str,
    spec: Callable[[Configuration], Mapping[str, Any]],
    trials: int,
    per_group: int = 4,
    attempts: int = 3,
    resources: Callable[[Configuration], Resources] = lambda _: Resources(),
    trial: Callable[[Configuration], Mapping[str, Any]] | None = None,
    may_start: Callable[[], bool] = lambda: True,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Conducted:
    """Run up to ``trials`` trials; a worker is built from ``spec`` and given ``trial`` (the configuration as JSON).

    A group that is lost is run again (its finished trials are kept) up to ``attempts`` times in all. Raises UsageError
    where every group was refused. ``may_start`` false (enough) lets what runs come to its end; ``may_go_on`` false
    (time is up) ends it, and what was running is abandoned.
    """
    conductor = _Conductor(coordinator, executor, ledger, study, work, spec, resources, attempts, trial or _plain)
    return conductor.run(trials, per_group, may_start, may_go_on)


class _Conductor:
    def __init__(  # noqa: PLR0917 - built in one place, above
        self,
        coordinator: Coordinator,
        executor: Executor,
        ledger: Ledger,
        study: str,
        work: str,
        spec: Callable[[Configuration], Mapping[str, Any]],
        resources: Callable[[Configuration], Resources],
        attempts: int,
        trial: Callable[[Configuration], Mapping[str, Any]],
    ) -> None:
        self._coordinator = coordinator
        self._executor = executor
        self._ledger = ledger
        self._study = study
        self._work = work
        self._spec = spec
        self._resources = resources
        self._attempts = attempts
        self._trial = trial
        self._open: dict[str, _Open] = {}
        self._names = itertools.count()
        self._score = _Score()
        self._exhausted = False

    def run(
        self, trials: int, per_group: int, may_start: Callable[[], bool], may_go_on: Callable[[], bool]
    ) -> Conducted:
        """The loop."""
        while True:
            if not may_go_on():
                self._give_up()
                break
            while self._wanted(trials) > 0 and may_start() and self._executor.capacity() > 0:
                proposals = self._proposals(min(per_group, self._wanted(trials)))
                if not proposals:
                    break
                self._begin(proposals, attempt=1)
            if not self._open:
                break
            for report in self._executor.reports(_WAIT_S):
                self._take(report)
        if self._score.refused and not self._score.finished:
            why = dict.fromkeys((*self._score.refused, *self._score.unsuitable))
            raise UsageError("search.no_machine", why="; ".join(why))
        return Conducted(
            finished=self._score.finished,
            lost_groups=self._score.lost,
            unsuitable=tuple(dict.fromkeys(self._score.unsuitable)),
            refused=tuple(dict.fromkeys(self._score.refused)),
        )

    def _wanted(self, trials: int) -> int:
        return 0 if self._exhausted else trials - self._score.started

    def _proposals(self, most: int) -> list[Proposal]:
        """Proposals that share a launch."""
        found = self._coordinator.ask_group(most=most)
        self._exhausted = not found
        return found

    def _begin(self, proposals: list[Proposal], *, attempt: int) -> None:
        if attempt == 1:
            self._score.started += len(proposals)
        group_id = f"{self._study}:{next(self._names)}"
        numbers = [self._ledger.started(proposal) for proposal in proposals]
        keys = [f"{self._study}:{number}:{attempt}" for number in numbers]
        self._open[group_id] = _Open(
            proposals=dict(zip(keys, proposals, strict=True)),
            numbers=dict(zip(keys, numbers, strict=True)),
            attempt=attempt,
        )
        configuration = proposals[0].configuration
        trials = {key: self._trial(one.configuration) for key, one in zip(keys, proposals, strict=True)}
        self._executor.start(
            Group(
                id=group_id,
                work=self._work,
                spec=dict(self._spec(configuration)),
                trials=trials,
                resources=self._resources(configuration),
            )
        )

    def _take(self, report: Report) -> None:
        open_ = self._open.get(report.group)
        if open_ is None:
            return
        if report.kind == "result":
            self._result(open_, report)
            return
        del self._open[report.group]
        if report.kind == "lost":
            self._score.lost += 1
        if report.kind == "unsuitable":
            self._score.unsuitable.append(report.why)
        again = report.kind == "unsuitable" or (report.kind == "lost" and open_.attempt < self._attempts)
        if again:
            self._abandon(open_, report.why)
            if open_.proposals:
                # a machine of another kind is no fault of the group's
                attempt = open_.attempt + (report.kind == "lost")
                self._begin(list(open_.proposals.values()), attempt=max(attempt, 2))
            return
        if report.kind == "refused":
            self._score.refused.append(report.why)
        for key, number in open_.numbers.items():
            # what was not reported when the group ended did not run to its end: refused, raised, or lost too often
            result = self._ledger.failed(number, report.why, hardware=report.hardware)
            self._coordinator.tell(open_.proposals[key].configuration, result)

    def _give_up(self) -> None:
        """End what runs; its trials go first when the study is continued."""
        for group_id, open_ in list(self._open.items()):
            self._executor.cancel(group_id)
            self._abandon(open_, "")
        self._open.clear()

    def _abandon(self, open_: _Open, why: str) -> None:
        for number in open_.numbers.values():
            self._ledger.abandoned(number, why)

    def _result(self, open_: _Open, report: Report) -> None:
        proposal, number = open_.proposals.pop(report.key, None), open_.numbers.pop(report.key, None)
        if proposal is None or number is None:
            return  # reported twice: the first one stands
        result = self._ledger.finished(number, report.value, hardware=report.hardware)
        if result is not None:
            self._coordinator.tell(proposal.configuration, result)
            self._score.finished += 1


def _plain(configuration: Configuration) -> dict[str, Any]:
    return {
        "engine": configuration.engine,
        "launch": dict(configuration.launch),
        "request": configuration.request.given(),
    }
