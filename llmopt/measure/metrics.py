"""Samples of a load → named figures with intervals. Formulas, sources and peers' definitions: docs/metrics.md.

Percentiles carry the distribution-free interval of order statistics and are left out where the sample supports none
(the median alone is given without); gaps of one request are dependent, so theirs is widened by the design effect.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmopt.errors import EngineError
from llmopt.measure import timing
from llmopt.measure.load import LoadRun
from llmopt.measure.serving import Service, full_until, places_seen, services
from llmopt.measure.stats.intervals import (
    Interval,
    clopper_pearson,
    design_effect,
    mean_interval,
    quantile,
    quantile_interval,
    ratio_interval,
    smallest_n,
    wilson,
)
from llmopt.records import Estimate, Sample

if TYPE_CHECKING:
    from llmopt.measure.slo import Slo

__all__ = ["Window", "provisional", "speed"]

MS = 1e3
PERCENTILES = (0.50, 0.90, 0.95, 0.99)
SLICES = 10
"""Batches of the window, for the spread of what is delivered in it."""
FEW_TOKENS = 20
"""Fewer of them in a slice say nothing about its rate."""

PER_REQUEST: Mapping[str, Callable[[Sample], float | None]] = {
    "ttft": timing.ttft_s,
    "ttft_plan": lambda sample: timing.ttft_s(sample, planned=True),
    "ttfot": timing.ttfot_s,
    "tpot": timing.tpot_s,
    "e2e": timing.e2e_s,
    "e2e_plan": lambda sample: timing.e2e_s(sample, planned=True),
    "stall": lambda sample: max(timing.chunk_gaps_s(sample), default=None),
    "lateness": timing.lateness_s,
}
POOLED: Mapping[str, Callable[[Sample, float], tuple[float, ...]]] = {
    "itl": timing.token_gaps_s,
    "inter_chunk": timing.chunk_gaps_s,
}
"""Of each request the gaps that ended by a moment."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The span that is judged; requests belong to it by their planned start."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return max(self.end_s - self.start_s, 1e-9)


def speed(run: LoadRun, slo: Slo | None = None, *, window: Window | None = None) -> dict[str, Estimate]:
    """Every figure of a run over its window (or the given, cut one). Raises EngineError where no request succeeded."""
    window = window or Window(start_s=run.window_start_s, end_s=run.window_end_s)
    planned = [sample for sample in run.samples if window.start_s <= sample.planned_s <= window.end_s]
    good = [sample for sample in planned if sample.ok]
    if not any(sample.token_s for sample in good):
        first = next((sample.error for sample in run.samples if sample.error), run.gave_up or "-")
        raise EngineError("measure.no_valid_samples", n=len(planned), error=first)
    failed = len(planned) - len(good)
    served = _Served.of(run, window)
    requests = _requests_per_s(run, planned, served)
    return {
        **_rates(run, served),
        **_latencies(good, _last_gap_s(good, window)),
        "requests_per_s": requests,
        "error_rate": _proportion(failed, len(planned)),
        "truncated_rate": _proportion(sum(s.finish_reason == "length" for s in good), len(good)),
        **_sizes(good),
        **(_goodput(run, planned, slo, served, requests.value) if slo is not None else {}),
    }


def provisional(run: LoadRun, *, window: Window | None = None) -> dict[str, Estimate]:
    """Percentiles that the sample is too small to support, without interval: to steer a search, never to be printed."""
    window = window or Window(start_s=run.window_start_s, end_s=run.window_end_s)
    good = [s for s in run.samples if s.ok and window.start_s <= s.planned_s <= window.end_s]
    found: dict[str, Estimate] = {}
    for name, groups in _series(good, _last_gap_s(good, window)):
        values = sorted(itertools.chain.from_iterable(groups))
        for q in PERCENTILES:
            key = f"{name}_p{round(q * 100)}_ms"
            if values and len(values) < smallest_n(q):
                value = quantile(values, q) * MS
                found[key] = Estimate(value=value, unit="ms", n=len(values), method=f"provisional, n < {smallest_n(q)}")
    return found


