"""What an evaluator is: either a scorer of single answers, or a user's object that judges a whole configuration."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from llmopt.measure.answers.reply import Reading, Reply
from llmopt.records import Item, Sample

__all__ = ["Evaluator", "Scorer"]


@runtime_checkable
class Scorer(Protocol):
    """Judges one reply to one item. Statuses (truncated, empty, refused …) are not its business."""

    name: str

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """Find the answer in the reply and compare it with the item's gold answers."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """A user's own judgement of a model with parameters on a dataset; higher is better."""

    async def evaluate(self, model: Any, dataset: Any, params: Any) -> Any:
        """The score, a number or a mapping of named numbers."""
        ...
