"""May a measurement be believed? Start-up cut, steadiness, drift, what else ran, whether the client was the limit.

A certificate goes with every result. It never changes a figure: it says which window is steady and warns.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmopt.measure.load import LoadRun
from llmopt.measure.metrics import Window
from llmopt.measure.saturation import saturating
from llmopt.measure.stats.intervals import smallest_n
from llmopt.measure.stats.special import t_quantile
from llmopt.measure.timing import lateness_s, ttft_s
from llmopt.measure.warmup import WarmUp

__all__ = ["Certificate", "CoLoad", "CoLoadWatch", "certify", "drift", "mser", "steady_window"]

BATCH = 5
BINS = 50
FEW_TOKENS = 4 * BINS
"""Fewer tokens than this in a window show no course over time."""
LAG_S = 0.005
LAG_OF_TTFT = 0.05
LATE_S = 0.005
LATE_SHARE = 0.01
CPU_SHARE = 0.8
CO_LOAD_SHARE = 0.10
DRIFT = 0.05
UNLIKE = 0.999
"""One-sided: the cut was chosen as the best of several, so chance has several tries."""
ERROR_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class CoLoad:
    """CPU time used by others while we measured, in cores and as a share of all cores; stolen time is part of it."""

    cores: float
    share: float


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What stands behind a result; ``None`` is *not known* (too short a run, no such reading)."""

    valid: bool
    """False where our own client was the limit, the endpoint vanished, or the load was held back for want of memory:
    the figures are then not the engine's at this load."""
    warnings: tuple[str, ...]
    client_limited: bool
    lag_p99_s: float
    cpu_share: float
    late_share: float
    steady: bool | None
    drift: float | None
    """Relative change of the token rate over the steady window."""
    window: Window
    n: int
    errors: int
    co_load: CoLoad | None = None
    noise_floor: float | None = None
    """What four pairs of launches can tell from chance, relative; from ``calibrate``."""
    client_error_ms: float | None = None
    warm: bool | None = None
    """Whether the speed had settled when measuring began; None where this pass followed another on the same engine."""
    warmup_s: float | None = None
    saturated: bool | None = None
    """Whether an open load outgrew the endpoint; None for a closed one, or too few answers."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the record."""
        return asdict(self)


def certify(
    run: LoadRun,
    *,
    co_load: CoLoad | None = None,
    noise_floor: float | None = None,
    client_error_ms: float | None = None,
    warm_up: WarmUp | None = None,
) -> Certificate:
    """The certificate of a run.

    ``noise_floor`` is this machine's, as a relative difference, and ``client_error_ms`` the p99 of our own TTFT error
    at about this many streams, against the fake engine (both from ``calibrate``). ``warm_up`` went before the run.
    """
    window, steady = steady_window(run)
    change = drift(_token_counts(run, window)) if steady is not None else None
    drifting = change is not None and abs(change) > DRIFT
    good = [sample for sample in run.samples if sample.ok]
    errors = len(run.samples) - len(good)
    late = _late_share(run)
    limited = _client_limited(run, late, client_error_ms)
    saturated = saturating(run) if run.load.is_open else None
    checks: Mapping[str, bool] = {
        "measure.warn_client_limited": limited,
        "measure.warn_endpoint_gone": run.gave_up is not None,
        "measure.warn_held": run.held_s > 0,
        "measure.warn_not_steady": steady is False,
        "measure.warn_drift": drifting,
        "measure.warn_not_warm": warm_up is not None and warm_up.promised and not warm_up.stable,
        "measure.warn_saturated": saturated is True,
        "measure.warn_few_samples": len(good) < smallest_n(0.5),
        "measure.warn_errors": bool(run.samples) and errors / len(run.samples) > ERROR_SHARE,
        "measure.warn_co_load": co_load is not None and co_load.share > CO_LOAD_SHARE,
    }
    return Certificate(
        valid=not limited and run.gave_up is None and run.held_s == 0,
        warnings=tuple(key for key, holds in checks.items() if holds),
        client_limited=limited,
        lag_p99_s=run.health.lag_p99_s,
        cpu_share=run.health.cpu_share,
        late_share=late,
        steady=steady and not drifting if steady is not None else None,
        drift=change,
        window=window,
        n=len(good),
        errors=errors,
        co_load=co_load,
        noise_floor=noise_floor,
        client_error_ms=client_error_ms,
        warm=None if warm_up is None else warm_up.stable,
        warmup_s=None if warm_up is None else warm_up.seconds,
        saturated=saturated,
    )


def steady_window(run: LoadRun) -> tuple[Window, bool | None]:
    """The window without its start-up, and whether there is a steady one; None where the run is too short to tell.

    The cut is MSER-5 over tokens per second (Hoad, Robinson and Davies, 2010: the best automatic rule); a cut of more
    than half means that no steady part was seen, and then nothing is cut. Nor is it where most requests had been
    planned before the cut: what is left would speak about too few of them. The rule finds a best cut in any series: it
    counts only where what it cuts is unlike the rest, else steady runs would lose half of what they measured by chance.
    """
    whole = Window(start_s=run.window_start_s, end_s=run.window_end_s)
    counts = _token_counts(run, whole)
    if sum(counts) < FEW_TOKENS:
        return whole, None
    cut, means = mser(counts), _batch_means(counts)
    edge = len(means) // 2 if cut is None else cut // BATCH
    if not _unlike(means[:edge], means[edge:]):
        return whole, True
    if cut is None:
        return whole, False
    start_s = whole.start_s + cut * whole.seconds / len(counts)
    later = sum(sample.planned_s >= start_s for sample in run.samples)
    return (whole if 2 * later < len(run.samples) else Window(start_s=start_s, end_s=whole.end_s)), True


