"""``korean_knowledge``: at most a hundred common facts written by hand, flagged as possibly learnt by heart.

Every model may have met these facts, so the set says whether a model *recalls* Korean knowledge; it cannot say
whether it reads. Clusters are the topics.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from llmopt.records import Item
from llmopt.workload.splits import assign_splits, rank

__all__ = ["SET_VERSION", "generate"]

SET_VERSION = "korean_knowledge-1"


def generate(count: int, seed: int) -> tuple[Item, ...]:
    """Up to ``count`` facts, drawn by ``seed``; their split does not depend on it."""
    facts = [
        Item(
            id=f"know-{number:03d}",
            question=question,
            answers=tuple(answers),
            kind="qa",
            level=1,
            meta={"form": "knowledge", "topic": topic, "possibly_contaminated": True},
        )
        for number, (topic, question, answers) in enumerate(_facts())
    ]
    split = assign_splits(facts, examples=True)
    chosen = sorted(split, key=lambda item: rank("knowledge", seed, item.id))[:count]
    shown = [item for item in split if item.split == "examples" and item not in chosen]
    return tuple(sorted((*chosen, *shown), key=lambda item: item.id))


def _facts() -> Iterator[tuple[str, str, list[str]]]:
    text = Path(__file__).with_name("facts.tsv").read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line.startswith("#"):
            topic, question, answers = line.split("\t")
            yield topic, question, answers.split("|")
