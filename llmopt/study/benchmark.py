"""How fast and how good is one configuration? Several fresh launches, every figure with its interval."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llmopt.config.settings import SettingsView
from llmopt.errors import DataError, UsageError
from llmopt.measure.slo import parse_slo
from llmopt.paths import Workspace
from llmopt.report.writing import write_json
from llmopt.study.contenders import Wanted, contenders, find_result, load_result, stored
from llmopt.study.events import Event, Listener, silent
from llmopt.study.launches import envelope, recording, short, side
from llmopt.study.optimize import study_name
from llmopt.study.request import StudyRequest
from llmopt.study.weights import fetching_data

__all__ = ["MOST_REPEATS", "BenchmarkRequest", "benchmark", "telling_weights"]

KIND = "benchmark"
JUDGED = "answers_per_minute"
MOST_REPEATS = 1000


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """One configuration to measure: the engine's baseline, or that of the result ``config``, with ``changes``."""

    study: StudyRequest
    repeats: int = 3
    """Launches; each asks every item."""
    config: str | None = None
    changes: Mapping[str, str] = field(default_factory=dict)
    slo: str | None = None

    def __post_init__(self) -> None:
        """Refuse what says nothing."""
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise UsageError("benchmark.repeats", value=self.repeats, most=MOST_REPEATS)
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
    slo = parse_slo(request.slo) if request.slo else None
    listener(Event(kind="phase", data={"name": "prepare"}))
    found = await asyncio.to_thread(
        contenders,
        [_wanted(request, workspace)],
        request.study,
        workspace=workspace,
        settings=settings,
        slo=slo,
        on_weights=telling_weights(listener),
    )
    (contender,) = found
    name = study_name(replace(request.study, model=contender.prepared.model.name))
    spec = {
        **replace(request.study, model=contender.given).to_spec(),
        "kind": KIND, "repeats": request.repeats, "slo": request.slo, "max_tokens": contender.prepared.work.max_tokens,
    }  # fmt: skip
    items = contender.prepared.confirm_items
    with recording(KIND, name, spec, found, workspace=workspace, listener=listener, wait_for_lock=wait_for_lock) as run:
        values = {"name": name, "what": contender.label, "items": len(items), "launches": request.repeats}
        listener(Event(kind="note", data={"key": "benchmark.introduction", "values": values}))
        if request.study.quality_only:
            results = [await run.answer(contender, items)]
        else:
            results = [one.result for one in await run.measure(found, [items] * request.repeats)]
        measured = side(contender, results, items, price_per_hour=request.study.price_per_hour)
        result = envelope(KIND, name, found, [measured], items, spec=spec, elapsed_s=time.monotonic() - began_s)
        result |= _claims(result["sides"][0])
        await asyncio.to_thread(write_json, run.folder, result)
        run.finish({"verdict": "measured", "elapsed_s": result["elapsed_s"]})
    listener(Event(kind="ended", data={"result": result}))
    return result


def telling_weights(listener: Listener) -> Callable[[Any], None]:
    """A callback that turns the progress of a download into events."""

    def fetching(progress: Any) -> None:
        listener(Event(kind="weights", data=fetching_data(progress)))

    return fetching


def _wanted(request: BenchmarkRequest, workspace: Workspace) -> Wanted:
    if request.config is None:
        return Wanted(label=request.study.model, model=request.study.model, changes=request.changes)
    path = find_result(request.config, workspace)
    if path is None:
        raise DataError("benchmark.no_such_result", path=request.config)
    return replace(stored(load_result(path)), changes=request.changes)


def _claims(one: Mapping[str, Any]) -> dict[str, Any]:
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
