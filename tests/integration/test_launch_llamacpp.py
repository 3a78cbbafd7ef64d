"""The embedded llama.cpp, launched for real with the smallest model."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from llmopt.engines.launch import Phase, launch
from llmopt.engines.registry import get_engine
from llmopt.errors import EngineDied, EngineStartError
from llmopt.hardware.probe import probe
from llmopt.measure.client import Client
from llmopt.measure.judging import judge_for
from llmopt.models.metadata import read_model
from llmopt.paths import Workspace
from llmopt.records import InferenceParams, Load, ModelInfo, Sample, Settings, Task
from llmopt.runtime.guardian import Guardian
from llmopt.runtime.http import request
from llmopt.search.workload import Workload, request_for
from llmopt.workload.datasets import load_dataset

TASK = Task(load=Load(streams=2), prompt_tokens=128, max_tokens=32)


@pytest.fixture(scope="module")
def model(demo_model: Path) -> ModelInfo:
    return read_model(demo_model, "smollm2-135m")


@pytest.fixture(scope="module")
def settings(model: ModelInfo) -> Settings:
    return {**get_engine("llamacpp").preset(model, probe(), TASK, None), "threads": 1}


@pytest.fixture(scope="module")
def guardian(tmp_path_factory: pytest.TempPathFactory):
    with Guardian(tmp_path_factory.mktemp("guard")) as guardian:
        yield guardian


async def test_it_answers_and_goes(model: ModelInfo, settings: Settings, guardian: Guardian, tmp_path: Path) -> None:
    phases: list[Phase] = []
    engine = get_engine("llamacpp")
    async with launch(engine, model, settings, guardian=guardian, run_root=tmp_path, on_phase=phases.append) as running:
        pids = running.pids()
        assert running.endpoint.socket_path
        body = {"model": running.endpoint.model, "prompt": "1, 2, 3,", "max_tokens": 4, "temperature": 0}
        answer = await request(running.endpoint, "POST", "/v1/completions", body=body, timeout_s=120)
        assert answer.status == 200
        assert answer.json()["choices"][0]["text"]
        key = running.endpoint.api_key
        assert key
        assert not [c for pid in pids for c in psutil.Process(pid).net_connections("inet") if c.status == "LISTEN"]
        visible = [" ".join([*psutil.Process(pid).cmdline(), *psutil.Process(pid).environ().values()]) for pid in pids]
        assert not [text for text in visible if key in text]
    assert phases == list(Phase)
    assert running.stop_report is not None
    assert running.stop_report.survivors == ()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert key not in running.log_path.read_text(errors="replace")


async def test_a_file_that_is_no_model_is_explained(
    model: ModelInfo, settings: Settings, guardian: Guardian, tmp_path: Path
) -> None:
    from dataclasses import replace

    broken = tmp_path / "broken.gguf"
    await asyncio.to_thread(broken.write_bytes, b"GGUF" + os.urandom(4096))
    with pytest.raises(EngineStartError) as caught:
        async with launch(
            get_engine("llamacpp"), replace(model, path=str(broken)), settings, guardian=guardian, run_root=tmp_path
        ):
            pass
    assert caught.value.key == "launch.exited_code"
    assert "llamacpp_server.py" in caught.value.detail
    assert "broken.gguf" in caught.value.detail


@pytest.mark.parametrize("moment", [Phase.LOADING, Phase.HEALTHY])
async def test_it_can_be_cancelled_at_any_moment(
    moment: Phase, model: ModelInfo, settings: Settings, guardian: Guardian, tmp_path: Path
) -> None:
    reached = asyncio.Event()

    async def use() -> None:
        def on_phase(phase: Phase) -> None:
            if phase is moment:
                reached.set()

        async with launch(
            get_engine("llamacpp"), model, settings, guardian=guardian, run_root=tmp_path, on_phase=on_phase
        ):
            await asyncio.sleep(600)

    task = asyncio.ensure_future(use())
    await asyncio.wait_for(reached.wait(), 120)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert psutil.Process(guardian.pids[1]).children(recursive=True) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
async def test_its_death_in_use_is_noticed(
    model: ModelInfo, settings: Settings, guardian: Guardian, tmp_path: Path
) -> None:
    async def use() -> None:
        async with launch(get_engine("llamacpp"), model, settings, guardian=guardian, run_root=tmp_path) as running:
            os.kill(running.pids()[0], signal.SIGSEGV)
            await asyncio.wait_for(running.ended(), 30)
            running.check()

    with pytest.raises(EngineDied) as caught:
        await use()
    assert caught.value.key == "launch.died_signal"
    assert caught.value.values["signal"] == signal.SIGSEGV


async def test_without_gold_answers_its_greedy_answers_are_what_it_is_judged_by(
    model: ModelInfo, settings: Settings, guardian: Guardian, tmp_path: Path
) -> None:
    rows = [{"question": f"Say something about the number {n}."} for n in range(6)]
    dataset = load_dataset(rows, workspace=Workspace(root=tmp_path))
    judge = judge_for(dataset)
    assert judge.measure == "agreement"
    work = Workload(
        dataset=dataset, load=Load(streams=1), max_tokens=12, seed=0, request_timeout_s=300, warmup_items=(), judge=judge
    )  # fmt: skip
    launched = launch(get_engine("llamacpp"), model, settings, guardian=guardian, run_root=tmp_path)
    async with launched as running, Client(running.endpoint) as client:

        async def asked(temperature: float) -> list[Sample]:
            params = InferenceParams(temperature=temperature)
            return [await client.send(request_for(item, params, work)) for item in dataset.items]

        reference, again, warm = await asked(0.0), await asked(0.0), await asked(1.5)
    judge = judge.with_reference({sample.item_id: sample for sample in reference})
    items = {item.id: item for item in dataset.items}
    values = [[score.value for score in judge.scores(items, samples)] for samples in (reference, again, warm)]
    assert values[0] == [1.0] * 6
    assert sum(values[1]) > 5.5, "asked again without chance it says the same"
    assert sum(values[2]) < sum(values[1])
