"""The story of one study: baseline, search, confirmation — resumable at every point, within its time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmopt.errors import DataError, EngineError, UsageError
from llmopt.failures import advise
from llmopt.objective import Constraint, named_points
from llmopt.paths import Workspace
from llmopt.records import Configuration, InferenceParams, Item, Measurement, Outcome, Sample
from llmopt.search.budget import CAUTION, USEFUL_TRIALS, Budget, Prices, make_plan, unlikely_to_pay
from llmopt.search.confirm import MIN_BLOCKS, POINTS, Arm, ArmPass, blocks_of, confirm, ladder, whole_blocks
from llmopt.search.coordinator import Coordinator
from llmopt.search.presets import request_parameters
from llmopt.search.proposer import Proposal
from llmopt.search.space import Space
from llmopt.search.trial import Bench, TrialResult
from llmopt.store.database import Store
from llmopt.store.rows import TrialRow
from llmopt.study.clock import ARMS, ConfirmPrice, StudyClock
from llmopt.study.events import Event, Listener
from llmopt.study.host import StudyHost
from llmopt.study.prepare import Prepared, refined_task
from llmopt.study.recorder import Recorder, told_of, trial_result
from llmopt.study.telling import Teller
from llmopt.workload.prompts import DEFAULT_FORM, forms_for, render

__all__ = ["Finished", "StudyRun", "study_folder"]

SHOWN_FORM = "examples"
"""The prompt form the presets are tried with: worked examples are what most models gain most from."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a study leaves: the ingredients of the result."""

    baseline: TrialRow
    best: TrialRow
    points: Mapping[str, int]
    """Named members of the Pareto set → trial number."""
    arms: tuple[Arm, ...]
    passes: tuple[ArmPass, ...]
    stopped_by: str
    """``trials``, ``time``, ``space`` or ``no_progress``."""
    constraints: tuple[Constraint, ...]
    began_s: float
    """Time of day at which this run began, seconds since 1970."""
    elapsed_s: float


def study_folder(workspace: Workspace, name: str) -> Path:
    """Where a study keeps its result, report and raw samples."""
    return workspace.results / name


