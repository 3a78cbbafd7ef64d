"""The real embedded llama.cpp: what is planned is what runs, it answers, keeps its key, and stops at once."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmopt.engines.base import RunFolder
from llmopt.engines.llamacpp import LlamaCpp
from llmopt.engines.probing import worker
from llmopt.engines.sizing import active_names
from llmopt.hardware.probe import probe
from llmopt.records import Endpoint, LaunchPlan, Load, ModelInfo, Settings, Task

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")

DEADLINE_S = 120.0
KEY = "k3y"
ENGINE = LlamaCpp()
TASK = Task(load=Load(streams=2), max_tokens=32, prompt_tokens=200)
QUESTION = [{"role": "user", "content": "Name three colours."}]


class Server:
    """A planned engine, started without the guardian."""

    def __init__(self, plan: LaunchPlan, log: Path) -> None:
        self.plan = plan
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                plan.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env={"PATH": "", **plan.env}
            )
        assert self.process.stdin is not None
        self.process.stdin.write((plan.stdin or "").encode())
        self.process.stdin.close()
        self.log = log

    def event(self, name: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told: dict[str, Any] = json.loads(line)
            if told["event"] == name:
                return told
        raise AssertionError(self.log.read_text())

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("engine", timeout=DEADLINE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(DEADLINE_S)
        connection.sock.connect(self.plan.endpoint.socket_path)
        with contextlib.closing(connection):
            yield connection

    def ask(self, path: str, body: Any = None, *, key: str = KEY, **headers: str) -> tuple[int, Any]:
        with self.connection() as connection:
            data = None if body is None else json.dumps(body).encode()
            connection.request(
                "GET" if body is None else "POST", path, data, {"Authorization": f"Bearer {key}", **headers}
            )
            response = connection.getresponse()
            self.headers = dict(response.getheaders())
            text = response.read().decode()
        return response.status, json.loads(text) if text.startswith(("{", "[")) else text

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def model(demo_model: Path) -> ModelInfo:
    return ModelInfo(
        name="SmolLM2 135M",
        path=str(demo_model),
        format="gguf",
        layers=30,
        kv_heads=3,
        head_dim=64,
        context_length=8192,
        weight_bytes=demo_model.stat().st_size,
    )


@pytest.fixture
def start(tmp_path_factory, model: ModelInfo) -> Iterator[Any]:
    running: list[Server] = []

    def starter(settings: Settings, *, ready: bool = True, one: ModelInfo = model) -> Server:
        folder = tmp_path_factory.mktemp("e")
        endpoint = Endpoint(model="", socket_path=str(folder / "e.sock"), api_key=KEY)
        server = Server(ENGINE.plan(one, settings, RunFolder(folder=folder, endpoint=endpoint)), folder / "e.log")
        running.append(server)
        if ready:
            server.event("ready")
        return server

    yield starter
    for server in running:
        server.process.kill()
        server.process.wait(DEADLINE_S)
        assert server.process.stdout is not None
        server.process.stdout.close()


def complete(server: Server, **more: Any) -> dict[str, Any]:
    body = {
        "messages": QUESTION,
        "max_tokens": 16,
        "temperature": 0,
        **ENGINE.request_extra(server.plan.settings),
        **more,
    }
    status, answer = server.ask("/v1/chat/completions", body)
    assert status == 200, answer
    return answer


def test_baseline_runs_as_planned_and_stops_at_once(start, model):
    server = start(ENGINE.baseline(model, probe(), TASK))
    settings = server.plan.settings
    status, slots = server.ask("/slots")
    assert status == 200
    assert len(slots) == settings["slots"] == 4
    assert {slot["n_ctx"] for slot in slots} == {settings["context"]}, "a unified cache is open to every slot"
    status, models = server.ask("/v1/models")
    assert models["data"][0]["id"] == server.plan.endpoint.model == "SmolLM2-135M"
    assert server.ask("/slots", key="wrong")[0] == 401
    server.ask("/health", Origin="https://elsewhere.example")
    assert not any("elsewhere" in value or value == "*" for value in server.headers.values())
    metrics = server.ask("/metrics")[1]
    assert all(f"\n{name} " in metrics for name in ENGINE.metric_names.values())
    first, second = complete(server), complete(server)
    assert first["choices"][0]["message"]["content"] == second["choices"][0]["message"]["content"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, "a repeat may not profit from the first"
    socket_path = Path(server.plan.endpoint.socket_path)
    reading = threading.Thread(target=swallow, args=(server,))
    reading.start()
    while "requests_processing 1" not in server.ask("/metrics")[1]:
        assert reading.is_alive()
    began_s = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began_s < 10, "an open stream may not hold the engine"
    reading.join(DEADLINE_S)
    assert not socket_path.exists()


def test_slots_that_remember_are_made_to_forget(start, model):
    warm = ENGINE.baseline(model, probe(), replace(TASK, prefix_cache=True))
    server = start(warm)

    def cached(slot: int) -> int:
        return int(complete(server, id_slot=slot)["usage"]["prompt_tokens_details"]["cached_tokens"])

    slots = range(int(warm["slots"]))
    unknown = [cached(slot) for slot in slots]
    known = [cached(slot) for slot in slots]
    assert min(known) > max(unknown) + 5, "the cache works, or there would be nothing to forget"
    forgetting = ENGINE.forget(warm, 1)
    assert forgetting is not None
    for path, body in forgetting.calls:
        assert server.ask(path, body)[0] == 200
    assert [cached(slot) for slot in slots] == unknown


def swallow(server: Server) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException), server.connection() as connection:
        body = {"messages": QUESTION, "max_tokens": 3000, "ignore_eos": True, "stream": True}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {KEY}"})
        connection.getresponse().read()


def test_every_speed_setting_at_once(start, model):
    """Quantised cache, drafting, separate slots, small batches and a passive wait run together and answer."""
    wish = dict(ENGINE.preset(model, probe(), TASK, None))
    wish |= {"slots": 2, "context": 1024, "batch": 256, "ubatch": 64, "cache_type_k": "q8_0", "cache_type_v": "q4_0"}
    wish |= {"speculation": "ngram-simple", "spec_lookup": 4, "spec_draft": 8, "threads": 1, "threads_batch": 2}
    if "wait_policy" in wish:
        wish["wait_policy"] = "passive"
    assert ENGINE.conflict(wish, model, probe(), TASK) is None
    server = start(wish)
    told = server.ask("/slots")[1]
    assert [slot["n_ctx"] for slot in told] == [512, 512]
    assert complete(server)["usage"]["completion_tokens"] > 0
    assert server.stop() == 0


def test_missing_weights_end_the_start_with_the_reason(start, model, tmp_path):
    server = start(
        ENGINE.baseline(model, probe(), TASK), ready=False, one=replace(model, path=str(tmp_path / "absent.gguf"))
    )
    assert server.process.wait(DEADLINE_S) == 1
    assert "absent.gguf" in server.log.read_text()


def test_every_legal_setting_is_understood_by_this_build(model):
    """The worker reads a plan's options and the wheel takes each value, without loading anything."""
    spec = importlib.util.spec_from_file_location("llamacpp_server_real", worker("llamacpp_server.py"))
    assert spec is not None
    assert spec.loader is not None
    server = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = server
    spec.loader.exec_module(server)
    task = replace(TASK, prefix_cache=True)
    parameters = ENGINE.parameters(model, probe(), task)
    draw = random.Random(1)
    endpoint = Endpoint(model="", socket_path="/r/e.sock")
    for _ in range(60):
        wish = {parameter.name: draw.choice(parameter.values) for parameter in parameters}
        settings = {name: wish[name] for name in active_names(parameters, wish)}
        argv = ENGINE.plan(model, settings, RunFolder(folder=Path("/r"), endpoint=endpoint)).argv
        params = server.build_params(server.resolve(server.parse(argv[2:])))
        assert params.n_parallel == settings["slots"]
        assert params.n_ctx == settings["context"]
        assert params.cpuparams.n_threads == settings["threads"]
        assert params.cache_type_k.name == f"GGML_TYPE_{settings['cache_type_k'].upper()}"
        assert params.kv_unified == settings["kv_unified"]
        assert params.fit_params is False
        assert params.cors_origins == "localhost"
        drafter = params.speculative.types[0].name.removeprefix("COMMON_SPECULATIVE_TYPE_").lower().replace("_", "-")
        assert drafter == {"off": "none"}.get(settings["speculation"], settings["speculation"])
