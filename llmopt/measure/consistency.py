"""How alike two configurations answer: the greedy token-match rate of the same items under both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from llmopt.measure.stats.intervals import proportion_interval
from llmopt.records import Estimate, Sample

__all__ = ["TokenMatch", "pieces", "token_match"]

_PIECE = re.compile(r"[가-힣]|[A-Za-z]+|\d|\s+|[^\s\w]|\w")


@dataclass(frozen=True, kw_only=True)
class TokenMatch:
    """``rate``: share of the reference's tokens before the first difference; ``identical``: share of equal answers."""

    rate: Estimate
    identical: Estimate


def token_match(
    reference: Iterable[Sample], other: Iterable[Sample], *, tokenize: Callable[[str], Sequence[object]] | None = None
) -> TokenMatch | None:
    """Compare greedy answers item by item; None where no item was answered under both.

    Everything after the first different token differs by necessity, so only the common beginning counts. Without a
    tokenizer, tokens are Hangul syllables, words, digits and signs: the same for both, whatever the vocabulary.
    """
    cut = tokenize or pieces
    left = {sample.item_id: sample.text for sample in reference if sample.ok}
    right = {sample.item_id: sample.text for sample in other if sample.ok}
    common = sorted(left.keys() & right.keys())
    if not common:
        return None
    rates = [_common_share(cut(left[name]), cut(right[name])) for name in common]
    same = [float(left[name] == right[name]) for name in common]
    return TokenMatch(rate=_estimate(rates), identical=_estimate(same))


def pieces(text: str) -> list[str]:
    """Hangul syllables, Latin words, digits, blanks and signs, in order."""
    return _PIECE.findall(text)


def _common_share(left: Sequence[object], right: Sequence[object]) -> float:
    longest = max(len(left), len(right))
    if not longest:
        return 1.0
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))) / longest


def _estimate(values: Sequence[float]) -> Estimate:
    found = proportion_interval(values)
    return Estimate(value=found.value, unit="share", n=len(values), low=found.low, high=found.high, method="Wilson")
