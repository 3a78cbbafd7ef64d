"""How far our own client is from the truth here: it measures the fake engine, which stamps its own writes.

Both clocks are the system's monotonic one, so every event has a known error: when it came to us, less when it was sent.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import llmopt
from llmopt.measure.client import Client
from llmopt.measure.load import drive
from llmopt.measure.stats.intervals import quantile
from llmopt.records import Endpoint, InferenceParams, Load, Request, Sample
from llmopt.runtime.guardian import Guardian
from llmopt.runtime.http import HttpError, connect

__all__ = ["ClientAccuracy", "accuracy_of", "check_client"]

MS = 1e3
READY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class ClientAccuracy:
    """Errors of our figures against the server's own stamps; milliseconds, p50 and p99 over requests or gaps."""

    streams: int
    requests: int
    events: int
    ttft_error_p50_ms: float
    ttft_error_p99_ms: float
    itl_error_p50_ms: float
    itl_error_p99_ms: float
    cpu_s_per_1000_events: float


async def check_client(
    *,
    guardian: Guardian,
    streams: int = 16,
    requests_each: int = 4,
    processes: int = 1,
    timing: Mapping[str, float] | None = None,
) -> ClientAccuracy:
    """Measure the fake engine's fast mode with ``streams`` at once; raises EngineError where it does not start."""
    with tempfile.TemporaryDirectory(prefix="llmopt-") as name:
        folder = Path(name)
        stamps = folder / "stamps"
        argv = _fake_engine(folder, stamps, processes, timing)
        child = await asyncio.to_thread(
            guardian.spawn, argv, env={}, log_path=folder / "log", cwd=folder, sockets=[folder / "s"]
        )
        endpoint = Endpoint(model="fake", socket_path=str(folder / "s"))
        try:
            await _until_ready(endpoint)
            async with Client(endpoint, timeout_s=120.0) as client:
                began_cpu_s = time.process_time()
                run = await drive(client, _requests(streams * requests_each), Load(streams=streams))
                cpu_s = time.process_time() - began_cpu_s
        finally:
            await asyncio.to_thread(child.stop, 10.0)
        return accuracy_of(run.samples, list(_stamps(stamps, processes)), streams=streams, cpu_s=cpu_s)


def accuracy_of(
    samples: Sequence[Sample], stamps: Sequence[Mapping[str, object]], *, streams: int, cpu_s: float = 0.0
) -> ClientAccuracy:
    """Compare samples with the fake engine's stamp lines (``key`` is the item's id). Errors are absolute values.

    TTFT: ours against first write less receipt. ITL: our gaps against the gaps between writes.
    """
    truth = {str(line["key"]): line for line in stamps}
    first: list[float] = []
    gaps: list[float] = []
    events = 0
    for sample in samples:
        line = truth.get(sample.item_id)
        if line is None or not sample.token_s:
            continue
        written_s = [ns * 1e-9 for ns in _numbers(line["written_ns"])]
        received_s = _numbers([line["received_ns"]])[0] * 1e-9
        first.append(abs((sample.token_s[0] - sample.sent_s) - (written_s[0] - received_s)) * MS)
        errors = [seen - sent for seen, sent in zip(sample.token_s, written_s, strict=True)]
        gaps.extend(abs(after - before) * MS for before, after in itertools.pairwise(errors))
        events += len(errors)
    if not first or not gaps:
        raise ValueError("no sample meets a stamp")
    first.sort()
    gaps.sort()
    return ClientAccuracy(
        streams=streams,
        requests=len(first),
        events=events,
        ttft_error_p50_ms=quantile(first, 0.5),
        ttft_error_p99_ms=quantile(first, 0.99),
        itl_error_p50_ms=quantile(gaps, 0.5),
        itl_error_p99_ms=quantile(gaps, 0.99),
        cpu_s_per_1000_events=cpu_s / events * 1000,
    )


def _fake_engine(folder: Path, stamps: Path, processes: int, timing: Mapping[str, float] | None) -> list[str]:
    script = Path(llmopt.__file__).parent / "workers" / "fake_engine.py"
    argv = [sys.executable, str(script), "--mode", "fast", "--uds", str(folder / "s")]
    argv += ["--processes", str(processes), "--stamps", str(stamps)]
    if timing is not None:
        scenario = folder / "scenario.json"
        scenario.write_text(json.dumps({"timing": dict(timing)}), encoding="utf-8")
        argv += ["--scenario", str(scenario)]
    return argv


def _requests(count: int) -> list[Request]:
    ask = [{"role": "user", "content": "?"}]
    params = InferenceParams(max_tokens=64)
    return [Request(item_id=f"r{k}", messages=ask, params=params, extra={"user": f"r{k}"}) for k in range(count)]


async def _until_ready(endpoint: Endpoint) -> None:
    deadline_s = time.monotonic() + READY_S
    while True:
        try:
            (await connect(endpoint)).close()
        except HttpError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.05)
        else:
            return


def _stamps(path: Path, processes: int) -> Iterator[Mapping[str, object]]:
    for number in range(processes):
        part = path if number == 0 else path.with_name(f"{path.name}.{number}")
        if part.exists():
            yield from (json.loads(line) for line in part.read_text(encoding="utf-8").splitlines())


def _numbers(value: object) -> list[int]:
    return [number for number in value if isinstance(number, int)] if isinstance(value, list) else []