def _last_gap_s(good: Sequence[Sample], window: Window) -> float:
    """Until when gaps count: later ones are those of a load that runs down, with ever fewer requests at once.

    All of them count where fewer than half would be left: a window as short as its answers has no better part.
    """
    inside = sum(bisect_right(sample.token_s, window.end_s) for sample in good)
    whole = 2 * inside < sum(len(sample.token_s) for sample in good)
    return math.inf if whole else window.end_s


def _series(
    good: Sequence[Sample], last_gap_s: float, *, leave_out: str = ""
) -> Iterator[tuple[str, list[list[float]]]]:
    """(name, values in seconds by request); a request without such a time is left out."""
    for name, measure in PER_REQUEST.items():
        yield name, [[value] for sample in good if (value := measure(sample)) is not None]
    for name, gaps in POOLED.items():
        yield name, [sorted(found) for sample in good if name != leave_out and (found := gaps(sample, last_gap_s))]


def _latencies(good: Sequence[Sample], last_gap_s: float) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    alike = "" if any(sample.token_counts for sample in good) else "inter_chunk"  # one token each: the same gaps
    for name, groups in _series(good, last_gap_s, leave_out=alike):
        if name == alike:
            found |= {key.replace("itl_", "inter_chunk_"): e for key, e in found.items() if key.startswith("itl_")}
        elif groups:
            found |= _latency(name, groups, pooled=name in POOLED)
    return found


def _latency(name: str, groups: Sequence[Sequence[float]], *, pooled: bool) -> dict[str, Estimate]:
    """Percentiles, mean and largest of one time; pooled values of one request are dependent."""
    found: dict[str, Estimate] = {}
    ordered = sorted(itertools.chain.from_iterable(groups))
    n = len(ordered)
    method = "order statistics at the effective size" if pooled else "order statistics"
    for q in PERCENTILES:
        effect = design_effect(groups, quantile(ordered, q)) if pooled else 1.0
        interval = quantile_interval(ordered, q, effect=effect)
        if interval.low is not None or q == PERCENTILES[0]:
            found[f"{name}_p{round(q * 100)}_ms"] = _scaled(interval, "ms", n, method, MS)
    mean = _grouped_mean(groups) if pooled else mean_interval(ordered)
    found[f"{name}_mean_ms"] = _scaled(mean, "ms", n, "ratio t over requests" if pooled else "t", MS)
    found[f"{name}_max_ms"] = Estimate(value=ordered[-1] * MS, unit="ms", n=n, method="largest seen")
    return found


def _grouped_mean(groups: Sequence[Sequence[float]]) -> Interval:
    """The mean of pooled values is the ratio of the requests' sums to their counts."""
    return ratio_interval([sum(group) for group in groups], [float(len(group)) for group in groups])


@dataclass(frozen=True, kw_only=True)
class _Served:
    """What was worked on in the window of the rates: each request by the share of its service that lies inside.

    In a closed loop that window goes on while requests still wait for a place: the engine is as busy as before.
    """

    window: Window
    samples: tuple[Sample, ...]
    services: tuple[Service, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, run: LoadRun, window: Window) -> _Served:
        places = places_seen(run.samples)
        served = services(run.samples, places)
        if not run.load.is_open and not run.cut and run.gave_up is None and window.end_s == run.window_end_s:
            window = replace(window, end_s=max(window.end_s, full_until(served, places)))
        shares = [service.share(window.start_s, window.end_s) for service in served]
        inside = [one for one in zip(run.samples, served, shares, strict=True) if one[2] > 0]
        samples, spans, kept = zip(*inside, strict=True) if inside else ((), (), ())
        return cls(window=window, samples=samples, services=spans, shares=kept)

    def total(self, amount: Callable[[Sample], float]) -> float:
        """Σ amount × share."""
        return sum(amount(sample) * share for sample, share in zip(self.samples, self.shares, strict=True))

    def by_service(self) -> list[list[float]]:
        """Of each request the share of its service in each slice of the window."""
        edges = self._edges()
        return [[service.share(a, b) for a, b in itertools.pairwise(edges)] for service in self.services]

    def by_arrival(self) -> list[list[float]]:
        """Of each request the share of its tokens that came in each slice; by service where it had none."""
        edges = self._edges()
        return [
            _arrived(s, edges) if s.token_s else row for s, row in zip(self.samples, self.by_service(), strict=True)
        ]

    def _edges(self) -> list[float]:
        width_s = self.window.seconds / SLICES
        return [self.window.start_s + k * width_s for k in range(SLICES + 1)]


