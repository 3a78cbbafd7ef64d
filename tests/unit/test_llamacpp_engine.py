"""llama.cpp as a description: its starting points by machine, its rules, its command line."""

from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.engines import llamacpp_defaults as defaults
from llmopt.engines.base import RunFolder
from llmopt.engines.llamacpp import LlamaCpp
from llmopt.engines.sizing import round_up
from llmopt.models.kv_cache import kv_bytes_per_token
from llmopt.records import Cpu, Device, DeviceType, Endpoint, Hardware, HostMemory, Load, ModelInfo, Strategy, Task

GIB = 1 << 30
ENGINE = LlamaCpp()
MODEL = ModelInfo(
    name="qwen",
    path="/w/qwen.gguf",
    format="gguf",
    layers=24,
    kv_heads=2,
    head_dim=64,
    context_length=32768,
    weight_bytes=491 << 20,
)
TASK = Task(load=Load(streams=4), max_tokens=100, prompt_tokens=300)
RUN = RunFolder(folder=Path("/r"), endpoint=Endpoint(model="", socket_path="/r/e.sock", api_key="k"))


def machine(*, usable=4.0, physical=4, available_gib=16.0, gpu_gib=0):
    gpu = Device(
        index=0,
        uuid="GPU-0",
        vendor="nvidia",
        kind=DeviceType.CUDA,
        name="GPU",
        total_bytes=gpu_gib * GIB,
        free_bytes=gpu_gib * GIB,
    )
    return Hardware(
        cpu=Cpu(
            model="c", architecture="x86_64", physical_cores=physical, logical_cores=2 * physical, usable_cores=usable
        ),
        memory=HostMemory(total_bytes=64 * GIB, available_bytes=int(available_gib * GIB)),
        devices=(gpu,) if gpu_gib else (),
    )


def baseline(**changes):
    return {**ENGINE.baseline(MODEL, machine(), TASK), **changes}


def conflict(settings, task=TASK, model=MODEL):
    return ENGINE.conflict(settings, model, machine(), task)


def test_plain_command_is_written_out():
    settings = ENGINE.baseline(MODEL, machine(physical=3), TASK)
    assert settings["threads"] == settings["threads_batch"] == 3
    assert (settings["slots"], settings["kv_unified"], settings["context"]) == (4, True, 32768)
    assert (settings["batch"], settings["ubatch"]) == (2048, 512)
    assert (settings["cache_type_k"], settings["cache_type_v"], settings["speculation"]) == ("f16", "f16", "off")


def test_plain_context_is_halved_until_it_fits_but_holds_a_request():
    small = ENGINE.baseline(MODEL, machine(available_gib=0.8), TASK)
    per_token = kv_bytes_per_token(MODEL)
    assert small["context"] < 32768
    assert small["context"] * per_token + MODEL.weight_bytes <= 0.8 * 0.8 * GIB
    assert 2 * small["context"] * per_token + MODEL.weight_bytes > 0.8 * 0.8 * GIB
    tiny = ENGINE.baseline(MODEL, machine(available_gib=0.1), TASK)
    assert tiny["context"] >= TASK.context_tokens
    assert tiny["batch"] <= tiny["context"]


@pytest.mark.parametrize(("gpu_gib", "strategy", "slots"), [(0, None, 4), (8, None, 1), (12, None, 2), (24, None, 4)])
def test_preset_slots_follow_the_table(gpu_gib, strategy, slots):
    assert ENGINE.preset(MODEL, machine(gpu_gib=gpu_gib), TASK, strategy)["slots"] == slots


def test_speed_preset_takes_sixteen_slots_but_no_more_than_streams():
    many = replace(TASK, load=Load(streams=64))
    assert ENGINE.preset(MODEL, machine(), many, Strategy.SPEED)["slots"] == 16
    assert ENGINE.preset(MODEL, machine(), TASK, Strategy.SPEED)["slots"] == 4


def test_preset_threads_are_physical_cores_as_far_as_they_may_be_used():
    assert ENGINE.preset(MODEL, machine(physical=8, usable=16), TASK, None)["threads"] == 8
    assert ENGINE.preset(MODEL, machine(physical=8, usable=2.5), TASK, None)["threads"] == 2
    assert ENGINE.preset(MODEL, machine(physical=8, usable=0.5), TASK, None)["threads"] == 1


def test_each_slot_of_the_preset_holds_a_request():
    settings = ENGINE.preset(MODEL, machine(), TASK, None)
    assert settings["context"] == 4 * round_up(TASK.context_tokens, 256)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"ubatch": 512, "batch": 256}, "ubatch_over_batch"),
        ({"context": 1024, "batch": 2048}, "batch_over_context"),
        ({"context": 2048, "slots": 8, "kv_unified": False}, "slot_context"),
        ({"context": 1024, "batch": 1024, "kv_unified": True}, "shared_context"),
        ({"cache_type_v": "q8_0", "flash_attention": "off"}, "kv_needs_flash"),
        ({"threads": 1, "threads_batch": 1, "wait_policy": "passive"}, "nobody_waits"),
    ],
)
def test_rules(changes, rule):
    assert conflict(baseline(**changes)) == f"engines.conflict_{rule}"


