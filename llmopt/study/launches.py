"""Fresh launches of one or several configurations in turns, recorded one by one: what benchmark and compare share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmopt.errors import DoesNotFit, EngineError, LlmoptError
from llmopt.measure.findings import findings, status_share
from llmopt.measure.quality import by_item, quality
from llmopt.measure.stats.intervals import CONFIDENCE, clopper_pearson, mean_interval
from llmopt.measure.stats.looks import Look
from llmopt.paths import Workspace, ensure
from llmopt.records import AnswerStatus, Configuration, Estimate, Item, Load, Outcome
from llmopt.report.writing import write_report
from llmopt.runtime.locks import measuring_lock
from llmopt.search.trial import Bench, TrialResult
from llmopt.store.beside import write_questions
from llmopt.store.database import Store
from llmopt.store.heartbeat import beating
from llmopt.study.answering import answer_items
from llmopt.study.costs import costs
from llmopt.study.events import Event, Listener
from llmopt.study.host import StudyHost
from llmopt.study.prepare import Prepared
from llmopt.study.recorder import Recorder
from llmopt.study.reference import reference_answers
from llmopt.study.result import SCHEMA_VERSION, command_of, configuration_of, model_facts, versions_of
from llmopt.study.run import study_folder
from llmopt.study.telling import cause
from llmopt.workload.repeats import repeats_for

__all__ = ["Contender", "LaunchRun", "Launched", "costs", "envelope", "over_launches", "recording", "short", "side"]

"""The units in which cost is given."""
COUNTED = ("error_rate", "truncated_rate", "attainment")
"""Shares of requests, pooled over launches."""
LARGEST = ("_max", "_max_ms")
"""How figures end that are the largest seen: of several launches the largest of all."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One configuration of one model under a name; ``given`` is what finds the model again."""

    label: str
    given: str
    prepared: Prepared
    configuration: Configuration


@dataclass(frozen=True, kw_only=True)
class Launched:
    """What one fresh engine of the contender at ``place`` found in its turn."""

    block: int
    place: int
    result: TrialResult


