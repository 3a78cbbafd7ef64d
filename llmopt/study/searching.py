"""The search of a study: what is asked next, who is raced against whom, and when it is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from llmopt.objective import pareto_front
from llmopt.records import Configuration, InferenceParams, Outcome, Settings, Task
from llmopt.search.budget import Progress
from llmopt.search.coordinator import Coordinator
from llmopt.search.presets import request_parameters
from llmopt.search.proposer import Proposal, Result
from llmopt.search.racing import Incumbents, Referee, answers_of, race_for
from llmopt.search.space import Space
from llmopt.search.trial import TrialResult, places
from llmopt.store.rows import TrialRow
from llmopt.study.cluster import Cluster, TrialLedger, conduct_search
from llmopt.study.events import Event
from llmopt.study.host import StudyHost
from llmopt.study.knowledge import Knowledge
from llmopt.study.planning import Planner
from llmopt.study.prepare import Prepared
from llmopt.study.recorder import Recorder, told_of, trial_result
from llmopt.study.recovery import same_settings
from llmopt.study.remote import Job
from llmopt.study.running import Ended, TrialRunner
from llmopt.study.telling import Teller
from llmopt.workload.prompts import DEFAULT_FORM, forms_for

__all__ = ["Searching", "eligible", "space_of", "starting_points"]

SHOWN_FORM = "examples"
"""The prompt form the presets are tried with: worked examples are what most models gain most from."""
MOST_TOGETHER = 4
"""Request settings asked on one engine at once, where only quality is judged."""
_OF_ANSWERS = {"quality", "diversity"}
"""Objectives that do not depend on how fast the engine is."""


class Searching:
    """One study's search on this machine."""

    def __init__(
        self,
        prepared: Prepared,
        runner: TrialRunner,
        coordinator: Coordinator,
        *,
        recorder: Recorder,
        host: StudyHost,
        teller: Teller,
        planner: Planner,
    ) -> None:
        self._prepared = prepared
        self._recorder = recorder
        self._runner = runner
        self._host = host
        self._teller = teller
        self._planner = planner
        self._coordinator = coordinator
        self._objectives = prepared.goal.objectives
        self._race = race_for(self._objectives, recorder.constraints)
        self._incumbents = Incumbents(self._objectives)
        self._progress = Progress(self._objectives)
        self._together = _quality_alone(prepared, recorder)

    async def run(self) -> str:
        """Trials until the budget is spent or another is unlikely to pay; what ended it."""
        bench = self._runner.bench
        self._recall()
        while (open_trials := self._planner.open_trials) > 0:
            left_s = self._planner.search_left_s()
            if not self._planner.affordable(self._coordinator.costs):
                return "time"
            if self._progress.stalled(expected_gain=self._coordinator.expected_gain):
                return "no_progress"
            most = min(MOST_TOGETHER, open_trials) if self._together else 1
            proposals = self._coordinator.ask_group(bench.launch_key, most=most, at_most=places)
            if not proposals:
                return "space"
            try:
                async with asyncio.timeout(left_s):
                    ended = await self._try(proposals)
            except TimeoutError:
                await bench.stop()
                return "time"
            for proposal, (number, result, told) in zip(proposals, ended, strict=True):
                self._learn(proposal, number, result, told)
            self._planner.replan(self._coordinator)
        return "trials"

    async def run_on(self, cluster: Cluster, job: Job) -> str:
        """The same on the machines of a cluster, several launches at once; what ended it."""
        self._recall()
        items = self._runner.items
        ledger = TrialLedger(self._recorder, self._teller, items=len(items), learn=self._learn_of)
        ended_by = "trials"

        def may_start() -> bool:
            nonlocal ended_by
            if not self._planner.affordable(self._coordinator.costs):
                ended_by = "time"
            elif self._progress.stalled(expected_gain=self._coordinator.expected_gain):
                ended_by = "no_progress"
            return ended_by == "trials"

        def may_go_on() -> bool:
            nonlocal ended_by
            left_s = self._planner.search_left_s()
            if left_s is not None and left_s <= 0:
                ended_by = "time"
                return False
            return True

        unsuitable = await asyncio.to_thread(
            conduct_search,
            cluster,
            self._coordinator,
            ledger,
            study=self._prepared.fingerprint,
            job=job,
            trials=max(self._planner.open_trials, 0),
            referee=lambda: Referee(self._race, self._incumbents.answers, items=len(items)),
            items=items,
            may_start=may_start,
            may_go_on=may_go_on,
        )
        if unsuitable:
            who = {"who": "; ".join(unsuitable)}
            self._teller.say(Event(kind="note", data={"key": "study.cluster_passed_over", "values": who}))
        return "space" if ended_by == "trials" and self._planner.open_trials > 0 else ended_by

    def _learn_of(self, proposal: Proposal, number: int, result: TrialResult, told: Result) -> None:
        """As ``_learn``, for a trial that the conductor tells the coordinator of itself."""
        self._progress.note(told)
        if told.outcome is Outcome.DONE:
            self._incumbents.add(told, answers_of(result.samples, result.scores))
        self._follow(self._runner.recovery.next(number, proposal.configuration, result), result)
        self._planner.replan(self._coordinator)

    def _recall(self) -> None:
        """What an earlier run of this study left: who is to be beaten, and remedies it did not come to."""
        self._remember(self._recorder.store.best_and_newest(self._recorder.study_id))
        for derived in self._runner.recovery.open(self._recorder.advised()):
            self._coordinator.enqueue(derived, front=True, again=same_settings(derived))

    async def _try(self, proposals: Sequence[Proposal]) -> list[Ended]:
        left_s = self._planner.left_s(self._coordinator.costs)
        referees = [Referee(self._race, self._incumbents.answers, items=len(self._runner.items)) for _ in proposals]
        if not self._together:
            return [await self._runner.run(proposals[0], phase="search", left_s=left_s, referee=referees[0])]
        return await self._runner.run_together(proposals, phase="search", left_s=left_s, referees=referees)

    def _learn(self, proposal: Proposal, number: int, result: TrialResult, told: Result) -> None:
        self._coordinator.tell(proposal.configuration, told)
        self._progress.note(told)
        if told.outcome is Outcome.DONE:
            self._incumbents.add(told, answers_of(result.samples, result.scores))
        self._follow(self._runner.recovery.next(number, proposal.configuration, result), result)

    def _remember(self, rows: Sequence[TrialRow]) -> None:
        """The baseline and the trials of an earlier run: who is to be beaten, and how long nothing was gained."""
        for row in rows:
            self._progress.note(told_of(row))
        known = [row for row in rows if eligible(row)]
        front = pareto_front([row.objectives or () for row in known], self._objectives)
        for row in (known[i] for i in front):
            result = trial_result(row, self._recorder.folder)
            self._incumbents.add(told_of(row), answers_of(result.samples, result.scores))

    def _follow(self, derived: Proposal | None, result: TrialResult) -> None:
        """Try a failure's remedy next, as a trial of its own."""
        if derived is not None and self._coordinator.enqueue(derived, front=True, again=same_settings(derived)):
            advice = result.failed.done if result.failed else ""
            self._teller.say(Event(kind="note", data={"key": "study.derived", "values": {"advice": advice}}))