def _arrived(sample: Sample, edges: Sequence[float]) -> list[float]:
    """The share of a request's tokens that came between each two edges; what came at the last edge is part of it."""
    before = [bisect_left(sample.token_s, edge) for edge in edges[:-1]]
    before.append(bisect_right(sample.token_s, edges[-1]))
    counts = sample.token_counts
    done = [0, *itertools.accumulate(counts)] if counts else range(len(sample.token_s) + 1)
    return [(done[b] - done[a]) / done[-1] for a, b in itertools.pairwise(before)]


def _rates(run: LoadRun, served: _Served) -> dict[str, Estimate]:
    """What was delivered in the window, per time: answers by their service, tokens and characters by their arrival."""
    touching, window = served.samples, served.window
    counted = "tokens" if all(s.tokens_counted_by != "chunks" for s in touching if s.ok) else "chunks"
    closed = not run.load.is_open
    amounts: dict[str, tuple[str, float, Callable[[Sample], float]]] = {
        "answers_per_minute": ("answers/min", 60.0, lambda _: 1.0),
        "output_tokens_per_s": (f"{counted}/s", 1.0, _output_tokens),
        "total_tokens_per_s": (f"{counted}/s", 1.0, lambda s: _output_tokens(s) + (s.prompt_tokens or 0)),
        "characters_per_s": ("characters/s", 1.0, lambda s: float(len(s.text) + len(s.reasoning))),
    }
    arrived = served.by_arrival()
    by_tokens = [sum(row) for row in arrived]
    enough = sum(_output_tokens(s) * share for s, share in zip(touching, by_tokens, strict=True)) >= FEW_TOKENS * SLICES
    found: dict[str, Estimate] = {}
    for name, (unit, scale, amount) in amounts.items():
        answers = name == "answers_per_minute"
        amounts_of = [amount(sample) if sample.ok else 0.0 for sample in touching]
        shares = served.shares if answers else by_tokens
        rate = sum(a * share for a, share in zip(amounts_of, shares, strict=True)) / window.seconds
        if closed and (answers or not enough):
            interval, method = _closed_rate(served.services, amounts_of, rate), "ratio t over requests"
        else:
            rows = served.by_service() if answers else arrived
            few = not closed and len(touching) < 2 * SLICES
            interval = Interval(rate, None, None) if few else _sliced_rate(rows, amounts_of, window, rate)
            method = f"t over {SLICES} slices of the window"
        found[name] = _scaled(interval, unit, sum(s.ok for s in touching), method, scale)
    return found


def _output_tokens(sample: Sample) -> float:
    return float(sample.completion_tokens or len(sample.token_s))


def _closed_rate(services: Sequence[Service], amounts: Sequence[float], rate: float) -> Interval:
    """A closed loop delivers (requests at work) × Σ amount / Σ service: the spread of that ratio is the rate's."""
    times = [service.end_s - service.start_s for service in services]
    if rate <= 0 or sum(times) <= 0:
        return Interval(rate, None, None)
    ratio = ratio_interval(amounts, times)
    if ratio.low is None or ratio.high is None or ratio.value <= 0:
        return Interval(rate, None, None)
    return Interval(rate, max(rate * ratio.low / ratio.value, 0.0), rate * ratio.high / ratio.value)


