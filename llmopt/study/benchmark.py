"""How fast and how good is one configuration? Several fresh launches, every figure with its interval."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmopt.config.settings import SettingsView
from llmopt.errors import DataError, UsageError
from llmopt.measure.slo import parse_slo
from llmopt.measure.stats.looks import Look
from llmopt.paths import Workspace
from llmopt.study.contenders import Wanted, contenders, find_result, load_result, stored
from llmopt.study.events import Event, Listener, silent, tell_data
from llmopt.study.launches import Contender, Launched, envelope, recording, short, side
from llmopt.study.optimize import study_name
from llmopt.study.repeats import launches_for, looks_for, tell_resolution
from llmopt.study.request import StudyRequest
from llmopt.study.weights import fetching_data

__all__ = [
    "JUDGED",
    "KIND",
    "MOST_REPEATS",
    "BenchmarkRequest",
    "benchmark",
    "claims_of",
    "resolved",
    "telling_weights",
]

KIND = "benchmark"
JUDGED = "answers_per_minute"
MOST_REPEATS = 1000
LEAST = 3
LEAST_TO_STOP = 4
"""Launches before the first look of a benchmark that may stop early: fewer show too little of the spread."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """One configuration to measure: the engine's baseline, or that of the result ``config``, with ``changes``."""

    study: StudyRequest
    repeats: int | None = None
    """Launches, each asks every item; None: as many as calibration says, at least 3."""
    precision: float | None = None
    """Measure until speed is known to this relative half-width (0.05 is 5 %), at planned looks."""
    most_repeats: int | None = None
    config: str | None = None
    changes: Mapping[str, str] = field(default_factory=dict)
    slo: str | None = None

    def __post_init__(self) -> None:
        """Refuse what says nothing."""
        for option, asked in (("--repeats", self.repeats), ("--most-repeats", self.most_repeats)):
            if asked is not None and not 1 <= asked <= MOST_REPEATS:
                raise UsageError("benchmark.repeats", option=option, value=asked, most=MOST_REPEATS)
        if self.most_repeats is not None and self.precision is None:
            raise UsageError("benchmark.most_without_precision")
        if self.study.choices != "generated" and not self.study.quality_only:
            raise UsageError("benchmark.choices_need_quality_only")


async def benchmark(
    request: BenchmarkRequest,
    *,
    workspace: Workspace,
    settings: SettingsView,
    listener: Listener = silent,
    wait_for_lock: bool = False,
) -> dict[str, Any]:
    """Measure it; the result as written to ``result.json``. Raises LlmoptError kinds; interruptible anywhere."""
    began_s = time.monotonic()
    contender = await resolved(request, workspace=workspace, settings=settings, listener=listener)
    name = study_name(replace(request.study, model=contender.prepared.model.name))
    items = contender.prepared.confirm_items
    contender = replace(contender, prepared=contender.prepared.resolving(len(items)))
    looks = _looks(request, contender)
    spec = {
        **replace(request.study, model=contender.given).to_spec(),
        "kind": KIND, "repeats": looks[-1].after, "slo": request.slo, "max_tokens": contender.prepared.work.max_tokens,
    }  # fmt: skip

    def measured(launched: Sequence[Launched], look: Look) -> dict[str, Any]:
        results = [one.result for one in launched]
        price = request.study.price_per_hour
        return side(contender, results, items, price_per_hour=price, confidence=look.confidence)

    with recording(
        KIND, name, spec, [contender], workspace=workspace, listener=listener, wait_for_lock=wait_for_lock
    ) as run:
        values = {"name": name, "what": contender.label, "items": len(items), "launches": looks[-1].after}
        listener(Event(kind="note", data={"key": "benchmark.introduction", "values": values}))
        tell_data(listener, contender.prepared.dataset)
        tell_resolution(listener, contender.prepared, requests=len(items), launches=[look.after for look in looks])
        if request.study.quality_only:
            launched = [Launched(block=0, place=0, result=await run.answer(contender, items))]
        else:
            launched = await run.measure(
                [contender],
                [items] * looks[-1].after,
                looks=looks,
                decided=lambda launched, look: _known(measured(launched, look)) <= (request.precision or 0.0),
            )
        look = next(look for look in looks if look.after >= len(launched))
        one = measured(launched, look)
        result = envelope(KIND, name, [contender], [one], items, spec=spec, elapsed_s=time.monotonic() - began_s)
        result |= {**claims_of(result["sides"][0]), "precision": _precision(request.precision, one)}
        await run.conclude(result, items, verdict="measured")
    listener(Event(kind="ended", data={"result": result}))
    return result


async def resolved(
    request: BenchmarkRequest, *, workspace: Workspace, settings: SettingsView, listener: Listener
) -> Contender:
    """The one configuration that is asked for, ready to be launched; says that it is being prepared."""
    listener(Event(kind="phase", data={"name": "prepare"}))
    (found,) = await asyncio.to_thread(
        contenders,
        [_wanted(request, workspace)],
        request.study,
        workspace=workspace,
        settings=settings,
        slo=parse_slo(request.slo) if request.slo else None,
        on_weights=telling_weights(listener),
    )
    return found


def telling_weights(listener: Listener) -> Callable[[Any], None]:
    """A callback that turns the progress of a download into events."""

    def fetching(progress: Any) -> None:
        listener(Event(kind="weights", data=fetching_data(progress)))

    return fetching


def _looks(request: BenchmarkRequest, contender: Contender) -> tuple[Look, ...]:
    """When measuring may stop: after the launches asked for (or derived), or once precise enough."""
    precision = request.precision
    if precision is not None:
        return looks_for(request.repeats or LEAST_TO_STOP, until_decided=True, most=request.most_repeats)
    prepared = contender.prepared
    margin = prepared.request.speed_margin
    requests = len(prepared.confirm_items)
    derived = launches_for(prepared, requests=requests, precision=margin, least=LEAST)
    return looks_for(request.repeats or derived, until_decided=False, most=None)


def _known(one: Mapping[str, Any]) -> float:
    """How precisely the speed is known: half of its interval, relative."""
    speed = one["figures"].get(JUDGED, {})
    if not speed.get("value") or speed["low"] is None or speed["high"] is None:
        return math.inf
    return float((speed["high"] - speed["low"]) / 2 / speed["value"])


def _precision(asked: float | None, one: Mapping[str, Any]) -> dict[str, Any]:
    reached = _known(one)
    return {"asked": asked, "reached": reached if math.isfinite(reached) else None}


def _wanted(request: BenchmarkRequest, workspace: Workspace) -> Wanted:
    if request.config is None:
        return Wanted(label=request.study.model, model=request.study.model, changes=request.changes)
    path = find_result(request.config, workspace)
    if path is None:
        raise DataError("benchmark.no_such_result", path=request.config)
    return replace(stored(load_result(path)), changes=request.changes)


def claims_of(one: Mapping[str, Any]) -> dict[str, Any]:
    """The fields every result has; one configuration alone is neither better nor worse than anything."""
    judged = one["figures"].get(JUDGED, {})
    return {
        "baseline": short(one),
        "best": short(one),
        "command": one["command"],
        "verdict": {
            "kind": "measured",
            "objective": JUDGED,
            "effect": judged.get("value"),
            "interval": [judged.get("low"), judged.get("high")],
            "n": judged.get("n"),
        },
    }
