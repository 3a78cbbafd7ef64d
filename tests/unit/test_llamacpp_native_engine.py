"""A native llama-server in place of the wheel: found by setting, asked for version and options, spoken to in its words."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.engines import llamacpp, llamacpp_defaults, llamacpp_native
from llmopt.engines.base import RunFolder
from llmopt.engines.llamacpp import LlamaCpp
from llmopt.engines.llamacpp_native import REQUIRED, NativeServer, native_server
from llmopt.models.memory_fit import memory_fit
from llmopt.records import Cpu, Device, DeviceType, Endpoint, Hardware, HostMemory, Load, ModelInfo, Task

OLD_NAMES = ("--model", "--alias", "--threads", "--threads-batch", "--parallel", "--ctx-size", "--batch-size")
SCRIPT = """#!{python}
import sys
if "--version" in sys.argv: print("version: 7777 (abc1234)\\nbuilt with cc for x86_64", file=sys.stderr)
elif "--list-devices" in sys.argv: print("Available devices:\\n  CUDA0: A GPU (24 MiB, 23 MiB free)\\n  CUDA1: A GPU (24 MiB, 23 MiB free)")
else: print({help!r})
"""
TASK = Task(load=Load(streams=2), max_tokens=64, prompt_tokens=100)
MODEL = ModelInfo(name="m", path="/w/m.gguf", format="gguf", layers=8, kv_heads=2, head_dim=64, context_length=4096)
RUN = RunFolder(folder=Path("/r"), endpoint=Endpoint(model="", socket_path="/r/e.sock", api_key="k"))


def machine(gpus: int = 0) -> Hardware:
    devices = tuple(
        Device(
            index=i,
            uuid=str(i),
            vendor="nvidia",
            kind=DeviceType.CUDA,
            name="GPU",
            total_bytes=1 << 34,
            free_bytes=1 << 34,
        )
        for i in range(gpus)
    )
    cpu = Cpu(model="c", architecture="x86_64", physical_cores=2, logical_cores=2, usable_cores=2)
    return Hardware(cpu=cpu, memory=HostMemory(total_bytes=1 << 34, available_bytes=1 << 34), devices=devices)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Installs a llama-server whose help names the given options, and configures it."""

    def install(*names: str, configure: bool = True) -> str:
        path = tmp_path / "bin" / "llama-server"
        path.parent.mkdir()
        path.write_text(SCRIPT.format(python=sys.executable, help="\n".join(names)), encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setenv("LLMOPT_HOME", str(tmp_path))
        monkeypatch.setenv("PATH", str(path.parent))
        if configure:
            monkeypatch.setenv("LLMOPT_LLAMA_SERVER_COMMAND", str(path))
        return str(path)

    return install


def test_configured_server_takes_the_place_of_the_wheel(server):
    path = server(*OLD_NAMES, *REQUIRED)
    here = LlamaCpp().installation()
    assert (here.available, here.version, here.build, here.command) == (True, "b7777", "native", (path,))
    plan = LlamaCpp().plan(MODEL, LlamaCpp().baseline(MODEL, machine(), TASK), RUN)
    assert plan.argv[0] == path
    assert plan.stdin == "k\n"


def test_server_on_path_is_used_only_without_the_wheel(server, monkeypatch):
    server(*OLD_NAMES, *REQUIRED, configure=False)
    assert LlamaCpp().installation().build == "embedded"
    monkeypatch.setattr(llamacpp, "_wheel_version", lambda: None)
    assert LlamaCpp().installation().build == "native"


def test_too_old_a_server_is_refused_with_the_reason(server):
    server(*OLD_NAMES)
    here = LlamaCpp().installation()
    assert not here.available
    assert here.why_not == "engines.llama_server_old"


def test_silent_server_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOPT_HOME", str(tmp_path))
    monkeypatch.setenv("LLMOPT_LLAMA_SERVER_COMMAND", str(tmp_path / "absent"))
    assert native_server(only_if_configured=True) is None


def test_options_go_under_the_names_this_version_has():
    old = NativeServer(path="x", version="b1", options=frozenset({"--threads", "--no-webui", "--metrics"}))
    argv = ("--model", "m", "--threads", "2", "--poll", "50", "--no-ui", "--metrics", "--offline", "--host", "h")
    assert old.accepted(argv) == ("--model", "m", "--threads", "2", "--no-webui", "--metrics", "--host", "h")


def test_every_valueless_option_of_a_plan_is_known_as_such():
    plan = LlamaCpp().plan(MODEL, LlamaCpp().baseline(MODEL, machine(), TASK), RUN)
    options = plan.argv[2:]
    everything = NativeServer(path="x", version="b1", options=frozenset(p for p in options if p.startswith("--")))
    assert everything.accepted(options) == options


def test_gpu_settings_come_from_what_the_build_lists(server):
    server(*OLD_NAMES, *REQUIRED)
    assert llamacpp_defaults.offload_devices(machine(2)) == 2
    assert llamacpp_defaults.offload_devices(machine(1)) == 1
    assert llamacpp_defaults.offload_devices(machine(0)) == 0
    experts = ModelInfo(name="m", path="/w/m.gguf", format="gguf", layers=8, experts=16, context_length=4096)
    offered = {p.name: p.values for p in LlamaCpp().parameters(experts, machine(2), TASK)}
    assert offered["gpu_layers"] == (0, 4, 9)
    assert offered["split_mode"] == ("layer", "row", "none")
    assert offered["cpu_expert_layers"] == (0, 4, 8)
    one = {p.name for p in LlamaCpp().parameters(MODEL, machine(1), TASK)}
    assert "gpu_layers" in one
    assert not {"split_mode", "cpu_expert_layers"} & one
    baseline = LlamaCpp().baseline(experts, machine(2), TASK)
    assert (baseline["gpu_layers"], baseline["split_mode"], baseline["cpu_expert_layers"]) == (9, "layer", 0)
    assert baseline["tensor_split"] == "1,1"


def test_unequal_gpus_share_by_memory_or_evenly_and_the_fit_sees_it(server):
    server(*OLD_NAMES, *REQUIRED, "--tensor-split")
    two = machine(2)
    large = replace(two.devices[0], total_bytes=24 << 30, free_bytes=24 << 30)
    small = replace(two.devices[1], total_bytes=8 << 30, free_bytes=8 << 30)
    roomy = HostMemory(total_bytes=64 << 30, available_bytes=64 << 30)
    mixed = replace(two, devices=(large, small), memory=roomy)
    offered = {p.name: p for p in LlamaCpp().parameters(MODEL, mixed, TASK)}["tensor_split"]
    assert offered.values == ("3,1", "1,1")
    assert offered.only_if == {"split_mode": ("layer", "row")}
    baseline = LlamaCpp().baseline(MODEL, mixed, TASK)
    assert baseline["tensor_split"] == "3,1", "what llama.cpp does by itself"
    argv = LlamaCpp().plan(MODEL, baseline, RUN).command
    assert argv[argv.index("--tensor-split") + 1] == "3,1"
    model = replace(MODEL, weight_bytes=20 << 30, layers=8, hidden_size=64, vocabulary=100, kv_heads=1, head_dim=8)
    splits = {split: {**baseline, "context": 512, "tensor_split": split} for split in offered.values}
    assert memory_fit("llamacpp", model, splits["3,1"], mixed, TASK).fits is True
    assert memory_fit("llamacpp", model, splits["1,1"], mixed, TASK).fits is False
    alone = {**baseline, "context": 512, "split_mode": "none"}
    del alone["tensor_split"]
    assert memory_fit("llamacpp", model, alone, mixed, TASK).available_bytes == 24 << 30


def test_command_of_the_setting_is_read_once_a_question(server, monkeypatch):
    server(*OLD_NAMES, *REQUIRED)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(llamacpp_native, "ask", lambda *argv: asked.append(argv))
    assert native_server(only_if_configured=True) is None
    assert [argv[1] for argv in asked] == ["--version", "--help"]
