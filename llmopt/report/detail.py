"""The raw answers behind a result, side by side: what distributions, memory and differences are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmopt.errors import StorageError
from llmopt.hardware.sampler import TracePoint
from llmopt.records import Item, Sample, Score
from llmopt.store.beside import read_answers, read_course, read_questions

__all__ = ["Detail", "Launch", "SideDetail", "read_detail"]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What one engine answered, and its memory meanwhile."""

    samples: tuple[Sample, ...]
    scores: tuple[Score, ...]
    course: tuple[TracePoint, ...]


@dataclass(frozen=True, kw_only=True)
class SideDetail:
    """One configuration of a result with its launches, in order."""

    label: str
    launches: tuple[Launch, ...]

    @property
    def samples(self) -> list[Sample]:
        """Every answer."""
        return [sample for launch in self.launches for sample in launch.samples]

    @property
    def scores(self) -> list[Score]:
        """Every score, in the order of ``samples``."""
        return [score for launch in self.launches for score in launch.scores]


@dataclass(frozen=True, kw_only=True)
class Detail:
    """Everything that lies beside a result; empty where its folder is gone."""

    sides: tuple[SideDetail, ...] = ()
    questions: Mapping[str, Item] = field(default_factory=dict)


def read_detail(folder: Path | None, result: Mapping[str, Any], labels: Sequence[str]) -> Detail:
    """The answers of the two sides of an optimisation, or of every side of a benchmark or comparison.

    ``labels`` name the sides as the report does. What is missing or damaged on disk is left out: a report is made
    from what there is.
    """
    if folder is None:
        return Detail()
    sides = tuple(
        SideDetail(label=label, launches=tuple(_launches(folder, numbers)))
        for label, numbers in zip(labels, _trials(result), strict=True)
    )
    return Detail(sides=sides, questions=read_questions(folder))


def _trials(result: Mapping[str, Any]) -> list[list[int]]:
    """The numbers of the trials behind each side: confirmation passes where there are any, else the search's."""
    if "sides" in result:
        return [
            [launch["trial"] for launch in side["launches"] if launch.get("trial") is not None]
            for side in result["sides"]
        ]
    found = []
    for side in (result["baseline"], result["best"]):
        key = side["configuration"]["key"]
        passes = [
            one["trial"]
            for one in result["confirmation"]
            if one["key"] == key and one["outcome"] == "done" and one.get("trial") is not None
        ]
        found.append(passes or [side["trial"]])
    return found


def _launches(folder: Path, numbers: Sequence[int]) -> list[Launch]:
    found = []
    for number in numbers:
        try:
            samples, scores = read_answers(folder, number)
            found.append(Launch(samples=samples, scores=scores, course=read_course(folder, number)))
        except StorageError:
            continue
    return found
