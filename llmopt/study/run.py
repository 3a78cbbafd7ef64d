"""The story of one study: baseline, search, confirmation, verdict — resumable at every point, within its time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmopt.errors import DataError, EngineError
from llmopt.objective import Constraint, named_points
from llmopt.paths import Workspace
from llmopt.records import Configuration, Estimate, InferenceParams, Measurement, Outcome, Sample
from llmopt.search.confirm import MIN_BLOCKS, Arm, ArmPass, blocks_of, confirm, ladder
from llmopt.search.coordinator import Coordinator
from llmopt.search.presets import request_parameters
from llmopt.search.proposer import Proposal, Result
from llmopt.search.space import Space
from llmopt.search.trial import Bench, TrialResult
from llmopt.store.database import Store
from llmopt.store.rows import TrialRow
from llmopt.study.events import Event, Listener
from llmopt.study.host import StudyHost
from llmopt.study.prepare import Prepared, refined_task
from llmopt.study.recorder import Recorder, trial_result
from llmopt.workload.prompts import DEFAULT_FORM, forms_for

__all__ = ["Finished", "StudyRun", "study_folder"]

FALLBACK_TOKENS_PER_BYTE = 1.0
LAUNCH_RESERVE_S = 4.0
"""Planned for a launch where none has been timed yet."""
GRACE = 1.15
"""Estimates of what is still to come are taken this much longer."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a study leaves: the ingredients of the result."""

    baseline: TrialRow
    best: TrialRow
    points: Mapping[str, int]
    """Named members of the Pareto set → trial number."""
    arms: tuple[Arm, ...]
    passes: tuple[ArmPass, ...]
    timed_out: bool
    constraints: tuple[Constraint, ...]
    elapsed_s: float


def study_folder(workspace: Workspace, name: str) -> Any:
    """Where a study keeps its result, report and raw samples."""
    return workspace.results / name


