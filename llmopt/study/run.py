"""The story of one study: baseline, search, confirmation — resumable at every point, within its time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from llmopt.errors import DataError, EngineError, UsageError
from llmopt.models.weights import fetch_again
from llmopt.objective import Constraint, named_points
from llmopt.paths import Workspace
from llmopt.records import Item, Measurement, Outcome, Sample
from llmopt.runtime.guardian import sweep_orphans
from llmopt.search.budget import typed_seconds
from llmopt.search.confirm import POINTS, Arm, comparable_passes, confirm, ladder
from llmopt.search.coordinator import Coordinator
from llmopt.search.proposer import Proposal
from llmopt.search.racing import block_order
from llmopt.search.space import Space
from llmopt.search.trial import Bench, TrialBench, TrialResult
from llmopt.store.database import Store
from llmopt.store.rows import TrialRow
from llmopt.study.clock import ARMS, ConfirmPrice, StudyClock, smallest_budget_s
from llmopt.study.cluster import Cluster, ClusterBench
from llmopt.study.events import Event, Listener
from llmopt.study.final import Finals, TimeForArms, plan_final
from llmopt.study.host import StudyHost
from llmopt.study.kept_answers import KeptAnswers
from llmopt.study.knowledge import gather, learnt_memory
from llmopt.study.limits import refuse_hopeless
from llmopt.study.planning import Planner
from llmopt.study.prepare import Prepared, refined_task
from llmopt.study.recorder import Recorder, told_of, trial_result
from llmopt.study.recovery import Recovery, Remedies, same_settings
from llmopt.study.reference import reference_answers
from llmopt.study.remote import Job
from llmopt.study.repeats import tell_resolution
from llmopt.study.running import TrialRunner
from llmopt.study.searching import Searching, eligible, space_of, starting_points
from llmopt.study.telling import Teller, cause
from llmopt.workload.prompts import DEFAULT_FORM, render

__all__ = ["Finished", "StudyRun", "study_folder"]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a study leaves: the ingredients of the result."""

    baseline: TrialRow
    best: TrialRow
    points: Mapping[str, int]
    """Named members of the Pareto set → trial number."""
    finals: Finals
    stopped_by: str
    """``trials``, ``time``, ``space`` or ``no_progress``."""
    constraints: tuple[Constraint, ...]
    space: Space
    began_s: float
    """Time of day at which this run began, seconds since 1970."""
    elapsed_s: float


def study_folder(workspace: Workspace, name: str) -> Path:
    """Where a study keeps its result, report and raw samples."""
    return workspace.results / name


