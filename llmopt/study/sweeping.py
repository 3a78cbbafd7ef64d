"""How much load does one configuration bear? One engine, loads from one stream to saturation, each a measured pass."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from llmopt.config.settings import SettingsView
from llmopt.errors import UsageError
from llmopt.measure.sweep import Boundary, Sweep, highest_load, shown, sweep
from llmopt.paths import Workspace
from llmopt.records import Item, Load, Measurement
from llmopt.search.trial import Bench, TrialResult
from llmopt.study.benchmark import KIND, BenchmarkRequest, claims_of, resolved
from llmopt.study.events import Event, Listener, silent, tell_data
from llmopt.study.launches import Contender, LaunchRun, envelope, recording, side
from llmopt.study.optimize import study_name
from llmopt.workload.repeats import around

__all__ = ["ATTAINED", "SweepRequest", "benchmark_sweep"]

SECONDS = 20.0
"""How long arrivals of one rate go on: long enough for a growing queue to show."""
ANSWERS = 4
"""How long at least, in answers one after the other: a shorter pass is over before its load is there."""
LEAST_REQUESTS, MOST_REQUESTS = 40, 5_000
ATTAINED = 0.95
"""The share of requests that must meet the SLO for a rate to be borne."""
TOLERANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What to sweep: the configuration of ``one``, up to ``streams`` at once, ``levels`` rates between."""

    one: BenchmarkRequest
    streams: int = 16
    levels: int = 6
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        """Refuse what is no sweep."""
        if self.streams < 2 or self.levels < 1:  # noqa: PLR2004 - one stream is where it starts
            raise UsageError("benchmark.sweep", streams=self.streams, levels=self.levels)
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise UsageError("benchmark.sweep_seconds", value=self.seconds)
        if self.one.study.rate is not None:
            raise UsageError("benchmark.sweep_and_rate")


async def benchmark_sweep(
    request: SweepRequest,
    *,
    workspace: Workspace,
    settings: SettingsView,
    listener: Listener = silent,
    wait_for_lock: bool = False,
) -> dict[str, Any]:
    """Sweep it; the result as written to ``result.json``. Raises LlmoptError kinds; interruptible anywhere."""
    began_s = time.monotonic()
    study = replace(request.one.study, streams=request.streams)
    one_at_most = replace(request.one, study=study)
    contender = await resolved(one_at_most, workspace=workspace, settings=settings, listener=listener)
    name = study_name(replace(study, model=contender.prepared.model.name))
    spec = {**replace(study, model=contender.given).to_spec(), "kind": KIND, "slo": request.one.slo, "sweep": True}
    items = contender.prepared.confirm_items
    with recording(
        KIND, name, spec, [contender], workspace=workspace, listener=listener, wait_for_lock=wait_for_lock
    ) as run:
        values = {"name": name, "what": contender.label, "streams": request.streams, "levels": request.levels}
        listener(Event(kind="note", data={"key": "benchmark.sweep_introduction", "values": values}))
        tell_data(listener, contender.prepared.dataset)
        async with run.bench(contender) as bench:
            probe = _Probe(run, bench, contender, request, listener)
            swept = await sweep(probe, streams=request.streams, levels=request.levels, seed=study.seed)
            boundary = await _boundary(probe, swept) if request.one.slo else None
        one = side(contender, probe.results[1:2], items, price_per_hour=study.price_per_hour)
        result = envelope(KIND, name, [contender], [one], items, spec=spec, elapsed_s=time.monotonic() - began_s)
        result |= {**claims_of(result["sides"][0]), "sweep": _plain(swept, boundary)}
        await run.conclude(result, items, verdict="measured")
    listener(Event(kind="ended", data={"result": result}))
    return result


class _Probe:
    """Measures one load after another on the same engine, each pass on disk before the next."""

    def __init__(
        self, run: LaunchRun, bench: Bench, contender: Contender, request: SweepRequest, listener: Listener
    ) -> None:
        self.results: list[TrialResult] = []
        self.request = request
        self._run = run
        self._bench = bench
        self._contender = contender
        self._say = listener
        self._answer_s = 0.0

    async def __call__(self, load: Load) -> Measurement:
        asked = self._items(load)
        values = {"load": load.flags, "requests": len(asked)}
        self._say(Event(kind="note", data={"key": "benchmark.sweep_load", "values": values}))
        position = len(self.results)
        result = await self._run.one_pass(self._bench, self._contender, position, asked, load=load)
        self.results.append(result)
        found = result.measurement or Measurement(estimates={})
        self._answer_s = self._answer_s or (found.value("e2e_p50_ms") or 0.0) / 1e3  # alone, in the first pass
        return found

    async def attains(self, rate: float) -> bool:
        """Whether a Poisson rate is borne: enough requests meet the SLO, and the queue does not keep growing."""
        seed = self.request.one.study.seed
        found = await self(Load(streams=None, rate=shown(rate), arrival="poisson", seed=seed))
        return (found.value("attainment") or 0.0) >= ATTAINED and not found.certificate.get("saturated")

    def _items(self, load: Load) -> Sequence[Item]:
        """Enough requests for every stream, or for the seconds of a rate; items come again where there are too few.

        They come so that a prefix cache gains nothing by it: else a high rate would look faster than a low one.
        """
        items = self._contender.prepared.confirm_items
        seconds = max(self.request.seconds, ANSWERS * self._answer_s)
        wanted = ANSWERS * (load.streams or 1) if load.rate is None else math.ceil(load.rate * seconds)
        count = min(max(len(items), wanted, LEAST_REQUESTS), MOST_REQUESTS)
        return tuple(itertools.islice(around(items), count))


async def _boundary(probe: _Probe, swept: Sweep) -> Boundary:
    """The highest rate that meets the SLO, from the highest of the sweep that did."""
    met = [
        point.load.rate
        for point in swept.points
        if point.load.rate and not point.saturated and point.estimates["attainment"].value >= ATTAINED
    ]
    alone = swept.points[0].answered_per_s
    start = max(met, default=alone / 2)
    return await highest_load(
        probe.attains, start=start, ceiling=max(2 * swept.capacity_per_s, start), tolerance=TOLERANCE
    )


def _plain(swept: Sweep, boundary: Boundary | None) -> Mapping[str, Any]:
    points = [
        {
            "load": asdict(point.load),
            "flags": point.load.flags,
            "saturated": point.saturated,
            "estimates": {name: asdict(estimate) for name, estimate in point.estimates.items()},
            "warnings": list(point.warnings),
            "certificate": dict(point.certificate),
        }
        for point in swept.points
    ]
    return {
        "points": points,
        "capacity_per_s": swept.capacity_per_s,
        "capacity": asdict(swept.fullest.estimates["answers_per_minute"]),
        "slo_boundary": None if boundary is None else {**asdict(boundary), "attained": ATTAINED},
    }