# ── what is searched, and where it begins ──────────────────────────────────────────────────────────────────────────


def space_of(prepared: Prepared, host: StudyHost) -> Space:
    """The legal configurations of the engine for the (refined) task: no rule broken, and memory for it."""
    engine, task = prepared.engine, host.task
    launch = engine.parameters(prepared.model, prepared.hardware, task)
    request = request_parameters(
        forms_for(prepared.dataset), supported=engine.request_settings, thinking=bool(prepared.model.thinking)
    )

    def conflict(settings: Settings) -> str | None:
        broken = engine.conflict(settings, prepared.model, prepared.hardware, task)
        if broken is not None:
            return broken
        misfit = host.misfit(settings)
        return None if misfit is None else misfit.verdict

    return Space(
        (*launch, *request),
        engine=engine.name,
        defaults=prepared.baseline.launch,
        request_defaults=InferenceParams(temperature=0.0, prompt_form=DEFAULT_FORM),
        conflict=conflict,
    )


def starting_points(prepared: Prepared, task: Task, knowledge: Knowledge) -> list[Proposal]:
    """Worked examples on the baseline's engine, the preset, the best of earlier studies, then other prompt forms."""
    forms = sorted(forms_for(prepared.dataset), key=lambda form: form != SHOWN_FORM)
    greedy = [
        Configuration(
            engine=prepared.engine.name,
            launch=prepared.baseline.launch,
            request=InferenceParams(temperature=0.0, prompt_form=form),
        )
        for form in forms
    ]
    preset = prepared.preset(task)
    shown = replace(preset, request=replace(preset.request, prompt_form=forms[0]))
    others = [Proposal(configuration=c, origin="start") for c in greedy]
    return [*others[:1], Proposal(configuration=shown, origin="preset"), *knowledge.first, *others[1:]]


def eligible(row: TrialRow) -> bool:
    """Measured in full, in the search, and within every limit."""
    searched = row.phase != "confirm" and row.outcome is Outcome.DONE and row.objectives is not None
    return searched and all(violation <= 0 for violation in row.violations or ())


def _quality_alone(prepared: Prepared, recorder: Recorder) -> bool:
    """Whether nothing but quality is judged: only then may several request settings share an engine's time."""
    judged = {objective.name for objective in prepared.goal.objectives}
    judged |= {limit.metric.name for limit in recorder.constraints}
    closed = prepared.work.load.rate is None
    return closed and judged <= _OF_ANSWERS and not prepared.request.safe
