"""The times of one request, by the formulas of docs/metrics.md; seconds, None where the request has no such time.

t_plan planned start, t_send first byte written, t_k arrival of the k-th content-bearing event, n_k tokens in it, N all
output tokens. Failed requests have no times.
"""

from __future__ import annotations

import itertools
import math

from llmopt.records import Sample

__all__ = ["chunk_gaps_s", "e2e_s", "first_count", "lateness_s", "token_gaps_s", "tpot_s", "ttfot_s", "ttft_s"]


def ttft_s(sample: Sample, *, planned: bool = False) -> float | None:
    """Time to first token: t_1 - t_send, or from t_plan."""
    return _from_start(sample, sample.token_s[0] if sample.token_s else None, planned=planned)


def ttfot_s(sample: Sample, *, planned: bool = False) -> float | None:
    """Time to first *output* token: the first that is not reasoning."""
    return _from_start(sample, sample.first_answer_s, planned=planned)


def e2e_s(sample: Sample, *, planned: bool = False) -> float | None:
    """End to end: t_last - t_send, or from t_plan."""
    return _from_start(sample, sample.token_s[-1] if sample.token_s else None, planned=planned)


def chunk_gaps_s(sample: Sample, last_s: float = math.inf) -> tuple[float, ...]:
    """Inter-chunk gaps t_k - t_(k-1), as they came; those that ended by ``last_s``."""
    if not sample.ok:
        return ()
    return tuple(after - before for before, after in itertools.pairwise(sample.token_s) if after <= last_s)


def token_gaps_s(sample: Sample, last_s: float = math.inf) -> tuple[float, ...]:
    """Inter-token latencies: each gap spread over the n_k tokens it brought; those that ended by ``last_s``."""
    gaps = chunk_gaps_s(sample, last_s)
    if not sample.token_counts:
        return gaps
    spread = zip(gaps, sample.token_counts[1:], strict=False)  # the later counts are of gaps that are left out
    return tuple(gap / count for gap, count in spread for _ in range(count))


def tpot_s(sample: Sample) -> float | None:
    """Time per output token after the first event: (t_last - t_1) / (N - n_1); None where nothing follows it."""
    total = sample.completion_tokens or len(sample.token_s)
    later = total - first_count(sample)
    if not sample.ok or len(sample.token_s) < 2 or later < 1:  # noqa: PLR2004 - a gap has two ends
        return None
    return (sample.token_s[-1] - sample.token_s[0]) / later


def lateness_s(sample: Sample) -> float:
    """How long after its planned moment a request was sent."""
    return sample.sent_s - sample.planned_s


def first_count(sample: Sample) -> int:
    """Tokens in the first event (n_1)."""
    return sample.token_counts[0] if sample.token_counts else 1


def _from_start(sample: Sample, at_s: float | None, *, planned: bool) -> float | None:
    if not sample.ok or at_s is None:
        return None
    return at_s - (sample.planned_s if planned else sample.sent_s)
