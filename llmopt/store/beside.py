"""What lies beside a result: the questions, every raw answer with its score, and the engine's memory over time.

A result folder can thus be read, and its reports made again, without the dataset, the database or the machine.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from llmopt.errors import StorageError
from llmopt.hardware.sampler import TracePoint
from llmopt.records import AnswerStatus, Item, Sample, Score
from llmopt.store.samples import read_samples, write_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["read_answers", "read_course", "read_questions", "sample_from", "trial_name", "write_answers",
           "write_course", "write_questions"]  # fmt: skip

FOLDER = "samples"
QUESTIONS = "questions"
_SUFFIX = ".jsonl.gz"
_SAMPLE = frozenset(field.name for field in fields(Sample))
_SCORE = frozenset(field.name for field in fields(Score))
_POINT = frozenset(field.name for field in fields(TracePoint))
_ITEM = ("id", "question", "answers", "kind", "cluster", "level", "unit", "options")


def trial_name(number: int) -> str:
    """The name under which the raw answers of a trial are written."""
    return f"trial-{number:05d}"


def write_answers(folder: Path, number: int, samples: Sequence[Sample], scores: Sequence[Score]) -> str:
    """Write the answers of a trial with their scores; the file's name. Raises StorageError."""
    rows = ({"sample": asdict(s), "score": asdict(c)} for s, c in zip(samples, scores, strict=True))
    return write_samples(folder / FOLDER, trial_name(number), rows).name


def sample_from(data: Mapping[str, Any]) -> Sample:
    """A stored sample as it was."""
    return Sample(**{n: _frozen(v) for n, v in data.items() if n in _SAMPLE})


def read_answers(folder: Path, number: int) -> tuple[tuple[Sample, ...], tuple[Score, ...]]:
    """The answers of a trial; raises StorageError where they are missing or damaged."""
    samples, scores = [], []
    for row in read_samples(_file(folder, trial_name(number))):
        samples.append(sample_from(row["sample"]))
        score = {n: v for n, v in row["score"].items() if n in _SCORE}
        scores.append(Score(**{**score, "status": AnswerStatus(score["status"])}))
    return tuple(samples), tuple(scores)


def write_course(folder: Path, number: int, points: Sequence[TracePoint]) -> None:
    """Write the memory of the engine during a trial; times count from its first point. Raises StorageError."""
    if points:
        began_s = points[0].at_s
        rows = (replace(point, at_s=round(point.at_s - began_s, 3)) for point in points)
        write_samples(folder / FOLDER, f"{trial_name(number)}.memory", rows)


def read_course(folder: Path, number: int) -> tuple[TracePoint, ...]:
    """The memory of the engine during a trial; empty where none was recorded."""
    path = _file(folder, f"{trial_name(number)}.memory")
    if not path.exists():
        return ()
    rows = read_samples(path)
    return tuple(TracePoint(**{n: _frozen(v) for n, v in row.items() if n in _POINT}) for row in rows)


def write_questions(folder: Path, items: Iterable[Item]) -> None:
    """Write the items that were asked; raises StorageError."""
    write_samples(folder / FOLDER, QUESTIONS, ({name: getattr(item, name) for name in _ITEM} for item in items))


def read_questions(folder: Path) -> dict[str, Item]:
    """The items that were asked, by id; empty where they were not kept or cannot be read."""
    try:
        rows = list(read_samples(_file(folder, QUESTIONS)))
    except StorageError:
        return {}
    return {row["id"]: Item(**{n: _frozen(v) for n, v in row.items() if n in _ITEM}) for row in rows}


def _file(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}{_SUFFIX}"


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
