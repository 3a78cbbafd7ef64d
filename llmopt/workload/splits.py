"""Which items steer the search, which confirm its result and which may be shown as examples: decided by hash.

Items of one cluster (template, passage) always fall on the same side, so that nothing confirmed was searched on.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from llmopt.records import Item

__all__ = ["assign_splits", "draw", "rank"]

_T = TypeVar("_T")
_FEW_CLUSTERS = 40
"""Below this many clusters the halves are cut by rank, since a threshold would leave them uneven."""
_EXAMPLES = 4
_ENOUGH_FOR_EXAMPLES = 16

Split = Literal["search", "confirm", "examples"]


def rank(*parts: object) -> int:
    """A 64-bit pseudo-random rank of the parts, the same in every process and on every machine."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def draw(pairs: Iterable[tuple[str, _T]], size: int, seed: int) -> Iterator[tuple[str, _T]]:
    """The ``size`` pairs whose ids rank lowest under ``seed``, in rank order; memory holds no more than these.

    Equal ids rank equal, so a duplicate of a drawn id is drawn with it (one more pair is kept than asked for).
    """
    heap: list[tuple[int, int, str, _T]] = []
    for number, (name, value) in enumerate(pairs):
        entry = (-rank(seed, name), -number, name, value)
        if len(heap) <= size:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)
    heap.sort(reverse=True, key=lambda entry: entry[:2])
    yield from ((name, value) for _, _, name, value in heap)


def assign_splits(items: Sequence[Item], *, examples: bool) -> tuple[Item, ...]:
    """Every item with its split; a few clusters become examples when ``examples`` and there are enough."""
    ranked = sorted({_unit(item) for item in items}, key=lambda unit: rank("split", unit))
    sides: dict[str, Split] = {}
    if examples and len(ranked) >= _ENOUGH_FOR_EXAMPLES:
        sides = dict.fromkeys(ranked[:_EXAMPLES], "examples")
        ranked = ranked[_EXAMPLES:]
    for place, unit in enumerate(ranked):
        odd = place % 2 if len(ranked) < _FEW_CLUSTERS else rank("half", unit) % 2
        sides[unit] = "confirm" if odd else "search"
    return tuple(replace(item, split=sides[_unit(item)]) for item in items)


def _unit(item: Item) -> str:
    return item.cluster or item.id