def _sliced_rate(rows: Sequence[Sequence[float]], amounts: Sequence[float], window: Window, rate: float) -> Interval:
    """Batch means: requests that run at once share the engine's steps, so time is what replicates, not requests."""
    width_s = window.seconds / SLICES
    rates = [sum(a * row[k] for a, row in zip(amounts, rows, strict=True)) / width_s for k in range(SLICES)]
    spread = mean_interval(rates)
    if spread.low is None or spread.high is None:
        return Interval(rate, None, None)
    half = (spread.high - spread.low) / 2
    return Interval(rate, max(rate - half, 0.0), rate + half)


def _requests_per_s(run: LoadRun, planned: Sequence[Sample], served: _Served) -> Estimate:
    """Open: gaps between planned starts, one fewer than requests. Closed: how many were served in the window."""
    if run.load.is_open:
        amount, method = float(max(len(planned) - 1, 1)), "gaps / window"
    else:
        amount, method = served.total(lambda _: 1.0), "shares of service / window"
    return Estimate(value=amount / served.window.seconds, unit="requests/s", n=len(planned), method=method)


def _goodput(run: LoadRun, planned: Sequence[Sample], slo: Slo, served: _Served, rate: float) -> dict[str, Estimate]:
    """Requests of the window that meet every limit, of ``rate`` a second; failures are misses, what we cut is none."""
    good = [sample for sample in planned if slo.met(sample)]
    n = len(planned)
    share = wilson(len(good), n)
    goodput = _scaled(share, "requests/s", n, "Wilson × request rate", rate)
    if run.load.is_open:
        tokens = sum(_output_tokens(sample) for sample in good) / n * rate
    else:  # there the rate is found and not given: its spread belongs to the figure
        met = [float(slo.met(sample)) for sample in served.samples]
        interval = _closed_rate(served.services, met, goodput.value)
        if interval.low is not None:
            goodput = _scaled(interval, "requests/s", n, "ratio t over requests", 1.0)
        tokens = served.total(lambda s: _output_tokens(s) if slo.met(s) else 0.0) / served.window.seconds
    return {
        "attainment": _scaled(share, "share", n, "Wilson", 1.0),
        "goodput_per_s": goodput,
        "token_goodput_per_s": Estimate(value=tokens, unit="tokens/s", n=len(good), method="tokens of good requests"),
    }


def _sizes(good: Sequence[Sample]) -> dict[str, Estimate]:
    """How long prompts and answers were, and how much of the prompts came from a cache."""
    found: dict[str, Estimate] = {}
    series: Iterable[tuple[str, list[int]]] = (
        ("prompt_tokens_mean", [s.prompt_tokens for s in good if s.prompt_tokens is not None]),
        ("output_tokens_mean", [s.completion_tokens for s in good if s.completion_tokens is not None]),
    )
    for name, values in series:
        if values:
            found[name] = _scaled(mean_interval(values), "tokens", len(values), "t", 1.0)
    cached = [(s.cached_tokens, s.prompt_tokens) for s in good if s.cached_tokens is not None and s.prompt_tokens]
    if cached:
        share = sum(c for c, _ in cached) / sum(p or 0 for _, p in cached)
        found["cached_prompt_share"] = Estimate(value=share, unit="share", n=len(cached), method="usage of the server")
    return found


def _proportion(count: int, n: int) -> Estimate:
    if n == 0:
        return Estimate(value=0.0, unit="share", n=0)
    return _scaled(clopper_pearson(count, n), "share", n, "Clopper-Pearson", 1.0)


def _scaled(interval: Interval, unit: str, n: int, method: str, scale: float) -> Estimate:
    return Estimate(
        value=interval.value * scale,
        unit=unit,
        n=n,
        low=None if interval.low is None else interval.low * scale,
        high=None if interval.high is None else interval.high * scale,
        method=method,
    )
