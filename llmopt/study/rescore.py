"""Scoring stored answers again: another rule, another evaluator, never another question to an engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from llmopt.errors import DataError
from llmopt.measure.judging import Judge, judge_for
from llmopt.measure.quality import by_item, quality
from llmopt.paths import Workspace
from llmopt.records import Dataset, Item, Sample, Score
from llmopt.store.beside import sample_from
from llmopt.store.database import Store
from llmopt.store.rows import StudyRow, TrialRow
from llmopt.store.samples import read_samples
from llmopt.study.prepare import asked_dataset
from llmopt.study.recorder import trial_result
from llmopt.study.reference import NAME as REFERENCE
from llmopt.study.request import StudyRequest
from llmopt.study.run import study_folder

__all__ = ["rescore"]


def rescore(name: str | None, *, workspace: Workspace, evaluator: str | None = None) -> dict[str, Any]:
    """The stored answers of a study (the newest without a name) scored by today's rules, or by ``evaluator``.

    Nothing that is stored changes. Raises DataError where the study keeps no answers or its dataset is not here as it
    was, UsageError for an unknown evaluator.
    """
    with Store.open(workspace.database, read_only=True) as store:
        row = store.study(name) if name else next(iter(store.studies()), None)
        if row is None:
            raise DataError("rescore.no_study")
        trials = [trial for trial in store.trials(row.id) if trial.samples]
    if not trials or "dataset" not in row.spec:
        raise DataError("rescore.no_answers", name=row.name)
    request = StudyRequest.from_spec(row.spec)
    dataset = asked_dataset(request, workspace)
    judge = _judge(dataset, request, evaluator, row, workspace)
    items = {item.id: item for item in dataset.items}
    found = [_scored(trial, items, judge, workspace, row) for trial in trials]
    return {
        "study": row.name,
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "quality_measure": judge.measure,
        "evaluator": evaluator or request.evaluator,
        "generated": 0,
        "trials": found,
    }


def _judge(
    dataset: Dataset, request: StudyRequest, evaluator: str | None, row: StudyRow, workspace: Workspace
) -> Judge:
    creative = request.strategy is not None and request.strategy.value == "creativity"
    judge = judge_for(dataset, evaluator=evaluator or request.evaluator, creative=creative)
    path = study_folder(workspace, row.name) / "samples" / f"{REFERENCE}.jsonl.gz"
    if judge.needs_reference and path.exists():
        stored = (sample_from(entry["sample"]) for entry in read_samples(path))
        judge = judge.with_reference({sample.item_id: sample for sample in stored})
    return judge


def _scored(
    trial: TrialRow, items: Mapping[str, Item], judge: Judge, workspace: Workspace, row: StudyRow
) -> dict[str, Any]:
    stored = trial_result(trial, study_folder(workspace, row.name))
    unknown = {sample.item_id for sample in stored.samples} - items.keys()
    if unknown:
        raise DataError("rescore.other_items", name=row.name, count=len(unknown), example=min(unknown))
    scores = judge.scores(items, stored.samples)
    asked = [items[name] for name in dict.fromkeys(sample.item_id for sample in stored.samples)]
    return {
        "number": trial.number,
        "phase": trial.phase,
        "answers": len(scores),
        "before": _figure(asked, stored.scores),
        "after": _figure(asked, scores),
        "changed": [
            _change(*pair) for pair in zip(stored.samples, stored.scores, scores, strict=True) if _differs(*pair)
        ],
        "statuses": dict(Counter(score.status.value for score in scores)),
        "rules": dict(Counter(score.rule or "-" for score in scores)),
        "items": by_item(scores),
    }


def _figure(items: Sequence[Item], scores: Sequence[Score]) -> dict[str, Any] | None:
    found = quality(items, scores).get("accuracy")
    return None if found is None else asdict(found)


def _differs(sample: Sample, before: Score, after: Score) -> bool:
    del sample
    return replace(before, extracted=None) != replace(after, extracted=None)


def _change(sample: Sample, before: Score, after: Score) -> dict[str, Any]:
    def plain(score: Score) -> dict[str, Any]:
        return {"value": score.value, "status": score.status.value, "rule": score.rule, "extracted": score.extracted}

    return {"item": sample.item_id, "text": sample.text, "before": plain(before), "after": plain(after)}
