"""Who judges the answers of a study: one way for all its configurations, so that their scores can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llmopt.measure.evaluators.base import Scorer
from llmopt.measure.evaluators.builtin import Agreement, EndedWell
from llmopt.measure.evaluators.registry import scorer_for
from llmopt.measure.quality import score
from llmopt.records import Dataset, Item, Sample, Score

__all__ = ["Judge", "judge_for"]

Measure = Literal["gold", "evaluator", "agreement", "ended_well", "unjudged"]
OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class Judge:
    """``measure`` says what a score of 1 means: the gold answer, an evaluator's yes, the reference's own words …"""

    measure: Measure
    language: str
    scorer: Scorer | None = None
    """Judges every item; None: each item's kind says who does."""
    for_open: Scorer | None = None
    """Judges the items without a gold answer."""
    needs_reference: bool = False
    """Whether open items wait for the reference run's answers."""

    def scores(self, items: Mapping[str, Item], samples: Iterable[Sample]) -> tuple[Score, ...]:
        """One score a sample, in order."""
        return tuple(
            score(items[s.item_id], s, scorer=self._scorer(items[s.item_id]), language=self.language) for s in samples
        )

    def with_reference(self, reference: Mapping[str, Sample]) -> Judge:
        """The same judge, once the reference run has answered."""
        return replace(self, for_open=Agreement(reference), needs_reference=False)

    def _scorer(self, item: Item) -> Scorer | None:
        return self.scorer or (self.for_open if item.kind == OPEN else None)


def judge_for(dataset: Dataset, *, evaluator: str | None = None, creative: bool = False) -> Judge:
    """The judge of a dataset: its gold answers, else the evaluator named, else agreement with a reference run.

    ``creative``: answers are meant to differ from each other and from any reference, so that for open items only how
    they ended is judged. Raises UsageError for an evaluator that nobody offers or that judges no single answers.
    """
    if evaluator is not None:
        return Judge(measure="evaluator", language=dataset.language, scorer=scorer_for(evaluator))
    if not any(item.kind == OPEN for item in dataset.items):
        return Judge(measure="gold", language=dataset.language)
    if creative:
        return Judge(measure="ended_well", language=dataset.language, for_open=EndedWell(dataset.language))
    return Judge(measure="agreement", language=dataset.language, needs_reference=True)
