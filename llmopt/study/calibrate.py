"""Measure this machine's noise floor once: the same launch again and again (A/A), and our client against the mock."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from llmopt.config.settings import SettingsView
from llmopt.errors import EngineError, UsageError
from llmopt.measure.calibrate import Calibration, NoiseFloor, noise_from
from llmopt.measure.self_check import ClientAccuracy, check_client
from llmopt.paths import Workspace
from llmopt.runtime.guardian import Guardian
from llmopt.study.benchmark import JUDGED, BenchmarkRequest, benchmark
from llmopt.study.events import Event, Listener, silent
from llmopt.study.request import StudyRequest

__all__ = ["CalibrateRequest", "calibrate"]

LEAST_PAIRS = 2
MOST_PAIRS = 500
STREAMS = (1, 4, 16, 64)
"""Streams at which our own client is held against the mock."""
REQUESTS_EACH, TIMING = 8, {"ttft_ms": 50.0, "itl_ms": 20.0, "tokens": 16}
"""What each stream asks then: many short answers, because what is kept is the error of the first token's time."""


@dataclass(frozen=True, kw_only=True)
class CalibrateRequest:
    """What to launch again and again: ``pairs`` twice the plain engine command of ``study``'s model."""

    study: StudyRequest
    pairs: int = 6

    def __post_init__(self) -> None:
        """Refuse what says nothing about spread."""
        if not LEAST_PAIRS <= self.pairs <= MOST_PAIRS:
            raise UsageError("measure.pairs", value=self.pairs, least=LEAST_PAIRS, most=MOST_PAIRS)


async def calibrate(
    request: CalibrateRequest,
    *,
    workspace: Workspace,
    settings: SettingsView,
    listener: Listener = silent,
    wait_for_lock: bool = False,
) -> dict[str, Any]:
    """Measure and keep both in the workspace; plain data. Raises LlmoptError kinds; interruptible anywhere."""
    asked = BenchmarkRequest(study=request.study, repeats=2 * request.pairs)
    measured = await benchmark(
        asked, workspace=workspace, settings=settings, listener=listener, wait_for_lock=wait_for_lock
    )
    one = measured["sides"][0]
    values = [launch["figures"][JUDGED] for launch in one["launches"]]
    requests = measured["dataset"]["items"]
    if not all(value > 0 for value in values):
        raise EngineError("measure.no_valid_samples", n=len(values), error="-")
    floor = noise_from(values, objective=JUDGED, requests=requests, load=request.study.load.flags)
    kept = Calibration(workspace.cache, hardware=measured["hardware"]["fingerprint"])
    kept.keep_noise(floor, engine=one["engine"], model=one["facts"]["name"])
    listener(Event(kind="note", data={"key": "measure.checking_client", "values": {}}))
    clients = [
        await check_client(guardian=Guardian.shared(), streams=streams, requests_each=REQUESTS_EACH, timing=TIMING)
        for streams in STREAMS
    ]
    kept.keep_client({client.streams: client.ttft_error_p99_ms for client in clients})
    return _result(request, measured, floor, clients, str(kept.path))


def _result(
    request: CalibrateRequest,
    measured: dict[str, Any],
    floor: NoiseFloor,
    clients: list[ClientAccuracy],
    path: str,
) -> dict[str, Any]:
    margin = request.study.speed_margin
    one = measured["sides"][0]
    values = [launch["figures"][JUDGED] for launch in one["launches"]]
    return {
        "study": measured["study"],
        "engine": one["engine"],
        "model": one["facts"]["name"],
        "hardware": measured["hardware"]["fingerprint"],
        "path": path,
        "noise": {**asdict(floor), "interval": list(floor.bounds)},
        "launches": values,
        "pair_ratios": [a / b for a, b in zip(values[::2], values[1::2], strict=True)],
        "resolves": {str(pairs): floor.resolves(pairs) for pairs in (4, 8, 16)},
        "margin": margin,
        "pairs_for_margin": floor.pairs_for(margin) if margin > 0 else None,
        "warnings": one["warnings"],
        "clients": [asdict(client) for client in clients],
    }
