"""Runs trials on this machine: recorded when they begin and when they end, told to whoever follows."""

from __future__ import annotations

from collections.abc import Sequence

from llmopt.records import Item
from llmopt.search.proposer import Proposal, Result
from llmopt.search.trial import Referee, TrialBench, TrialResult
from llmopt.study.recorder import Recorder
from llmopt.study.recovery import Recovery
from llmopt.study.telling import Teller

__all__ = ["Ended", "TrialRunner"]

Ended = tuple[int, TrialResult, Result]
"""A trial's number, how it ended, and what the search is to be told of it."""


class TrialRunner:
    """One study's trials on one bench; ``items`` are asked in the same order in every trial."""

    def __init__(
        self,
        bench: TrialBench,
        recorder: Recorder,
        teller: Teller,
        items: Sequence[Item],
        *,
        recovery: Recovery,
        fresh: bool = False,
    ) -> None:
        self.bench = bench
        self.items = tuple(items)
        self.recovery = recovery
        self._recorder = recorder
        self._teller = teller
        self._fresh = fresh

    async def run(
        self, proposal: Proposal, *, phase: str, left_s: float | None, referee: Referee | None = None
    ) -> Ended:
        """Try one proposal."""
        number = self._started(proposal, phase, left_s)
        with self._recorder.running(number):
            await self.recovery.prepare(proposal)
            result = await self.bench.run(
                proposal.configuration,
                self.items,
                on_sample=self._teller.counting(self.bench.answers_to(self.items, proposal.configuration.request)),
                fresh=self._fresh,
                referee=referee,
            )
            result = self._judged(proposal, result)
            told = self._recorder.finished(number, result)
        self._teller.ended(number, result, told, left_s=left_s)
        return number, result, told

    async def run_together(
        self, proposals: Sequence[Proposal], *, phase: str, left_s: float | None, referees: Sequence[Referee]
    ) -> list[Ended]:
        """Try several request settings of one launch at once."""
        numbers = [self._started(proposal, phase, left_s) for proposal in proposals]
        answers = sum(self.bench.answers_to(self.items, proposal.configuration.request) for proposal in proposals)
        with self._recorder.running(*numbers):
            for proposal in proposals:
                await self.recovery.prepare(proposal)
            results = await self.bench.run_together(
                [proposal.configuration for proposal in proposals],
                self.items,
                on_sample=self._teller.counting(answers),
                fresh=self._fresh,
                referees=referees,
            )
            ended = []
            for number, proposal, found in zip(numbers, proposals, results, strict=True):
                result = self._judged(proposal, found)
                told = self._recorder.finished(number, result)
                self._teller.ended(number, result, told, left_s=left_s)
                ended.append((number, result, told))
        return ended

    def _judged(self, proposal: Proposal, result: TrialResult) -> TrialResult:
        followed = proposal.sampler.get("advice", ())
        return self.recovery.judged(proposal.configuration, result, followed=followed)

    def _started(self, proposal: Proposal, phase: str, left_s: float | None) -> int:
        number = self._recorder.started(
            proposal.configuration,
            origin=proposal.origin,
            phase=phase,
            position=proposal.position,
            derived_from=proposal.derived_from,
            sampler=proposal.sampler,
        )
        self._teller.started(number, proposal.configuration, items=len(self.items), left_s=left_s)
        return number
