"""How alike two replies are, whatever they say: for agreement with a reference, and for the diversity of samples."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from llmopt.measure.answers import qa

__all__ = ["likeness"]


def likeness(left: str, right: str) -> float:
    """1.0 for the same text; else the F1 of character pairs, which unrelated Korean texts share far less than signs."""
    one, two = qa.plain(left), qa.plain(right)
    if one == two:
        return 1.0
    pairs_one, pairs_two = (Counter(pairwise(text)) for text in (one, two))
    total = pairs_one.total() + pairs_two.total()
    return 2 * (pairs_one & pairs_two).total() / total if total else 0.0
