"""Serving a result: started as measured, looked after, started again, and gone; and its printed command, copied."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from llmopt.config.settings import load_settings
from llmopt.engines.base import RunFolder
from llmopt.engines.registry import get_engine
from llmopt.errors import DataError, EngineError, UsageError
from llmopt.hardware.probe import probe
from llmopt.messages import t
from llmopt.models.catalogue import find_model
from llmopt.models.metadata import read_model
from llmopt.paths import Workspace
from llmopt.records import Endpoint, Load, Task
from llmopt.runtime.http import HttpError, request
from llmopt.study.events import silent
from llmopt.study.result import _with as with_environment
from llmopt.study.serving import Restarts, ServeRequest, prepare_serving, serve

TASK = Task(load=Load(streams=2), max_tokens=16, prompt_tokens=64)
PATIENCE_S = 120


def free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return probing.getsockname()[1]


@pytest.fixture
def workspace(tmp_path):
    """A workspace with one result of the scripted engine."""
    workspace = Workspace(root=tmp_path)
    engine = get_engine("fake")
    model = find_model("smollm2-135m", workspace).facts
    launch = engine.preset(model, probe(), TASK, None)
    configuration = {"engine": "fake", "launch": dict(launch), "request": {"temperature": 0.0, "max_tokens": 9}}
    result = {
        "schema_version": 1,
        "study": "won",
        "best": {"configuration": configuration},
        "request": {"model": "smollm2-135m"},
        "versions": {"fake": "0.0"},
        "hardware": {"fingerprint": "elsewhere"},
        "task": {"load": {"streams": 2}, "max_tokens": 16, "prompt_tokens": 64},
    }
    folder = workspace.results / "won"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return workspace


def read_key(path: str) -> str:
    """The key, from a file that nobody else may read."""
    assert Path(path).stat().st_mode & 0o077 == 0
    return Path(path).read_text().strip()


def exists(path: str) -> bool:
    return Path(path).exists()


def start(line: str, folder: Path) -> subprocess.Popen[bytes]:
    """As a shell would run it."""
    return subprocess.Popen(["/bin/sh", "-c", f"exec {line}"], cwd=folder, stdout=sys.stderr)


class Heard:
    """What serving said, and the wait for more of it."""

    def __init__(self) -> None:
        self.events = []
        self.news = asyncio.Event()

    def __call__(self, event) -> None:
        self.events.append(event)
        self.news.set()

    def of(self, kind):
        return [event.data for event in self.events if event.kind == kind]

    def notes(self):
        return [data["key"] for data in self.of("note")]

    async def until(self, condition) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.news.clear()
                await self.news.wait()


def prepared(workspace, asked):
    return prepare_serving(asked, workspace, load_settings(workspace), silent)


async def test_it_answers_with_its_key_is_started_again_when_it_dies_and_leaves_nothing(workspace):
    asked = ServeRequest(result="won", port=free_port(), restarts=1)
    heard = Heard()
    served = prepared(workspace, asked)
    task = asyncio.create_task(serve(served, asked, workspace=workspace, listener=heard, health_s=0.2))
    await heard.until(lambda: heard.of("serving"))
    (ready,) = heard.of("serving")
    assert ready["url"] == f"http://127.0.0.1:{asked.port}/v1"
    assert ready["request"] == {"temperature": 0.0}
    assert {"serve.other_version", "serve.other_machine"} <= set(heard.notes())
    endpoint = Endpoint(model=ready["model"], port=asked.port, api_key=read_key(ready["key_file"]))
    answer = await request(endpoint, "GET", "/v1/models", timeout_s=PATIENCE_S)
    assert answer.status == 200
    with pytest.raises(HttpError, match="401"):
        await request(replace(endpoint, api_key="wrong"), "GET", "/v1/models", timeout_s=PATIENCE_S)

    for pid in ready["pids"]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await heard.until(lambda: len(heard.of("serving")) == 2)
    assert "serve.restart" in heard.notes()
    assert (await request(endpoint, "GET", "/v1/models", timeout_s=PATIENCE_S)).status == 200

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    second = heard.of("serving")[1]
    assert not [pid for pid in second["pids"] if psutil.pid_exists(pid)]
    assert not exists(ready["key_file"])
    assert heard.notes().count("serve.released") == 2
    with pytest.raises(HttpError):
        await request(endpoint, "GET", "/v1/models", timeout_s=PATIENCE_S)


async def test_it_is_given_up_after_as_many_restarts_as_allowed(workspace):
    asked = ServeRequest(result="won", port=free_port(), restarts=0)
    heard = Heard()
    task = asyncio.create_task(serve(prepared(workspace, asked), asked, workspace=workspace, listener=heard))
    await heard.until(lambda: heard.of("serving"))
    for pid in heard.of("serving")[0]["pids"]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineError):
        await asyncio.wait_for(task, PATIENCE_S)


async def test_a_taken_port_is_said_so_at_once(workspace):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        asked = ServeRequest(result="won", port=other.getsockname()[1])
        with pytest.raises(EngineError) as refused:
            await serve(prepared(workspace, asked), asked, workspace=workspace)
    assert str(asked.port) in str(refused.value)


async def test_a_key_of_ones_own_is_used_and_kept(workspace, tmp_path):
    own = tmp_path / "own.key"
    own.write_text("mine-and-only-mine\n")
    asked = ServeRequest(result=str(workspace.results / "won"), port=free_port(), key_file=own)
    heard = Heard()
    task = asyncio.create_task(serve(prepared(workspace, asked), asked, workspace=workspace, listener=heard))
    await heard.until(lambda: heard.of("serving"))
    endpoint = Endpoint(model=heard.of("serving")[0]["model"], port=asked.port, api_key="mine-and-only-mine")
    assert (await request(endpoint, "GET", "/v1/models", timeout_s=PATIENCE_S)).status == 200
    assert "mine-and-only-mine" not in json.dumps([event.data for event in heard.events])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert own.exists()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"result": "won", "host": "0.0.0.0"}, UsageError),
        ({"result": "won", "port": 0}, UsageError),
        ({"result": "won", "restarts": -1}, UsageError),
        ({"result": "never-ran"}, DataError),
        ({"result": "nowhere/result.json"}, DataError),
    ],
)
def test_what_cannot_be_served_is_refused_in_both_languages(workspace, asked, error):
    with pytest.raises(error) as refused:
        prepared(workspace, ServeRequest(**asked))
    for lang in ("ko", "en"):
        assert t(refused.value.key, lang=lang, **refused.value.values)
    assert refused.value.next_step


def test_restarts_are_counted_within_their_window_with_growing_pauses():
    restarts = Restarts(most=3, window_s=100)
    assert [restarts.pause_s(at) for at in (0, 1, 2, 3)] == [1.0, 2.0, 4.0, None]
    assert restarts.pause_s(101) == 4.0  # the first one is forgotten


@pytest.mark.parametrize("name", ["llamacpp", "llama-server"])
async def test_the_printed_command_of_llama_cpp_works_when_copied(name, demo_model, tmp_path):
    model = read_model(demo_model, "smollm2-135m")
    engine = get_engine(name)
    if not engine.installation().available:
        pytest.skip(f"no {name} on PATH")
    settings = {**engine.preset(model, probe(), TASK, None), "threads": 1}
    plan = engine.plan(model, settings, RunFolder(folder=tmp_path, endpoint=Endpoint(model=model.name, port=1)))
    port = free_port()
    line = shlex.join(plan.command_here).replace("--port 8080", f"--port {port}")
    process = start(line, tmp_path)
    try:
        endpoint = Endpoint(model=plan.endpoint.model, port=port)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                assert process.poll() is None
                with suppress(HttpError):
                    if (await request(endpoint, "GET", "/health", timeout_s=PATIENCE_S)).status == 200:
                        break
                await asyncio.sleep(0.1)
        body = {"model": endpoint.model, "prompt": "1, 2, 3,", "max_tokens": 4, "temperature": 0}
        answer = await request(endpoint, "POST", "/v1/completions", body=body, timeout_s=PATIENCE_S)
        assert answer.json()["choices"][0]["text"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def test_a_printed_command_carries_its_environment():
    assert with_environment({}, ("env", "A=1", "x")) == ("env", "A=1", "x")
    assert with_environment({"HF_HOME": "/m"}, ("x", "-y")) == ("env", "HF_HOME=/m", "x", "-y")
    assert with_environment({"A": "0"}, ("env", "A=1", "x")) == ("env", "A=0", "A=1", "x")  # the last one counts