class LaunchRun:
    """Launches contenders block by block (A B, B A …), each launch on disk before the next begins."""

    def __init__(self, store: Store, study_id: int, folder: Path, kind: str, listener: Listener) -> None:
        self.store = store
        self.study_id = study_id
        self.folder = folder
        self._kind = kind
        self._say = listener
        self._finished = False

    async def measure(
        self,
        contenders: Sequence[Contender],
        blocks: Sequence[Sequence[Item]],
        *,
        looks: Sequence[Look] = (),
        decided: Callable[[Sequence[Launched], Look], bool] | None = None,
    ) -> list[Launched]:
        """Every contender once in each block, until a planned look finds it ``decided``.

        Raises DoesNotFit or EngineError where a contender cannot be measured.
        """
        contenders = await self._judged(contenders, blocks)
        found: list[Launched] = []
        planned = {look.after: look for look in looks}
        turns = len(blocks) * len(contenders)
        for block, items in enumerate(blocks):
            order = range(len(contenders)) if block % 2 == 0 else reversed(range(len(contenders)))
            for place in order:
                values = {"turn": len(found) + 1, "turns": turns, "what": contenders[place].label}
                self._say(Event(kind="note", data={"key": "benchmark.launch", "values": values}))
                result = await self._launch(contenders[place], block, items)
                found.append(Launched(block=block, place=place, result=result))
            look = planned.get(block + 1)
            if look is not None and decided is not None and decided(found, look):
                break
        return found

    async def answer(self, contender: Contender, items: Sequence[Item]) -> TrialResult:
        """Its answers to ``items`` without any speed: kept ones first, the others asked now."""
        prepared, configuration = contender.prepared, contender.configuration
        recorder = self._recorder(prepared)
        total = len(items) * repeats_for(configuration.request, prepared.work.repeats)
        number = recorder.started(configuration, origin=self._kind, phase=self._kind, position=0)
        with recorder.running(number):
            result = await answer_items(
                self._host(prepared),
                prepared,
                configuration,
                items,
                choices="logprobs" if prepared.request.choices == "logprobs" else "generated",
                on_sample=self._counting(total),
            )
            recorder.finished(number, result)
        return replace(result, number=number)

    async def _launch(self, contender: Contender, block: int, items: Sequence[Item]) -> TrialResult:
        async with self.bench(contender) as bench:
            return await self.one_pass(bench, contender, block, items, last=True)

    def bench(self, contender: Contender) -> Bench:
        """Where the contender's engines run; an async context manager."""
        return Bench(self._host(contender.prepared), contender.prepared.work)

    async def one_pass(
        self,
        bench: Bench,
        contender: Contender,
        position: int,
        items: Sequence[Item],
        *,
        load: Load | None = None,
        last: bool = False,
    ) -> TrialResult:
        """Measure the contender on ``items`` once, on disk when this returns; raises DoesNotFit or EngineError.

        After the ``last`` pass the engine is stopped.
        """
        recorder = self._recorder(contender.prepared)
        sampler = {"contender": contender.label, **({"load": load.flags} if load else {})}
        number = recorder.started(
            contender.configuration, origin=self._kind, phase=self._kind, position=position, sampler=sampler
        )
        counting = self._counting(bench.answers_to(items, contender.configuration.request))
        with recorder.running(number):
            result = await bench.run(contender.configuration, items, on_sample=counting, load=load)
            if last:
                await bench.stop()  # so that the memory's course shows the release too
            result = replace(result, number=number, course=bench.course if last else result.course)
            recorder.finished(number, result)
        if result.outcome is not Outcome.DONE:
            raise _refusal(contender, result)
        return result

    def _recorder(self, prepared: Prepared) -> Recorder:
        return Recorder(
            self.store,
            self.study_id,
            self.folder,
            objectives=prepared.goal.objectives,
            hardware=prepared.hardware.fingerprint,
            engine=prepared.engine.name,
        )

    def _host(self, prepared: Prepared) -> StudyHost:
        return StudyHost(
            engine=prepared.engine,
            model=prepared.model,
            hardware=prepared.hardware,
            task=prepared.task,
            run_root=self.folder / "runs",
            on_phase=lambda phase: self._say(Event(kind="engine", data={"phase": phase.value})),
        )

    def _counting(self, total: int) -> Callable[[object], None]:
        answered = 0

        def note(sample: object) -> None:
            nonlocal answered
            del sample
            answered += 1
            self._say(Event(kind="sample", data={"done": answered, "total": total}))

        return note

    async def _judged(self, contenders: Sequence[Contender], blocks: Sequence[Sequence[Item]]) -> Sequence[Contender]:
        """Contenders whose open questions are judged by the greedy answers of the first one; one alone needs none."""
        first = contenders[0].prepared
        if not first.work.judge.needs_reference or len(contenders) < 2:  # noqa: PLR2004 - nobody to agree with
            return contenders
        items = list({item.id: item for block in blocks for item in block}.values())
        self._say(Event(kind="phase", data={"name": "reference"}))
        async with Bench(self._host(first), first.work) as bench:
            answers = await reference_answers(bench, first, items, self.folder)
        judge = first.work.judge.with_reference(answers)
        return [
            replace(one, prepared=replace(one.prepared, work=replace(one.prepared.work, judge=judge)))
            for one in contenders
        ]

    async def conclude(self, result: Mapping[str, Any], items: Sequence[Item], *, verdict: str) -> None:
        """Write the questions and the reports of ``result``, then let the study go as finished."""
        write_questions(self.folder, items)
        await asyncio.to_thread(write_report, self.folder, result)
        summary = {"verdict": verdict, "elapsed_s": result["elapsed_s"]}
        self.store.end_study(self.study_id, "finished", summary=summary)
        self._finished = True

    def give_up(self, error: BaseException) -> None:
        """Let the study go unfinished, unless its result is already complete."""
        if not self._finished:
            interrupted = isinstance(error, (asyncio.CancelledError, KeyboardInterrupt))
            self.store.end_study(self.study_id, "interrupted" if interrupted else "failed")


@contextmanager
def recording(
    kind: str,
    name: str,
    spec: Mapping[str, Any],
    contenders: Sequence[Contender],
    *,
    workspace: Workspace,
    listener: Listener,
    wait_for_lock: bool,
) -> Iterator[LaunchRun]:
    """Hold the machine and a study of ``kind`` in the store; raises UsageError for a taken name or a busy machine."""
    first = contenders[0].prepared
    with Store.open(workspace.database) as store, measuring_lock(f"{kind} {name}", wait=wait_for_lock):
        study_id = store.create_study(
            name,
            {"kind": kind, **spec},
            fingerprint=first.fingerprint,
            model=first.model.name,
            engine=first.engine.name,
            dataset=first.dataset.name,
            hardware=first.hardware.fingerprint,
        )
        run = LaunchRun(store, study_id, ensure(study_folder(workspace, name)), kind, listener)
        try:
            with beating(store, study_id):
                yield run
        except BaseException as error:
            run.give_up(error)
            raise


def _refusal(contender: Contender, result: TrialResult) -> LlmoptError:
    if result.failed is not None and result.failed.category == "memory":
        return DoesNotFit("benchmark.does_not_fit", what=contender.label, **cause(result))
    return EngineError("benchmark.failed", what=contender.label, **cause(result))


# ── figures of one contender ───────────────────────────────────────────────────────────────────────────────────────