def test_near_neighbours_of_the_rules_are_legal():
    assert conflict(baseline(ubatch=512, batch=512)) is None
    assert conflict(baseline(cache_type_v="q8_0", flash_attention="on")) is None
    assert conflict(baseline(cache_type_k="q8_0", flash_attention="off")) is None
    assert conflict(baseline(slots=1, kv_unified=False, context=512, batch=512)) is None
    if defaults.OPENMP:
        assert conflict(baseline(threads=1, threads_batch=2, wait_policy="passive")) is None


def test_a_head_of_odd_width_keeps_its_cache_unquantised():
    odd = replace(MODEL, head_dim=80)
    values = {p.name: p.values for p in ENGINE.parameters(odd, machine(), TASK)}
    assert values["cache_type_k"] == values["cache_type_v"] == ("f16",)
    assert conflict(baseline(cache_type_k="q8_0"), model=odd) == "engines.conflict_kv_block"


def test_no_value_is_left_to_the_server():
    argv = ENGINE.plan(MODEL, baseline(), RUN).argv
    for option in ("--threads", "--threads-batch", "--parallel", "--ctx-size", "--batch-size", "--ubatch-size"):
        assert argv[argv.index(option) + 1].isdigit()
    for option, value in {
        "--fit": "off",
        "--cors-origins": "localhost",
        "--cache-ram": "0",
        "--spec-type": "none",
        "--gpu-layers": "0",
        "--host": "/r/e.sock",
        "--api-key-file": "/dev/stdin",
    }.items():
        assert argv[argv.index(option) + 1] == value


def test_speculation_sizes_reach_the_drafter_they_belong_to():
    plan = ENGINE.plan(MODEL, baseline(speculation="ngram-map-k", spec_lookup=8, spec_draft=16), RUN)
    text = " ".join(plan.argv)
    assert "--spec-type ngram-map-k --spec-ngram-map-k-size-n 8 --spec-ngram-map-k-size-m 16" in text
    assert "ngram-simple" not in text


@pytest.mark.skipif(not defaults.OPENMP, reason="this build has no OpenMP")
def test_wait_policy_goes_by_environment_and_stands_in_the_printed_command():
    plan = ENGINE.plan(MODEL, baseline(wait_policy="passive"), RUN)
    assert plan.env["OMP_WAIT_POLICY"] == "passive"
    assert plan.command[:3] == ("env", "OMP_WAIT_POLICY=passive", "llama-server")
    assert "OMP_WAIT_POLICY" not in ENGINE.plan(MODEL, baseline(), RUN).env


def test_printed_command_is_the_plan_without_our_wrapping():
    plan = ENGINE.plan(MODEL, baseline(), RUN)
    assert plan.command[0] == "llama-server"
    start = plan.argv.index("--model")
    end = plan.argv.index("--host")
    assert plan.command[1:-4] == plan.argv[start:end]


def test_prompt_cache_is_used_only_where_it_is_what_is_tested():
    plain, cached = TASK, replace(TASK, prefix_cache=True)
    assert ENGINE.request_extra(baseline()) == {"cache_prompt": False}
    assert not ENGINE.remembers(baseline())
    by_name = {p.name: p for p in ENGINE.parameters(MODEL, machine(), cached)}
    assert by_name["prefix_cache"].values == (True, False)
    assert by_name["cache_reuse"].only_if == {"prefix_cache": (True,)}
    assert not {"prefix_cache", "cache_reuse"} & {p.name for p in ENGINE.parameters(MODEL, machine(), plain)}
    warm = ENGINE.baseline(MODEL, machine(), cached)
    assert ENGINE.remembers(warm)
    assert ENGINE.request_extra(warm) == {"cache_prompt": True}
    forgetting = ENGINE.forget(warm, 7)
    assert forgetting is not None
    assert [body["id_slot"] for _, body in forgetting.calls] == list(range(int(warm["slots"])))
    assert not any(body["cache_prompt"] for _, body in forgetting.calls)
    assert not forgetting.fields
    # what drafts learnt from earlier requests only a restart takes away, with or without the cache
    for drafter in ("ngram-mod", "ngram-cache"):
        learnt = {**baseline(), "speculation": drafter}
        assert ENGINE.remembers(learnt)
        assert ENGINE.forget(learnt, 7) is None
        assert ENGINE.request_extra(learnt) == {"cache_prompt": False}
    assert "--cache-prompt" in ENGINE.plan(MODEL, warm, RUN).argv
    assert "--no-cache-prompt" in ENGINE.plan(MODEL, baseline(), RUN).argv


def test_settings_that_only_move_work_around_are_marked_as_keeping_answers():
    changing = {p.name: p.changes_answers for p in ENGINE.parameters(MODEL, machine(), TASK)}
    keeping = {"threads", "threads_batch", "slots", "context", "kv_unified"}
    assert not any(changing[name] for name in keeping)
    assert all(changing[name] for name in ("cache_type_k", "flash_attention", "batch", "ubatch", "speculation"))


def test_only_gguf_files_are_taken():
    assert ENGINE.supports(MODEL) is None
    assert ENGINE.supports(replace(MODEL, format="safetensors")) == "engines.needs_gguf"


def test_installation_names_wheel_and_worker():
    here = ENGINE.installation()
    assert here.available
    assert here.build == "embedded"
    assert here.command[-1].endswith("llamacpp_server.py")