def mser(series: Sequence[float], *, batch: int = BATCH) -> int | None:
    """How many values to cut from the start by the MSER rule on batch means (White, 1997); None beyond one half.

    Only cuts up to one half are candidates (few means at the end are alike by chance); the best one lying there
    means that the start-up had not ended.
    """
    means = _batch_means(series, batch)
    half = len(means) // 2
    if half < 2:  # noqa: PLR2004 - nothing left to compare
        return 0
    scores = []
    for cut in range(half + 1):
        rest = means[cut:]
        centre = statistics.fmean(rest)
        scores.append(sum((value - centre) ** 2 for value in rest) / len(rest) ** 2)
    best = min(range(half + 1), key=lambda cut: (scores[cut], cut))
    return best * batch if best < half else None


def _batch_means(series: Sequence[float], batch: int = BATCH) -> list[float]:
    return [statistics.fmean(series[k : k + batch]) for k in range(0, len(series) - batch + 1, batch)]


def _unlike(start: Sequence[float], rest: Sequence[float]) -> bool:
    """Whether the means of a start-up lie further from those of the rest than chance puts them."""
    if not start or len(rest) < 3:  # noqa: PLR2004 - two say little about their spread
        return False
    error = statistics.stdev(rest) * math.sqrt(1 / len(start) + 1 / len(rest))
    distance = abs(statistics.fmean(start) - statistics.fmean(rest))
    return distance > t_quantile(UNLIKE, len(rest) - 1) * error


def drift(counts: Sequence[float], *, confidence: float = 0.99) -> float | None:
    """Relative change over a series by its straight line; 0 where its interval includes none, None if too short."""
    means = _batch_means(counts)
    n = len(means)
    centre = statistics.fmean(means) if means else 0.0
    if n < 4 or centre <= 0:  # noqa: PLR2004 - a line needs more points than it has parameters
        return None
    places = [k - (n - 1) / 2 for k in range(n)]
    spread = sum(x * x for x in places)
    slope = sum(x * y for x, y in zip(places, means, strict=True)) / spread
    rests = [y - centre - slope * x for x, y in zip(places, means, strict=True)]
    error = (sum(r * r for r in rests) / (n - 2) / spread) ** 0.5
    if abs(slope) <= t_quantile(0.5 + confidence / 2, n - 2) * error:
        return 0.0
    return slope * (n - 1) / centre


class CoLoadWatch:
    """CPU time of everything but ourselves and the processes of ``own`` (the engine's), between start and ``stop``."""

    def __init__(self, own: Callable[[], Iterable[int]]) -> None:
        self._own = own
        self._began = self._read()

    def stop(self) -> CoLoad | None:
        """What others used since the start; None where the system does not say."""
        before, after = self._began, self._read()
        if before is None or after is None or after[0] <= before[0]:
            return None
        total, busy = after[0] - before[0], after[1] - before[1]
        ours = sum(used - before[2].get(pid, 0.0) for pid, used in after[2].items())
        others = min(max(busy - ours, 0.0) / total, 1.0)
        import psutil  # noqa: PLC0415 - read above already

        return CoLoad(cores=others * (psutil.cpu_count() or 1), share=others)

    def _read(self) -> tuple[float, float, dict[int, float]] | None:
        """(all CPU seconds, busy CPU seconds, CPU seconds of each own process)."""
        import psutil  # noqa: PLC0415 - only where something is watched

        try:
            times = psutil.cpu_times()
        except (OSError, psutil.Error):
            return None
        idle = times.idle + getattr(times, "iowait", 0.0)
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        own: dict[int, float] = {}
        for pid in {os.getpid(), *self._own()}:
            try:
                used = psutil.Process(pid).cpu_times()
            except (OSError, psutil.Error):  # ended meanwhile, or not ours to read
                continue
            own[pid] = used.user + used.system
        return total, total - idle, own


def _token_counts(run: LoadRun, window: Window) -> list[float]:
    """Tokens in equal bins of the window: of one second, or narrower where that gives too few."""
    bins = max(BINS, int(window.seconds))
    counts = [0.0] * bins
    for sample in run.samples:
        weights = sample.token_counts or (1,) * len(sample.token_s)
        for at_s, weight in zip(sample.token_s, weights, strict=True):
            place = int((at_s - window.start_s) / window.seconds * bins)
            if 0 <= place < bins:
                counts[place] += weight
    return counts


def _late_share(run: LoadRun) -> float:
    """Share of requests that were sent later than planned by more than a little."""
    late = sum(lateness_s(sample) > LATE_S for sample in run.samples)
    return late / len(run.samples) if run.samples else 0.0


def _client_limited(run: LoadRun, late: float, client_error_ms: float | None) -> bool:
    first = [value for sample in run.samples if (value := ttft_s(sample)) is not None]
    limit_s = max(LAG_S, LAG_OF_TTFT * statistics.median(first)) if first else LAG_S
    health = run.health
    slow = max(health.lag_p99_s, (client_error_ms or 0.0) / 1e3) > limit_s
    return slow or health.cpu_share > CPU_SHARE or late > LATE_SHARE