def side(
    contender: Contender,
    results: Sequence[TrialResult],
    items: Sequence[Item],
    *,
    price_per_hour: float | None,
    confidence: float = CONFIDENCE,
) -> dict[str, Any]:
    """Everything measured of one contender, over all its launches; plain data.

    ``confidence`` of the intervals over launches: that of the look after which measuring was stopped.
    """
    scores = [score for result in results for score in result.scores]
    figures = {**over_launches(results, confidence), **quality(items, scores)}
    figures["truncated"] = status_share(scores, AnswerStatus.TRUNCATED)
    figures |= costs(figures, price_per_hour)
    warnings = [w for result in results if result.measurement for w in result.measurement.warnings]
    return {
        "label": contender.label,
        "model": contender.given,
        "engine": contender.configuration.engine,
        "tokenizer": contender.prepared.model.sha256 or contender.prepared.model.path,
        "figures": {name: asdict(estimate) for name, estimate in figures.items()},
        "quality_measure": contender.prepared.work.judge.measure,
        **findings(items, scores),
        "warnings": dict(Counter(warnings)),
        "items": by_item(scores),
        "asked": [item.id for item in items],
        "launches": [_launch(result) for result in results],
    }


def over_launches(results: Sequence[TrialResult], confidence: float) -> dict[str, Estimate]:
    """The mean over launches of every figure that all of them have; one launch keeps its own intervals.

    Shares of requests are pooled, and the largest value seen is the largest of all launches.
    """
    measured = [result.measurement.estimates for result in results if result.measurement]
    if len(measured) == 1:
        return dict(measured[0])
    found = {}
    for name, first in measured[0].items():
        if not all(name in estimates for estimates in measured):
            continue
        if name in COUNTED:
            found[name] = _pooled([estimates[name] for estimates in measured])
            continue
        if name.endswith(LARGEST):
            value, n = max(one[name].value for one in measured), sum(one[name].n for one in measured)
            found[name] = Estimate(value=value, unit=first.unit, n=n, method="largest of all launches")
            continue
        interval = mean_interval([estimates[name].value for estimates in measured], confidence=confidence)
        low = None if interval.low is None else max(interval.low, 0.0)
        high = interval.high
        if high is not None and first.unit == "share":
            high = min(high, 1.0)
        found[name] = Estimate(
            value=interval.value, unit=first.unit, n=len(measured), low=low, high=high, method="t over launches"
        )
    return found


def _pooled(shares: Sequence[Estimate]) -> Estimate:
    """A share of requests over all launches: none seen in a few launches does not mean that there are none."""
    total = sum(share.n for share in shares)
    if total == 0:
        return shares[0]
    found = clopper_pearson(round(sum(share.value * share.n for share in shares)), total)
    return Estimate(
        value=found.value, unit="share", n=total, low=found.low, high=found.high, method="Clopper-Pearson, pooled"
    )


def _launch(result: TrialResult) -> dict[str, Any]:
    """One launch's own figures, for whoever compares launches later."""
    measurement = result.measurement
    return {
        "figures": {name: e.value for name, e in measurement.estimates.items()} if measurement else {},
        "valid": measurement.valid if measurement else False,
        "warnings": list(measurement.warnings) if measurement else [],
        "certificate": dict(measurement.certificate) if measurement else {},
        "trial": result.number,
        "launch_s": result.launch_s,
        "warmup_s": result.warmup_s,
        "measure_s": result.measure_s,
    }


# ── the result file ────────────────────────────────────────────────────────────────────────────────────────────────


def envelope(
    kind: str,
    name: str,
    contenders: Sequence[Contender],
    sides: Sequence[Mapping[str, Any]],
    items: Sequence[Item],
    *,
    spec: Mapping[str, Any],
    elapsed_s: float,
) -> dict[str, Any]:
    """What every result has: what was asked, on which machine, with which versions, and what each side found."""
    first = contenders[0].prepared
    full = [
        {
            **one,
            "configuration": configuration_of(contender.configuration),
            "command": command_of(contender.prepared, contender.configuration),
            "facts": model_facts(contender.prepared),
        }
        for one, contender in zip(sides, contenders, strict=True)
    ]
    versions: dict[str, str | None] = {}
    for contender in contenders:
        versions |= versions_of(contender.prepared)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": kind,
        "study": name,
        "created": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "elapsed_s": round(elapsed_s, 1),
        "request": dict(spec),
        "sides": full,
        "dataset": {
            "name": first.dataset.name,
            "fingerprint": first.dataset.fingerprint,
            "source": first.dataset.source,
            "items": len(items),
        },
        "task": asdict(first.task),
        "hardware": asdict(first.hardware) | {"fingerprint": first.hardware.fingerprint},
        "versions": versions,
    }


def short(one: Mapping[str, Any]) -> dict[str, Any]:
    """A side without its raw lists: what ``baseline`` and ``best`` of a result show."""
    return {name: one[name] for name in ("label", "model", "engine", "configuration", "command", "figures")}
