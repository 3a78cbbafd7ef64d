"""After a failure with a known way around: the way is taken, and tried as a new trial, never an edited one.

What is advised stands with the failed trial on disk, so a study that was killed between a failure and its remedy goes
on with the remedy. After ``MOST_ATTEMPTS`` trials in one chain the configuration counts as infeasible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmopt.failures import Advice, Failure, advise
from llmopt.records import Configuration, Outcome, Settings
from llmopt.search.proposer import Proposal
from llmopt.search.trial import TrialResult
from llmopt.store.rows import TrialRow

__all__ = ["MOST_ATTEMPTS", "Recovery", "Remedies", "same_settings"]

MOST_ATTEMPTS = 3
LONGEST_WAIT_S = 120.0
ORIGIN = "recovery"
MEMORY_ENDED = "memory.trial_ended"
SMALLER = (
    *("adjust:slots/2", "adjust:batch/2", "adjust:ubatch/2", "adjust:utilization-0.05", "adjust:context/2"),
    *("adjust:kv_type>", "adjust:quantization>", "infeasible"),
)
"""What to try, in order, where our own memory watch ended a trial and no engine said why."""


@dataclass(frozen=True, kw_only=True)
class Remedies:
    """What can be done before a trial is tried again; each returns when it is done."""

    free_memory: Callable[[], Awaitable[None]]
    """Remove what earlier engines left (processes, shared memory) and wait until memory is calm."""
    fetch_again: Callable[[], Awaitable[None]]
    """Check the weights, and fetch them again where they are not what they should be."""


class Recovery:
    """Decides what follows a failed trial, and does what the decision needs before the next one starts."""

    def __init__(self, remedies: Remedies, *, context_per_slot: Callable[[], int] = lambda: 0) -> None:
        self._remedies = remedies
        self._context_per_slot = context_per_slot

    def judged(self, configuration: Configuration, result: TrialResult, *, followed: Sequence[str]) -> TrialResult:
        """``result`` with what is advised next, and infeasible where these settings are given up or must change.

        ``followed`` are the labels of the advice that led to this trial.
        """
        failure = result.failure or _of_memory(result)
        if failure is None or result.failed is None:
            return result
        advice = advise(
            failure,
            configuration.launch,
            done=followed,
            most_attempts=MOST_ATTEMPTS,
            context_per_slot=self._context_per_slot(),
        )
        again = not advice.final and (advice.action != "adjust" or bool(advice.changes))
        given_up = advice.action in {"infeasible", "adjust"}
        return replace(
            result,
            outcome=Outcome.INFEASIBLE if given_up else result.outcome,
            failed=replace(result.failed, done=advice.text, advice=_plain(advice, followed) if again else None),
        )

    def next(self, number: int, configuration: Configuration, result: TrialResult) -> Proposal | None:
        """The trial that follows a judged one; None where there is nothing to try."""
        advice = result.failed.advice if result.failed else None
        return None if advice is None else _proposal(number, configuration, advice)

    def open(self, rows: Sequence[TrialRow]) -> list[Proposal]:
        """What an earlier run of the study advised and did not come to, oldest first."""
        ended = [row for row in rows if row.outcome not in {Outcome.ABANDONED, Outcome.RUNNING}]
        answered = {row.derived_from for row in ended}
        return [
            _proposal(row.number, row.configuration, row.failure["advice"])
            for row in ended
            if row.failure and row.failure.get("advice") and row.number not in answered
        ]

    async def prepare(self, proposal: Proposal) -> None:
        """Do what the advice of a derived trial asks for before its engine starts; nothing for any other trial."""
        step = proposal.sampler.get("step")
        if step == "wait":
            await asyncio.sleep(min(float(proposal.sampler.get("wait_s", 0.0)), LONGEST_WAIT_S))
        if step in {"wait", "free_gpu", "clean_shm"}:
            await self._remedies.free_memory()
        elif step == "redownload":
            await self._remedies.fetch_again()


def same_settings(proposal: Proposal) -> bool:
    """Whether a derived trial repeats what failed, rather than changing it."""
    return proposal.sampler.get("step") != "adjust"


def _of_memory(result: TrialResult) -> Failure | None:
    """A trial that our own memory watch ended, as a failure with ways around it."""
    if result.failed is None or result.failed.id != MEMORY_ENDED:
        return None
    return Failure(id=MEMORY_ENDED, category="memory", known=False, recovery=SMALLER)


def _plain(advice: Advice, followed: Sequence[str]) -> dict[str, Any]:
    return {
        "action": advice.action,
        "labels": [*followed, advice.label],
        "launch": dict(advice.settings),
        "wait_s": advice.wait_s,
    }


def _proposal(number: int, configuration: Configuration, advice: dict[str, Any]) -> Proposal:
    launch: Settings = advice["launch"]
    return Proposal(
        configuration=replace(configuration, launch=launch),
        origin=ORIGIN,
        derived_from=number,
        sampler={"advice": advice["labels"], "step": advice["action"], "wait_s": advice["wait_s"]},
    )
