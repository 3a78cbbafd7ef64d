"""One item several times: with a seed each where sampling is random, and put so that no cache gains by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from llmopt.records import InferenceParams, Item, digest

__all__ = ["around", "repeats_for", "seed_for"]


def repeats_for(params: InferenceParams, wanted: int) -> int:
    """``wanted`` where the temperature leaves something to chance, else 1: greedy repeats would only cost time.

    A temperature left to the engine (None) is taken to be above 0, as engines' own defaults are.
    """
    return 1 if params.temperature == 0 else max(1, wanted)


def seed_for(study_seed: int, item_id: str, repeat: int = 0) -> int:
    """A 31-bit request seed of its own for each item and repeat; configurations are compared on equal seeds."""
    parts: list[int | str] = [study_seed, item_id, repeat] if repeat else [study_seed, item_id]
    return int(digest(parts, size=4), 16) >> 1


def around(items: Sequence[Item]) -> Iterator[Item]:
    """The items again and again, from the second round on marked with its number where their own words begin.

    What all items share stays shared (instructions, worked examples), but a prefix cache that has seen an item knows no
    more of it the next time than of any other: a pass over more requests than items would measure the cache.
    """
    turn = 1
    while items:
        yield from items if turn == 1 else (_marked(item, f"[{turn}] ") for item in items)
        turn += 1


def _marked(item: Item, mark: str) -> Item:
    meta = dict(item.meta)
    if "messages" in meta:
        *before, last = meta["messages"]
        meta["messages"] = [*before, {**last, "content": mark + last["content"]}]
    if meta.get("context"):
        meta["context"] = mark + meta["context"]
    return replace(item, question=mark + item.question, meta=meta)
