"""What happens to a load when the engine is killed, or stands still, while it runs: a real process, real signals."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import llmopt
from llmopt.measure.client import Client
from llmopt.measure.load import drive
from llmopt.measure.metrics import speed
from llmopt.measure.validity import certify
from llmopt.records import Endpoint, InferenceParams, Load, Request
from llmopt.runtime.http import HttpError, connect

FAKE_ENGINE = Path(llmopt.__file__).parent / "workers" / "fake_engine.py"
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")


def ask(number):
    return Request(
        item_id=f"q{number}", messages=[{"role": "user", "content": "?"}], params=InferenceParams(max_tokens=8)
    )


@contextlib.asynccontextmanager
async def engine(tmp_path, **timing):
    """A fake engine that keeps exact times, and its endpoint."""
    socket_path = tmp_path / "s"
    scenario = tmp_path / "scenario.json"
    scenario.write_text(json.dumps({"timing": timing}))
    argv = [sys.executable, str(FAKE_ENGINE), "--mode", "fast", "--uds", str(socket_path), "--scenario", str(scenario)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(argv, **quiet) as process:  # noqa: ASYNC220 - starting takes a moment, nothing else runs yet
        endpoint = Endpoint(model="fake", socket_path=str(socket_path))
        try:
            await ready(endpoint)
            yield process, endpoint
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()


async def ready(endpoint):
    deadline = time.monotonic() + 30
    while True:
        try:
            return (await connect(endpoint)).close()
        except HttpError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_an_engine_killed_in_mid_stream_ends_the_load_with_all_that_was_seen(tmp_path):
    async with engine(tmp_path, ttft_ms=20, itl_ms=10, tokens=20) as (process, endpoint):
        seen = []

        def kill_after_some(sample):
            seen.append(sample)
            if len(seen) == 6:
                process.kill()

        async with Client(endpoint, timeout_s=30) as client:
            run = await drive(client, map(ask, itertools.count()), Load(streams=4), on_sample=kill_after_some)
    assert run.gave_up == "refused"
    assert list(run.samples) == seen
    good = [sample for sample in run.samples if sample.ok]
    assert len(good) >= 6
    assert all(len(sample.token_s) == 20 for sample in good)
    assert {sample.error for sample in run.samples if not sample.ok} <= {"closed_early", "refused"}
    assert "measure.warn_endpoint_gone" in certify(run).warnings


async def test_a_server_that_stands_still_is_seen_by_all_requests_that_were_due(tmp_path):
    """Coordinated omission: a closed loop has one request per stream in the freeze, an open loop all that were planned."""
    frozen_s = 1.0
    async with engine(tmp_path, ttft_ms=5, itl_ms=1, tokens=4) as (process, endpoint):
        load = Load(streams=None, rate=50.0, arrival="constant")
        async with Client(endpoint, timeout_s=60) as client, asyncio.TaskGroup() as group:

            async def freeze():
                await asyncio.sleep(0.5)
                os.kill(process.pid, signal.SIGSTOP)
                await asyncio.sleep(frozen_s)
                os.kill(process.pid, signal.SIGCONT)

            group.create_task(freeze())
            run = await drive(client, map(ask, range(150)), load)
    waited = sorted(sample.token_s[0] - sample.planned_s for sample in run.samples)
    assert all(sample.ok for sample in run.samples)
    assert waited[-1] > 0.9 * frozen_s
    assert sum(wait > frozen_s / 2 for wait in waited) >= 0.8 * 50 * frozen_s / 2
    figures = speed(run)
    assert figures["ttft_plan_p95_ms"].value > 500 * frozen_s
