"""How alike greedy answers are: a study's launches against the baseline's, and compared configurations in pairs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from llmopt.errors import StorageError
from llmopt.measure.consistency import token_match
from llmopt.records import Configuration, Outcome, Sample, Score
from llmopt.store.beside import read_answers
from llmopt.store.rows import TrialRow
from llmopt.study.prepare import Prepared
from llmopt.study.recorder import trial_result

__all__ = ["Answered", "TokenMatches", "greedy", "paired_matches", "stored_answers"]


class Answered(NamedTuple):
    """What a configuration answered, under the name it is compared by."""

    label: str
    configuration: Configuration
    samples: Sequence[Sample]


def paired_matches(compared: Sequence[Answered]) -> list[dict[str, Any]]:
    """``rate`` and ``identical`` of every pair that answered greedily, by label; nothing where chance had a say."""
    found = []
    for before, after in itertools.combinations([one for one in compared if greedy(one.configuration)], 2):
        match = token_match(before.samples, after.samples)
        if match is not None:
            found.append({"before": before.label, "after": after.label, **asdict(match)})
    return found


def stored_answers(side: Mapping[str, Any], folder: Path) -> tuple[Sample, ...]:
    """The raw answers of one side of the result in ``folder``; empty where they were left behind or are damaged."""
    try:
        return tuple(s for launch in side["launches"] for s in read_answers(folder, int(launch["trial"]))[0])
    except (StorageError, KeyError, TypeError, ValueError):  # only the match is lost, not the comparison
        return ()


class TokenMatches:
    """The token-match rates of one study's trials, from the samples on disk.

    A greedy trial is compared with the greedy trial of the same request settings under the baseline's launch: what
    differs then comes from the launch settings (quantised caches, batching, speculation), not from the prompt.
    """

    def __init__(self, prepared: Prepared, rows: Sequence[TrialRow], folder: Path) -> None:
        self._folder = folder
        launch_key = prepared.baseline.launch_key
        done = [row for row in rows if row.phase != "confirm" and row.outcome is Outcome.DONE]
        self._references = {
            _asked(row.configuration): row
            for row in done
            if greedy(row.configuration) and row.configuration.launch_key == launch_key
        }
        self._samples: dict[int, tuple[Sample, ...]] = {}

    def of(self, row: TrialRow) -> dict[str, Any] | None:
        """``rate`` and ``identical`` against ``reference`` (a trial's number); None where nothing is comparable."""
        reference = self._references.get(_asked(row.configuration)) if greedy(row.configuration) else None
        if reference is None or reference.number == row.number or row.outcome is not Outcome.DONE:
            return None
        found = token_match(self._reference(reference), trial_result(row, self._folder).samples)
        return None if found is None else {"reference": reference.number, **asdict(found)}

    def scores(self, row: TrialRow) -> tuple[Score, ...]:
        """The scores a trial was recorded with."""
        return trial_result(row, self._folder).scores

    def _reference(self, row: TrialRow) -> tuple[Sample, ...]:
        if row.number not in self._samples:
            self._samples[row.number] = trial_result(row, self._folder).samples
        return self._samples[row.number]


def greedy(configuration: Configuration) -> bool:
    """Whether nothing is left to chance, so that a different answer comes from the configuration."""
    return configuration.request.temperature == 0


def _asked(configuration: Configuration) -> str:
    """The request settings that still matter when nothing is left to chance."""
    request = replace(configuration.request, top_p=None, top_k=None, min_p=None, seed=None)
    return Configuration(engine=configuration.engine, launch={}, request=request).key