class StudyRun:
    """Runs one prepared study to its end. ``clock`` is monotonic seconds; the deadline counts from construction."""

    def __init__(
        self, prepared: Prepared, store: Store, study_id: int, name: str, listener: Listener, *, started_s: float
    ) -> None:
        self.prepared = prepared
        self.store = store
        self.study_id = study_id
        self.folder = study_folder(prepared.workspace, name)
        self.say = listener
        self.started_s = started_s
        limit = prepared.request.timeout_s
        self.deadline_s = None if limit is None else started_s + limit
        self.timed_out = False
        self.recorder = Recorder(
            store,
            study_id,
            self.folder,
            objectives=prepared.goal.objectives,
            hardware=prepared.hardware.fingerprint,
        )
        self.host = StudyHost(
            engine=prepared.engine,
            model=prepared.model,
            hardware=prepared.hardware,
            task=prepared.task,
            run_root=self.folder / "runs",
            safe=prepared.request.safe,
            on_phase=lambda phase: self.say(Event(kind="engine", data={"phase": phase.value})),
        )
        self._best_gain: float | None = None

    async def run(self) -> Finished:
        """Do it all. Raises EngineError where not even the baseline can be measured."""
        async with Bench(self.host, self.prepared.work) as bench:
            baseline = await self._baseline(bench)
            self._complete_goal(baseline)
            coordinator = self._coordinator(baseline)
            self._announce(baseline)
            self.say(Event(kind="phase", data={"name": "search"}))
            await self._search(bench, coordinator)
            points, best = self._winner(baseline)
            self.say(Event(kind="phase", data={"name": "confirm"}))
            arms, passes = await self._confirm(bench, baseline, best)
        return Finished(
            baseline=baseline,
            best=best,
            points=points,
            arms=arms,
            passes=tuple(passes),
            timed_out=self.timed_out,
            constraints=self.recorder.constraints,
            elapsed_s=time.monotonic() - self.started_s,
        )

    # ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def left_s(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self.deadline_s is None else self.deadline_s - time.monotonic()

    def _reserve_s(self, baseline: TrialRow, best: TrialRow | None = None) -> float:
        """What the confirmation will take: blocks of two launches, the baseline's pass and up to three quicker ones."""
        items = len(self.prepared.confirm_items)
        slow = (baseline.measure_s or 0.0) / len(self.prepared.search_items)
        quick = slow / 2 if best is None else (best.measure_s or 0.0) / len(self.prepared.search_items)
        launches = 2 * MIN_BLOCKS * ((baseline.launch_s or LAUNCH_RESERVE_S) + (baseline.warmup_s or 0.0))
        return GRACE * (launches + items * (slow + 3 * quick))

    # ── baseline ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _baseline(self, bench: Bench) -> TrialRow:
        for row in self.store.trials(self.study_id, phase="baseline", outcomes=(Outcome.DONE,)):
            return row
        self.say(Event(kind="phase", data={"name": "baseline"}))
        result, number = await self._trial(
            bench, Proposal(configuration=self.prepared.baseline, origin="baseline"), phase="baseline"
        )
        if result.outcome is not Outcome.DONE:
            failed = result.failed
            raise EngineError(
                "study.baseline_failed",
                why=failed.text if failed else result.outcome.value,
                detail=failed.detail if failed else "",
            )
        row = self.store.trial(self.study_id, number)
        if row is None:
            raise DataError("study.trial_vanished", number=number)
        return row

    def _complete_goal(self, baseline: TrialRow) -> None:
        """Floors relative to the baseline become limits in numbers; the task is refined by the measured tokenizer."""
        measurement = baseline.measurement or Measurement(estimates={})
        floors = tuple(limit for floor in self.prepared.goal.floors if (limit := floor.at(measurement)) is not None)
        self.recorder.constraints = (*self.prepared.constraints, *floors)
        prepared = self.prepared
        samples = trial_result(baseline, self.folder).samples
        everything = (*prepared.search_items, *prepared.confirm_items)
        self.host.task = refined_task(prepared.work, everything, self._tokens_per_byte(samples))

    def _tokens_per_byte(self, samples: tuple[Sample, ...]) -> float:
        """The tokenizer's appetite for these texts, from the prompt tokens the engine itself counted."""
        from llmopt.workload.prompts import render  # noqa: PLC0415 - one use

        items = {item.id: item for item in self.prepared.search_items}
        ratios = [
            sample.prompt_tokens
            / sum(len(m["content"].encode()) for m in render(items[sample.item_id], DEFAULT_FORM, self.prepared.dataset))
            for sample in samples
            if sample.prompt_tokens and sample.item_id in items
        ]
        return max(ratios, default=FALLBACK_TOKENS_PER_BYTE)

    # ── search ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def space(self) -> Space:
        """The legal configurations of this engine for the (refined) task."""
        prepared, task = self.prepared, self.host.task
        engine = prepared.engine
        launch = engine.parameters(prepared.model, prepared.hardware, task)
        request = request_parameters(forms_for(prepared.dataset), thinking=bool(prepared.model.thinking))
        return Space(
            (*launch, *request),
            engine=engine.name,
            defaults=prepared.baseline.launch,
            request_defaults=replace(prepared.baseline.request, temperature=0.0, top_p=None, top_k=None, min_p=None),
            conflict=lambda settings: engine.conflict(settings, prepared.model, prepared.hardware, task),
        )

    def _coordinator(self, baseline: TrialRow) -> Coordinator:
        prepared = self.prepared
        coordinator = Coordinator(
            self.space(),
            prepared.goal.objectives,
            limits=[constraint.text for constraint in self.recorder.constraints],
            method=prepared.request.method,
            seed=prepared.request.seed,
            first=self._starting_points(),
        )
        past = [trial for trial in self.recorder.past_trials() if trial.origin != "baseline"]
        if past:
            coordinator.resume(past, seen=self.recorder.ended_keys())
        coordinator.tell(baseline.configuration, _told(baseline))
        return coordinator

    def _starting_points(self) -> list[Proposal]:
        """The prompt forms on the engine that already runs, then the presets of hardware and strategy."""
        prepared = self.prepared
        greedy = InferenceParams(temperature=0.0)
        forms = [
            Configuration(
                engine=prepared.engine.name,
                launch=prepared.baseline.launch,
                request=replace(greedy, prompt_form=form),
            )
            for form in sorted(forms_for(prepared.dataset), key=lambda form: form != "examples")
        ]
        preset = prepared.preset(self.host.task)
        shown = "examples" if "examples" in forms_for(prepared.dataset) else DEFAULT_FORM
        better_preset = replace(preset, request=replace(preset.request, prompt_form=shown))
        points = [Proposal(configuration=c, origin="start") for c in forms]
        return [*points[:1], Proposal(configuration=better_preset, origin="preset"), *points[1:]]

    async def _search(self, bench: Bench, coordinator: Coordinator) -> None:
        done = sum(1 for key in self.recorder.ended_keys())
        while done < self.prepared.request.trials:
            baseline, best = self._rows()
            search_left = self._search_left_s(baseline, best)
            costs = coordinator.costs
            typical = costs.launch_s / 2 + costs.measure_s if costs else 0.0
            if search_left is not None and search_left < typical:
                self.timed_out = True
                break
            proposal = coordinator.ask(bench.launch_key)
            if proposal is None:
                self.say(Event(kind="note", data={"key": "study.space_used_up"}))
                break
            try:
                async with asyncio.timeout(search_left):
                    await self._trial(bench, proposal, phase="search")
            except TimeoutError:
                self.timed_out = True
                await bench.stop()
                break
            coordinator.tell(proposal.configuration, self._last_told)
            done += 1

    def _search_left_s(self, baseline: TrialRow, best: TrialRow | None) -> float | None:
        left = self.left_s()
        return None if left is None else max(left - self._reserve_s(baseline, best), 0.0)

    def _rows(self) -> tuple[TrialRow, TrialRow | None]:
        baseline = next(iter(self.store.trials(self.study_id, phase="baseline", outcomes=(Outcome.DONE,))))
        _, best = self._winner(baseline)
        return baseline, None if best.number == baseline.number else best

    async def _trial(self, bench: Bench, proposal: Proposal, *, phase: str) -> tuple[TrialResult, int]:
        configuration = proposal.configuration
        number = self.recorder.started(
            configuration,
            origin=proposal.origin,
            phase=phase,
            position=proposal.position,
            derived_from=proposal.derived_from,
            sampler=proposal.sampler,
        )
        items = self.prepared.search_items
        self.say(Event(kind="trial_started", data=self._started(number, configuration, len(items))))
        with self.recorder.running(number):
            result = await bench.run(
                configuration, items, on_sample=self._counting(len(items)), fresh=self.prepared.request.safe
            )
            self._last_told = self.recorder.finished(number, result)
        self.say(Event(kind="trial_ended", data=self._ended(number, result, self._last_told)))
        return result, number

    # ── winner and confirmation ────────────────────────────────────────────────────────────────────────────────────

    def _winner(self, baseline: TrialRow) -> tuple[dict[str, int], TrialRow]:
        """The named points of the Pareto set, and the recommended trial; the baseline where nothing else is feasible."""
        rows = [row for row in self.store.best_and_newest(self.study_id) if _eligible(row)]
        rows = [row for row in rows if all(v <= 0 for v in row.violations or ())] or [baseline]
        measured = [row.measurement for row in rows if row.measurement is not None]
        chosen = named_points(measured, self.prepared.goal.objectives)
        points = {name: rows[i].number for name, i in chosen.items()}
        recommended = chosen.get("recommended")
        return points, rows[recommended] if recommended is not None else baseline

    async def _confirm(self, bench: Bench, baseline: TrialRow, best: TrialRow) -> tuple[tuple[Arm, ...], list[ArmPass]]:
        done = self.recorder.past_passes()
        arms = ladder(baseline.configuration, best.configuration)
        if len(arms) == 1:
            return arms, []
        await bench.stop()
        known = {arm.configuration.key for arm in arms}
        blocks = blocks_of(self._confirm_items(baseline, best), MIN_BLOCKS)

        def passing(block: int, arm: Arm) -> None:
            data = {"block": block, "blocks": len(blocks), "arms": arm.names, "items": len(blocks[block])}
            self.say(Event(kind="confirm_pass", data={**data, "left_s": self.left_s()}))

        collected = _Collector(self.recorder)
        try:
            async with asyncio.timeout(self.left_s()):
                return arms, await confirm(
                    bench,
                    arms,
                    blocks,
                    done=[p for p in done if p.key in known],
                    recorder=collected,
                    may_start=lambda: True,
                    on_sample=self._counting(max(map(len, blocks))),
                    on_pass=passing,
                )
        except TimeoutError:
            self.timed_out = True
            await bench.stop()
            return arms, self._complete_blocks(done, collected.passes, len(arms))

    def _confirm_items(self, baseline: TrialRow, best: TrialRow) -> tuple[Any, ...]:
        """As many held-out items as the time left allows, the same number in every block."""
        items = self.prepared.confirm_items
        left = self.left_s()
        if left is None:
            return items
        each = self._reserve_s(baseline, best) / len(items)
        affordable = int(left / each) if each > 0 else len(items)
        return items[: max(MIN_BLOCKS, min(len(items), affordable) // MIN_BLOCKS * MIN_BLOCKS)]

    @staticmethod
    def _complete_blocks(done: list[ArmPass], new: list[ArmPass], arms: int) -> list[ArmPass]:
        passes = [*done, *new]
        whole = {p.block for p in passes if sum(q.block == p.block for q in passes) == arms}
        return [p for p in passes if p.block in whole]

    # ── what is said ───────────────────────────────────────────────────────────────────────────────────────────────

    def _announce(self, baseline: TrialRow) -> None:
        request = self.prepared.request
        data = {
            "trials": request.trials,
            "items": len(self.prepared.search_items),
            "blocks": MIN_BLOCKS,
            "limit_s": request.timeout_s,
            "reserve_s": self._reserve_s(baseline),
            "left_s": self.left_s(),
        }
        self.say(Event(kind="plan", data=data))

    def _started(self, number: int, configuration: Configuration, items: int) -> dict[str, Any]:
        base = self.prepared.baseline.flat()
        changed = {name: value for name, value in configuration.flat().items() if base.get(name) != value}
        return {"number": number, "settings": changed, "items": items, "left_s": self.left_s()}

    def _ended(self, number: int, result: TrialResult, told: Result) -> dict[str, Any]:
        measurement = result.measurement
        names = ("accuracy", "answers_per_minute", "memory_bytes")
        figures = {name: measurement.value(name) if measurement else None for name in names}
        accuracy: Estimate | None = measurement.estimates.get("accuracy") if measurement else None
        return {
            "number": number,
            "outcome": result.outcome.value,
            **figures,
            "items": accuracy.n if accuracy else 0,
            "why": result.failed.text if result.failed else None,
            "new_best": self._is_new_best(measurement, told),
            "left_s": self.left_s(),
        }

    def _is_new_best(self, measurement: Measurement | None, told: Result) -> bool:
        if measurement is None or told.objectives is None or any(v > 0 for v in told.violations or ()):
            return False
        gain = 1.0
        for objective, value in zip(self.prepared.goal.objectives, told.objectives, strict=True):
            gain *= value if objective.maximize else 1.0 / max(value, 1e-9)
        if self._best_gain is not None and gain <= self._best_gain:
            return False
        self._best_gain = gain
        return True

    def _counting(self, total: int) -> Any:
        count = 0

        def note(sample: Sample) -> None:
            nonlocal count
            del sample
            count += 1
            self.say(Event(kind="sample", data={"done": count, "total": total}))

        return note


class _Collector:
    """Records passes and keeps them, so that a time-out loses none that were committed."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.passes: list[ArmPass] = []

    def recorded(self, block: int, arm: Arm, result: TrialResult) -> None:
        """Commit, then keep."""
        self._recorder.recorded(block, arm, result)
        self.passes.append(ArmPass(block=block, key=arm.configuration.key, result=result))


def _eligible(row: TrialRow) -> bool:
    return row.phase != "confirm" and row.outcome is Outcome.DONE and row.objectives is not None


def _told(row: TrialRow) -> Result:
    return Result(
        outcome=row.outcome,
        objectives=row.objectives,
        violations=row.violations,
        launch_s=row.launch_s,
        warmup_s=row.warmup_s,
        measure_s=row.measure_s,
    )