class StudyRun:
    """Runs one prepared study to its end."""

    def __init__(
        self,
        prepared: Prepared,
        store: Store,
        study_id: int,
        name: str,
        listener: Listener,
        *,
        started_s: float,
        cluster: Cluster | None = None,
    ) -> None:
        self.prepared = prepared
        self.cluster = cluster
        self.store = store
        self.study_id = study_id
        self.folder = study_folder(prepared.workspace, name)
        self.items = block_order(prepared.search_items, seed=prepared.request.seed)
        self.began_s = time.time()
        self.clock = StudyClock(started_s, prepared.request.timeout_s)
        self.teller = Teller(listener, prepared.baseline, prepared.goal.objectives)
        self.recorder = Recorder(
            store,
            study_id,
            self.folder,
            objectives=prepared.goal.objectives,
            hardware=prepared.hardware.fingerprint,
            engine=prepared.engine.name,
        )
        self.recovery = Recovery(
            Remedies(free_memory=self._free_memory, fetch_again=self._fetch_again),
            context_per_slot=lambda: self.host.task.context_tokens,
        )
        self.host = StudyHost(
            engine=prepared.engine,
            model=prepared.model,
            hardware=prepared.hardware,
            task=prepared.task,
            run_root=self.folder / "runs",
            safe=prepared.request.safe,
            correction=learnt_memory(prepared, store),
            on_phase=lambda phase: listener(Event(kind="engine", data={"phase": phase.value})),
            on_level=self.teller.level_changed,
        )

    async def run(self) -> Finished:
        """Do it all. Raises EngineError where the baseline cannot be measured, UsageError for a hopeless budget."""
        async with self._bench() as bench:
            await self._find_reference(bench)
            runner = TrialRunner(
                bench,
                self.recorder,
                self.teller,
                self.items,
                recovery=self.recovery,
                fresh=self.prepared.request.safe,
            )
            baseline = await self._baseline(runner)
            self._complete_goal(baseline)
            stopped_by = await self._search(runner, baseline)
            points, best = self._winner(baseline)
            self.teller.phase("confirm")
            finals = await self._confirm(bench, baseline, best, points)
        return Finished(
            baseline=baseline,
            best=best,
            points=points,
            finals=finals,
            stopped_by=stopped_by,
            constraints=self.recorder.constraints,
            space=space_of(self.prepared, self.host),
            began_s=self.began_s,
            elapsed_s=self.clock.elapsed_s,
        )

    @asynccontextmanager
    async def _bench(self) -> AsyncIterator[TrialBench]:
        """Where trials run: engines of this machine, or the machines of a cluster."""
        if self.cluster is not None:
            yield ClusterBench(self.cluster, self._job)
            return
        async with Bench(self.host, self.prepared.work, kept=KeptAnswers(self.prepared)) as bench:
            yield bench

    def _job(self) -> Job:
        prepared = self.prepared
        return Job(
            entry=prepared.entry,
            form=prepared.model.format if prepared.engine.needs_weights and prepared.model.format != "hub" else None,
            engine=prepared.engine,
            work=prepared.work,
            items=(*prepared.search_items, *prepared.confirm_items),
            task=self.host.task,
            safe=prepared.request.safe,
        )

    # ── baseline ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _find_reference(self, bench: TrialBench) -> None:
        """Where questions have no gold answer, all configurations are judged by the greedy baseline's answers."""
        judge = self.prepared.work.judge
        if not judge.needs_reference:
            return
        self.teller.phase("reference")
        items = (*self.prepared.search_items, *self.prepared.confirm_items)
        counting = self.teller.counting(len(items))
        try:
            async with asyncio.timeout(self.clock.left_s):
                found = await reference_answers(bench, self.prepared, items, self.folder, on_sample=counting)
        except TimeoutError:
            raise self._too_slow() from None
        ready = judge.with_reference(found)
        self.prepared = replace(self.prepared, work=replace(self.prepared.work, judge=ready))
        bench.judge_by(ready)

    async def _baseline(self, runner: TrialRunner) -> TrialRow:
        for row in self.store.trials(self.study_id, phase="baseline", outcomes=(Outcome.DONE,)):
            return row
        self.teller.phase("baseline")
        try:
            async with asyncio.timeout(self.clock.left_s):
                number, result = await self._first_trial(runner)
        except TimeoutError:
            raise self._too_slow() from None
        if result.outcome is not Outcome.DONE:
            raise EngineError("study.baseline_failed", **cause(result))
        found = self.store.trial(self.study_id, number)
        if found is None:
            raise DataError("study.trial_vanished", number=number)
        return found

    def _too_slow(self) -> UsageError:
        """Not even the baseline fitted into the time limit; how much would, judging by how far it came."""
        now_s, answers = time.monotonic(), self.teller.answers
        serving_s = self.teller.first_answer_s or now_s
        smallest_s = smallest_budget_s(
            start_s=serving_s - self.clock.started_s,
            answer_s=(now_s - serving_s) / answers if answers else 0.0,
            items=len(self.items),
        )
        limit_s = round(self.clock.limit_s or 0)
        return UsageError("study.baseline_too_slow", seconds=limit_s, smallest=typed_seconds(smallest_s))

    async def _first_trial(self, runner: TrialRunner) -> tuple[int, TrialResult]:
        """The baseline, again after an accident; other settings would be no baseline."""
        proposal = Proposal(configuration=self.prepared.baseline, origin="baseline")
        while True:
            number, result, _ = await runner.run(proposal, phase="baseline", left_s=self.clock.left_s)
            following = self.recovery.next(number, proposal.configuration, result)
            if following is None or not same_settings(following):
                return number, result
            proposal = following

    async def _free_memory(self) -> None:
        await asyncio.to_thread(sweep_orphans)
        await self.host.memory.settled()

    async def _fetch_again(self) -> None:
        prepared = self.prepared
        if prepared.engine.needs_weights:
            await asyncio.to_thread(fetch_again, prepared.entry, workspace=prepared.workspace)

    def _complete_goal(self, baseline: TrialRow) -> None:
        """Floors relative to the baseline become limits in numbers; the task is refined by the measured tokenizer."""
        measurement = baseline.measurement or Measurement(estimates={})
        floors = tuple(limit for floor in self.prepared.goal.floors if (limit := floor.at(measurement)) is not None)
        self.recorder.constraints = (*self.prepared.constraints, *floors)
        samples = trial_result(baseline, self.folder).samples
        everything = (*self.prepared.search_items, *self.prepared.confirm_items)
        self.host.task = refined_task(self.prepared.work, everything, self._tokens_per_byte(samples))
        refuse_hopeless(self.prepared, self.host.task, self.recorder.constraints)

    def _tokens_per_byte(self, samples: tuple[Sample, ...]) -> float:
        """The tokenizer's appetite for these texts, from the prompt tokens the engine itself counted."""
        items = {item.id: item for item in self.prepared.search_items}

        def size(item: Item) -> int:
            messages = render(item, DEFAULT_FORM, self.prepared.dataset)
            return sum(len(message["content"].encode()) for message in messages)

        ratios = [s.prompt_tokens / size(items[s.item_id]) for s in samples if s.prompt_tokens and s.item_id in items]
        return max(ratios, default=1.0)

    # ── search ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare_search(self, baseline: TrialRow) -> tuple[Planner, Coordinator]:
        """What the search goes by, once the baseline is known: space, knowledge, plan, coordinator."""
        prepared, objectives, limits = self.prepared, self.prepared.goal.objectives, self.recorder.constraints
        space = space_of(prepared, self.host)
        knowledge = gather(
            prepared, self.store, self.study_id, space=space, limits=limits, task=self.host.task, baseline=baseline
        )
        self.teller.knows(knowledge)
        planner = Planner(
            prepared,
            self.recorder,
            self.clock,
            self.teller,
            space=space,
            baseline=baseline,
            price=lambda: self._price(baseline),
        )
        planner.announce()
        coordinator = Coordinator(
            space,
            objectives,
            limits=[limit.text for limit in limits],
            method=prepared.request.method,
            seed=prepared.request.seed,
            first=starting_points(prepared, self.host.task, knowledge),
            priors=knowledge.priors,
        )
        past = [trial for trial in self.recorder.past_trials() if trial.origin != "baseline"]
        if past:
            coordinator.resume(past, seen=self.recorder.ended_keys())
        coordinator.tell(baseline.configuration, told_of(baseline))
        return planner, coordinator

    async def _search(self, runner: TrialRunner, baseline: TrialRow) -> str:
        """Look for something better; what ended it."""
        planner, coordinator = self._prepare_search(baseline)
        self.teller.phase("search")
        searching = Searching(
            self.prepared,
            runner,
            coordinator,
            recorder=self.recorder,
            host=self.host,
            teller=self.teller,
            planner=planner,
        )
        if self.cluster is None:
            stopped_by = await searching.run()
        else:
            stopped_by = await searching.run_on(self.cluster, self._job())
        if stopped_by != "trials":
            self.teller.say(Event(kind="note", data={"key": f"study.stopped_{stopped_by}"}))
        return stopped_by

    # ── winner and confirmation ────────────────────────────────────────────────────────────────────────────────────

    def _winner(self, baseline: TrialRow) -> tuple[dict[str, int], TrialRow]:
        """The named points of the Pareto set, and the recommended trial; the baseline where nothing is feasible."""
        rows = [row for row in self.store.best_and_newest(self.study_id) if eligible(row)] or [baseline]
        measured = [row.measurement.steering() for row in rows if row.measurement is not None]
        chosen = named_points(measured, self.prepared.goal.objectives)
        points = {name: rows[i].number for name, i in chosen.items()}
        recommended = chosen.get("recommended")
        return points, rows[recommended] if recommended is not None else baseline

    def _price(self, baseline: TrialRow, *, arms: int = ARMS) -> ConfirmPrice:
        _, best = self._winner(baseline)
        return ConfirmPrice.of(
            baseline,
            best,
            items=len(self.prepared.search_items),
            fresh_passes=self.host.restarts(best.configuration) or self.host.restarts(baseline.configuration),
            arms=arms,
        )

    def _arms(self, baseline: TrialRow, best: TrialRow, points: Mapping[str, int]) -> tuple[Arm, ...]:
        """The ladder with the preset, and with the other named points where the time left pays for them too."""
        preset = {"preset": self.prepared.preset(self.host.task)}
        rows = {name: self.store.trial(self.study_id, points[name]) for name in POINTS if name in points}
        named = {name: row.configuration for name, row in rows.items() if row is not None}
        everything = ladder(baseline.configuration, best.configuration, {**preset, **named})
        price, left_s = self._price(baseline, arms=len(everything)), self.clock.left_s
        if left_s is None or price.seconds(len(self.prepared.confirm_items) // 2) <= left_s:
            return everything
        return ladder(baseline.configuration, best.configuration, preset)

    async def _confirm(
        self, bench: TrialBench, baseline: TrialRow, best: TrialRow, points: Mapping[str, int]
    ) -> Finals:
        arms = self._arms(baseline, best, points)
        if len(arms) == 1:
            return Finals(arms=arms)
        await bench.stop()
        left_s = self.clock.left_s
        price = self._price(baseline, arms=len(arms))
        plan = plan_final(self.prepared, price, left_s=left_s)
        blocks = plan.blocks
        moments = [look.after for look in plan.looks]
        tell_resolution(self.teller.say, self.prepared, requests=len(blocks[0]), launches=moments)
        time_for = TimeForArms(
            arms, plan, price=lambda count: self._price(baseline, arms=count), left_s=lambda: self.clock.left_s
        )
        counting = [self.teller.counting(0)]

        def passing(block: int, arm: Arm) -> None:
            counting[0] = self.teller.counting(len(blocks[block]))
            estimate_s = price.seconds(len(blocks[block]), 1) * (len(blocks) - block)
            left_s = estimate_s if self.clock.left_s is None else self.clock.left_s
            data = {"block": block, "blocks": len(blocks), "arms": arm.names, "items": len(blocks[block])}
            self.teller.say(Event(kind="confirm_pass", data={**data, "left_s": left_s}))

        passes = confirm(
            bench,
            arms,
            blocks,
            done=self.recorder.past_passes(),
            recorder=self.recorder,
            on_sample=lambda sample: counting[0](sample),  # noqa: PLW0108 - another counter for every pass
            on_pass=passing,
            enough=lambda done, found: plan.enough(self.prepared, arms, done, found),
            asked=time_for.asked,
        )
        try:
            async with asyncio.timeout(left_s):
                await passes
        except TimeoutError:
            await bench.stop()
        return Finals(arms=arms, passes=tuple(comparable_passes(self.recorder.past_passes(), arms)), plan=plan)
