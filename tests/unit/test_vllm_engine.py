"""vLLM as a description: what its plain command means, what devices and version allow, its command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.engines import vllm, vllm_space
from llmopt.engines.base import Forgetting, RunFolder
from llmopt.engines.locate import Found
from llmopt.engines.options import options_of
from llmopt.engines.vllm import Vllm
from llmopt.records import Cpu, Device, DeviceType, Endpoint, Hardware, HostMemory, Load, ModelInfo, Strategy, Task

GIB = 1 << 30
ENGINE = Vllm()
TASK = Task(load=Load(streams=8), max_tokens=200, prompt_tokens=700)
MODEL = ModelInfo(
    name="qwen2.5-7b",
    path="/w/qwen",
    format="safetensors",
    parameters=7_600_000_000,
    weight_bytes=15 * GIB,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    context_length=32768,
)
SOCKET = RunFolder(folder=Path("/r"), endpoint=Endpoint(model="", socket_path="/r/e.sock", api_key="k"))


def machine(*gib: int, capability=(9, 0), kind=DeviceType.CUDA, name="H100", cores=8):
    devices = tuple(
        Device(
            index=i,
            uuid=f"GPU-{i}",
            vendor="nvidia" if kind is DeviceType.CUDA else "amd",
            kind=kind,
            name=name,
            total_bytes=size * GIB,
            free_bytes=size * GIB,
            compute_capability=capability if kind is DeviceType.CUDA else None,
        )
        for i, size in enumerate(gib)
    )
    cpu = Cpu(model="c", architecture="x86_64", physical_cores=cores, logical_cores=cores, usable_cores=cores)
    return Hardware(cpu=cpu, memory=HostMemory(total_bytes=64 * GIB, available_bytes=64 * GIB), devices=devices)


def values(hardware, model=MODEL, task=TASK):
    return {p.name: p.values for p in ENGINE.parameters(model, hardware, task)}


@pytest.mark.parametrize(
    ("hardware", "seqs", "tokens"),
    [
        (machine(24, name="RTX 4090", capability=(8, 9)), 256, 2048),
        (machine(80), 1024, 8192),
        (machine(80, name="NVIDIA A100-SXM4-80GB", capability=(8, 0)), 256, 2048),
        (machine(180, name="B200"), 1024, 16384),
        (machine(), 128, 2048),
    ],
)
def test_plain_command_takes_its_sizes_from_the_device(hardware, seqs, tokens):
    settings = ENGINE.baseline(MODEL, hardware, TASK)
    assert (settings["max_num_seqs"], settings["max_num_batched_tokens"]) == (seqs, tokens)
    assert settings["dtype"] == "auto"
    assert settings["enforce_eager"] is False


def test_plain_context_is_the_models_unless_one_request_would_not_fit():
    assert ENGINE.baseline(MODEL, machine(24), TASK)["max_model_len"] == 32768
    tight = ENGINE.baseline(MODEL, machine(17), TASK)
    assert TASK.context_tokens <= tight["max_model_len"] < 32768


def test_preset_follows_the_table():
    assert ENGINE.preset(MODEL, machine(8), TASK, None)["max_num_seqs"] == 1
    assert ENGINE.preset(MODEL, machine(16), TASK, None)["max_num_seqs"] == 2
    assert ENGINE.preset(MODEL, machine(24), TASK, None)["max_num_seqs"] == 4
    assert ENGINE.preset(MODEL, machine(24), TASK, Strategy.SPEED)["max_num_seqs"] == 8
    four = ENGINE.preset(MODEL, machine(24, 24, 24, 24), TASK, None)
    assert four["tensor_parallel"] == 4
    assert four["pipeline_parallel"] == 1


def test_tensor_parallel_sizes_respect_heads():
    assert values(machine(24, 24, 24))["tensor_parallel"] == (1, 2)
    assert values(machine(24, 24, 24), replace(MODEL, heads=27, kv_heads=3))["tensor_parallel"] == (1, 3)


@pytest.mark.parametrize(
    ("capability", "dtypes", "cache"),
    [((7, 5), ("auto",), None), ((8, 0), ("auto", "float16"), None), ((8, 9), ("auto", "float16"), ("auto", "fp8"))],
)
def test_compute_capability_excludes_what_the_device_lacks(capability, dtypes, cache):
    offered = values(machine(24, capability=capability))
    assert offered["dtype"] == dtypes
    assert offered.get("kv_cache_dtype") == cache


def test_quantised_checkpoints_are_not_quantised_again():
    assert "fp8" in values(machine(24))["quantization"]
    assert "quantization" not in values(machine(24), replace(MODEL, quantization="awq"))


def test_amd_gets_its_own_backends():
    offered = values(machine(64, kind=DeviceType.ROCM))
    assert offered["attention_backend"] == ("auto", "TRITON_ATTN")
    assert "kv_cache_dtype" not in offered


def test_cpu_has_its_own_settings_and_none_of_the_gpus():
    offered = values(machine())
    assert offered["threads"] == (1, 2, 4, 8)
    assert offered["core_binding"] == ("auto", "nobind")
    assert offered["block_size"] == (32, 64, 128)
    assert not {"gpu_memory_utilization", "tensor_parallel", "attention_backend", "quantization"} & offered.keys()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"max_model_len": 65536}, "length_over_model"),
        ({"max_model_len": 512}, "length_under_task"),
        ({"max_num_batched_tokens": 512, "max_num_seqs": 1024}, "tokens_under_seqs"),
        ({"chunked_prefill": False, "max_num_batched_tokens": 2048}, "tokens_under_length"),
        ({"tensor_parallel": 2, "data_parallel": 2}, "too_many_ranks"),
        ({"expert_parallel": True}, "experts_need_ranks"),
    ],
)
def test_rules(changes, rule):
    hardware = machine(80, 80)
    settings = {**ENGINE.baseline(MODEL, hardware, TASK), **changes}
    assert ENGINE.conflict(settings, MODEL, hardware, TASK) == f"engines.conflict_{rule}"


def test_cpu_cache_must_hold_a_request():
    settings = {**ENGINE.baseline(MODEL, machine(), TASK), "kv_cache_bytes": 64 << 20, "max_model_len": 32768}
    assert ENGINE.conflict(settings, MODEL, machine(), TASK) == "engines.conflict_cache_under_request"


def test_command_line_leaves_nothing_to_the_model_or_the_server():
    task = replace(TASK, prefix_cache=True)
    settings = dict(ENGINE.baseline(MODEL, machine(24), task))
    settings |= {"speculation": "ngram", "spec_lookup": 4, "spec_draft": 2, "quantization": "fp8"}
    plan = ENGINE.plan(MODEL, settings, SOCKET)
    argv = plan.argv
    for option, value in {
        "--uds": "/r/e.sock",
        "--served-model-name": "qwen2.5-7b",
        "--generation-config": "vllm",
        "--quantization": "fp8",
        "--seed": "0",
    }.items():
        assert argv[argv.index(option) + 1] == value
    drafting = json.loads(argv[argv.index("--speculative-config") + 1])
    assert drafting == {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 4, "prompt_lookup_min": 1}
    assert "--enable-prefix-caching" in argv
    assert ENGINE.remembers(settings)
    assert plan.command[:4] == ("env", "HF_HUB_OFFLINE=1", "vllm", "serve")
    assert "--uds" not in plan.command
    cold = ENGINE.plan(MODEL, {**settings, "prefix_cache": False}, SOCKET)
    assert "--no-enable-prefix-caching" in cold.argv


def test_every_option_it_writes_is_one_this_version_has():
    known = options_of("vllm", "0.32.0").names
    for hardware in (machine(), machine(24), machine(80, 80)):
        for strategy in (None, *Strategy):
            settings = ENGINE.preset(MODEL, hardware, replace(TASK, prefix_cache=True), strategy)
            argv = ENGINE.plan(MODEL, settings, SOCKET).argv
            assert {part for part in argv if part.startswith("--")} <= known


def test_remote_code_needs_the_models_consent():
    settings = ENGINE.baseline(MODEL, machine(24), TASK)
    assert "--trust-remote-code" not in ENGINE.plan(MODEL, settings, SOCKET).argv
    assert "--trust-remote-code" in ENGINE.plan(replace(MODEL, trust_remote_code=True), settings, SOCKET).argv


def test_cpu_threads_and_binding_go_by_environment():
    settings = {**ENGINE.baseline(MODEL, machine(), TASK), "core_binding": "nobind", "threads": 4}
    env = ENGINE.plan(MODEL, settings, SOCKET).env
    assert env["OMP_NUM_THREADS"] == "4"
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


def test_key_travels_by_standard_input_to_the_option_of_the_engine():
    plan = ENGINE.plan(MODEL, ENGINE.baseline(MODEL, machine(24), TASK), SOCKET)
    assert plan.stdin == "k\n"
    assert plan.argv[1].endswith("keyed_main.py")
    assert plan.argv[2:4] == ("--api-key", "vllm.entrypoints.cli.main:main")


@pytest.mark.parametrize(
    ("version", "forgetting"),
    [("0.32.0+cpu", Forgetting(fields={"cache_salt": "trial-5"})), ("0.8.4", None), (None, None)],
)
def test_trials_are_kept_apart_by_a_salt_where_the_version_heeds_it(monkeypatch, version, forgetting):
    found = version and Found(python="/v/bin/python", version=version, origin="setting")
    monkeypatch.setattr(vllm, "locate_package", lambda *_, **__: found)
    assert ENGINE.forget({"prefix_cache": True}, 5) == forgetting


def test_installed_version_decides_what_is_offered(monkeypatch):
    monkeypatch.setattr(
        vllm, "options_of", lambda *_: replace(options_of("vllm", None), names=frozenset({"--dtype"}), values={})
    )
    offered = values(machine(24))
    assert not {"speculation", "attention_backend", "quantization", "kv_cache_dtype", "spec_draft"} & offered.keys()


def test_installation_tells_interpreter_and_build(monkeypatch):
    monkeypatch.setattr(
        vllm, "locate_package", lambda *_, **__: Found(python="/v/bin/python", version="0.32.0+cpu", origin="setting")
    )
    here = ENGINE.installation()
    assert (here.available, here.version, here.build, here.command[0]) == (True, "0.32.0+cpu", "cpu", "/v/bin/python")
    monkeypatch.setattr(vllm, "locate_package", lambda *_, **__: None)
    assert ENGINE.installation().why_not == "engines.vllm_missing"


def test_always_and_sometimes_cover_the_space():
    names = {
        p.name for h in (machine(), machine(80, 80)) for p in ENGINE.parameters(replace(MODEL, experts=8), h, TASK)
    }
    assert names <= {*vllm_space.ALWAYS, *vllm_space.SOMETIMES}