class StudyRun:
    """Runs one prepared study to its end."""

    def __init__(
        self, prepared: Prepared, store: Store, study_id: int, name: str, listener: Listener, *, started_s: float
    ) -> None:
        self.prepared = prepared
        self.store = store
        self.study_id = study_id
        self.folder = study_folder(prepared.workspace, name)
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
        self.host = StudyHost(
            engine=prepared.engine,
            model=prepared.model,
            hardware=prepared.hardware,
            task=prepared.task,
            run_root=self.folder / "runs",
            safe=prepared.request.safe,
            on_phase=lambda phase: listener(Event(kind="engine", data={"phase": phase.value})),
            on_level=self.teller.level_changed,
        )

    async def run(self) -> Finished:
        """Do it all. Raises EngineError where the baseline cannot be measured, UsageError for a hopeless budget."""
        async with Bench(self.host, self.prepared.work) as bench:
            baseline = await self._baseline(bench)
            self._complete_goal(baseline)
            coordinator = self._coordinator(baseline)
            self._announce(baseline)
            self.teller.phase("search")
            stopped_by = await self._search(bench, coordinator, baseline)
            points, best = self._winner(baseline)
            self.teller.phase("confirm")
            arms, passes = await self._confirm(bench, baseline, best, points)
        return Finished(
            baseline=baseline,
            best=best,
            points=points,
            arms=arms,
            passes=tuple(passes),
            stopped_by=stopped_by,
            constraints=self.recorder.constraints,
            began_s=self.began_s,
            elapsed_s=self.clock.elapsed_s,
        )

    # ── baseline ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _baseline(self, bench: Bench) -> TrialRow:
        for row in self.store.trials(self.study_id, phase="baseline", outcomes=(Outcome.DONE,)):
            return row
        self.teller.phase("baseline")
        proposal = Proposal(configuration=self.prepared.baseline, origin="baseline")
        try:
            async with asyncio.timeout(self.clock.left_s):
                number, result = await self._trial(bench, proposal, phase="baseline")
        except TimeoutError:
            raise UsageError("study.baseline_too_slow", seconds=round(self.clock.limit_s or 0)) from None
        if result.outcome is not Outcome.DONE:
            failed = result.failed
            why, detail = (failed.text, failed.detail) if failed else (result.outcome.value, "")
            raise EngineError("study.baseline_failed", why=why, detail=detail)
        found = self.store.trial(self.study_id, number)
        if found is None:
            raise DataError("study.trial_vanished", number=number)
        return found

    def _complete_goal(self, baseline: TrialRow) -> None:
        """Floors relative to the baseline become limits in numbers; the task is refined by the measured tokenizer."""
        measurement = baseline.measurement or Measurement(estimates={})
        floors = tuple(limit for floor in self.prepared.goal.floors if (limit := floor.at(measurement)) is not None)
        self.recorder.constraints = (*self.prepared.constraints, *floors)
        samples = trial_result(baseline, self.folder).samples
        everything = (*self.prepared.search_items, *self.prepared.confirm_items)
        self.host.task = refined_task(self.prepared.work, everything, self._tokens_per_byte(samples))

    def _tokens_per_byte(self, samples: tuple[Sample, ...]) -> float:
        """The tokenizer's appetite for these texts, from the prompt tokens the engine itself counted."""
        items = {item.id: item for item in self.prepared.search_items}

        def size(item: Item) -> int:
            messages = render(item, DEFAULT_FORM, self.prepared.dataset)
            return sum(len(message["content"].encode()) for message in messages)

        ratios = [s.prompt_tokens / size(items[s.item_id]) for s in samples if s.prompt_tokens and s.item_id in items]
        return max(ratios, default=1.0)

    # ── search ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def space(self) -> Space:
        """The legal configurations of this engine for the (refined) task."""
        prepared, task = self.prepared, self.host.task
        engine = prepared.engine
        launch = engine.parameters(prepared.model, prepared.hardware, task)
        request = request_parameters(
            forms_for(prepared.dataset), supported=engine.request_settings, thinking=bool(prepared.model.thinking)
        )
        return Space(
            (*launch, *request),
            engine=engine.name,
            defaults=prepared.baseline.launch,
            request_defaults=InferenceParams(temperature=0.0, prompt_form=DEFAULT_FORM),
            conflict=lambda settings: engine.conflict(settings, prepared.model, prepared.hardware, task),
        )

    def _coordinator(self, baseline: TrialRow) -> Coordinator:
        coordinator = Coordinator(
            self.space(),
            self.prepared.goal.objectives,
            limits=[constraint.text for constraint in self.recorder.constraints],
            method=self.prepared.request.method,
            seed=self.prepared.request.seed,
            first=self._starting_points(),
        )
        past = [trial for trial in self.recorder.past_trials() if trial.origin != "baseline"]
        if past:
            coordinator.resume(past, seen=self.recorder.ended_keys())
        coordinator.tell(baseline.configuration, told_of(baseline))
        return coordinator

    def _starting_points(self) -> list[Proposal]:
        """Worked examples on the baseline's engine, the preset of hardware and strategy, then other prompt forms."""
        prepared = self.prepared
        forms = sorted(forms_for(prepared.dataset), key=lambda form: form != SHOWN_FORM)
        greedy = [
            Configuration(
                engine=prepared.engine.name,
                launch=prepared.baseline.launch,
                request=InferenceParams(temperature=0.0, prompt_form=form),
            )
            for form in forms
        ]
        preset = prepared.preset(self.host.task)
        shown = replace(preset, request=replace(preset.request, prompt_form=forms[0]))
        others = [Proposal(configuration=c, origin="start") for c in greedy]
        return [*others[:1], Proposal(configuration=shown, origin="preset"), *others[1:]]

    async def _search(self, bench: Bench, coordinator: Coordinator, baseline: TrialRow) -> str:
        """Trials until the budget is spent or another is unlikely to pay; what ended it."""
        gains: list[float] = []
        first = self.prepared.goal.objectives[0]
        while len(self.recorder.ended_keys()) < self.prepared.request.trials:
            left_s = self.clock.search_left_s(self._reserve_s(baseline))
            costs = coordinator.costs
            if left_s is not None and costs is not None and left_s < costs.launch_s / 2 + costs.measure_s:
                return "time"
            if len(self.prepared.goal.objectives) == 1 and unlikely_to_pay(gains):
                return "no_progress"
            proposal = coordinator.ask(bench.launch_key)
            if proposal is None:
                return "space"
            try:
                async with asyncio.timeout(left_s):
                    _, result = await self._trial(bench, proposal, phase="search", coordinator=coordinator)
            except TimeoutError:
                await bench.stop()
                return "time"
            if result.measurement is not None and (value := first.value(result.measurement)) is not None:
                gains.append(first.gain(value))
        return "trials"

    async def _trial(
        self, bench: Bench, proposal: Proposal, *, phase: str, coordinator: Coordinator | None = None
    ) -> tuple[int, TrialResult]:
        configuration, items = proposal.configuration, self.prepared.search_items
        number = self.recorder.started(
            configuration,
            origin=proposal.origin,
            phase=phase,
            position=proposal.position,
            derived_from=proposal.derived_from,
            sampler=proposal.sampler,
        )
        left_s = self._left_s(coordinator)
        self.teller.started(number, configuration, items=len(items), left_s=left_s)
        with self.recorder.running(number):
            counting = self.teller.counting(len(items))
            result = await bench.run(configuration, items, on_sample=counting, fresh=self.prepared.request.safe)
            told = self.recorder.finished(number, result)
        self.teller.ended(number, result, told, left_s=self.clock.left_s)
        if coordinator is not None:
            coordinator.tell(configuration, told)
            self._derive(coordinator, number, configuration, result)
        return number, result

    def _left_s(self, coordinator: Coordinator | None) -> float | None:
        """Seconds to the limit; without one, what the trials still to come and the confirmation should take."""
        costs = coordinator.costs if coordinator else None
        if self.clock.left_s is not None or costs is None:
            return self.clock.left_s
        baseline = next(iter(self.store.trials(self.study_id, phase="baseline", outcomes=(Outcome.DONE,))))
        open_trials = self.prepared.request.trials - len(self.recorder.ended_keys())
        return open_trials * (costs.launch_s / 2 + costs.measure_s) + self._reserve_s(baseline)

    def _derive(self, coordinator: Coordinator, number: int, configuration: Configuration, result: TrialResult) -> None:
        """After a failure the catalogue knows a way around: a new trial with changed settings, never an edited one."""
        if result.failure is None:
            return
        done = self.recorder.advice_followed(number)
        context = self.host.task.context_tokens
        advice = advise(result.failure, configuration.launch, done=done, context_per_slot=context)
        if advice.final or not advice.changes:
            return
        derived = replace(configuration, launch=dict(advice.settings))
        proposal = Proposal(
            configuration=derived, origin="recovery", derived_from=number, sampler={"advice": [*done, advice.label]}
        )
        if coordinator.enqueue(proposal, front=True):
            self.teller.say(Event(kind="note", data={"key": "study.derived", "values": {"advice": advice.text}}))

    # ── winner and confirmation ────────────────────────────────────────────────────────────────────────────────────

    def _winner(self, baseline: TrialRow) -> tuple[dict[str, int], TrialRow]:
        """The named points of the Pareto set, and the recommended trial; the baseline where nothing is feasible."""
        rows = [row for row in self.store.best_and_newest(self.study_id) if _eligible(row)] or [baseline]
        measured = [row.measurement for row in rows if row.measurement is not None]
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
            fresh_passes=self.host.remembers(best.configuration) or self.host.remembers(baseline.configuration),
            arms=arms,
        )

    def _reserve_s(self, baseline: TrialRow) -> float:
        return self.clock.reserve_s(self._price(baseline), len(self.prepared.confirm_items))

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
        self, bench: Bench, baseline: TrialRow, best: TrialRow, points: Mapping[str, int]
    ) -> tuple[tuple[Arm, ...], list[ArmPass]]:
        arms = self._arms(baseline, best, points)
        if len(arms) == 1:
            return arms, []
        await bench.stop()
        items = self.prepared.confirm_items
        left_s = self.clock.left_s
        price = self._price(baseline, arms=len(arms))
        count = len(items) if left_s is None else price.affordable(left_s, len(items))
        blocks = blocks_of(items[:count], MIN_BLOCKS)

        counting = [self.teller.counting(0)]

        def passing(block: int, arm: Arm) -> None:
            counting[0] = self.teller.counting(len(blocks[block]))
            estimate_s = price.seconds(count) * (len(blocks) - block) / len(blocks)
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
        )
        try:
            async with asyncio.timeout(left_s):
                await passes
        except TimeoutError:
            await bench.stop()
        return arms, whole_blocks(self.recorder.past_passes(), arms)

    def _announce(self, baseline: TrialRow) -> None:
        """Show the plan; refuse a budget in which nothing could be tried and confirmed."""
        request, price = self.prepared.request, self._price(baseline)
        least_s = price.seconds(min(len(self.prepared.confirm_items), 2 * MIN_BLOCKS))
        start_s = (baseline.launch_s or 0.0) + (baseline.warmup_s or 0.0)
        prices = Prices(launch_s=start_s, measure_s=baseline.measure_s or 0.0, confirm_s=least_s)
        done = len(self.recorder.ended_keys()) - 1
        budget = Budget(trials=request.trials, seconds=request.timeout_s)
        spent_s = self.clock.elapsed_s
        if request.soft_limit and request.timeout_s is not None:
            useful_s = spent_s + USEFUL_TRIALS * (start_s + (baseline.measure_s or 0.0)) + least_s
            self.clock.limit_s = max(request.timeout_s, CAUTION * useful_s)
            budget = replace(budget, seconds=self.clock.limit_s)
        plan = make_plan(budget, prices, done=done, spent_s=spent_s, useful=1)
        data = {
            "trials": plan.trials,
            "items": len(self.prepared.search_items),
            "blocks": MIN_BLOCKS,
            "limit_s": self.clock.limit_s,
            "reserve_s": self._reserve_s(baseline),
            "limited_by": plan.limited_by,
            "finish_s": plan.finish_s,
            "left_s": self.clock.left_s,
        }
        self.teller.say(Event(kind="plan", data=data))


def _eligible(row: TrialRow) -> bool:
    """Measured in full, in the search, and within every limit."""
    searched = row.phase != "confirm" and row.outcome is Outcome.DONE and row.objectives is not None
    return searched and all(violation <= 0 for violation in row.violations or ())
