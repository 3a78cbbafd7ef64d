"""memory_fit: llama.cpp's own logged sizes, paged engines' budgets, verdicts, corrections, and the table of models."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmopt.errors import DoesNotFit
from llmopt.models.catalogue import built_in_models
from llmopt.models.fit_table import fit_row, fit_table
from llmopt.models.fit_torch import weight_bytes
from llmopt.models.memory_fit import Correction, learn_correction, memory_fit, planned_device_bytes
from llmopt.models.metadata import read_model
from llmopt.records import Cpu, Device, DeviceType, Hardware, HostMemory, Load, ModelInfo, Task

GIB = 1 << 30
MIB = 1 << 20
TASK = Task(load=Load(streams=4), max_tokens=256, prompt_tokens=1 << 20)  # long enough that every cell counts
LLAMA = replace(built_in_models()["llama3.1-8b"].facts, format="safetensors", quantization="bfloat16")
LLAMA_70B = replace(built_in_models()["llama3.1-70b"].facts, format="safetensors", quantization="bfloat16")


def machine(ram_gb: float = 64, gpus: int = 0, gpu_gb: float = 80, architecture: str = "x86_64") -> Hardware:
    cpu = Cpu(model="test", architecture=architecture, physical_cores=4, logical_cores=8, usable_cores=8)
    ram = round(ram_gb * GIB)
    devices = tuple(
        Device(
            index=number,
            uuid=f"GPU-{number}",
            vendor="nvidia",
            kind=DeviceType.CUDA,
            name="test",
            total_bytes=round(gpu_gb * GIB),
            free_bytes=round(gpu_gb * GIB * 0.99),
        )
        for number in range(gpus)
    )
    return Hardware(cpu=cpu, memory=HostMemory(total_bytes=ram, available_bytes=ram), devices=devices)


def llamacpp(**changes: object) -> dict[str, object]:
    base = {
        "slots": 4,
        "context": 4096,
        "kv_unified": False,
        "batch": 2048,
        "ubatch": 512,
        "cache_type_k": "f16",
        "cache_type_v": "f16",
        "flash_attention": "on",
    }
    return {**base, **changes}


@pytest.mark.parametrize(
    ("changes", "kv_mib", "compute_mib"),
    [
        # what the server logged for SmolLM2-135M
        ({}, 90.0, 15.64),
        ({"context": 1024}, 22.5, 14.89),
        ({"context": 32768}, 720.0, 22.64),
        ({"slots": 1}, 90.0, 18.64),
        ({"slots": 16}, 90.0, 14.89),
        ({"ubatch": 64}, 90.0, 1.96),
        ({"ubatch": 2048}, 90.0, 62.57),
        ({"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, 47.81, 15.67),
        ({"cache_type_k": "q4_0", "cache_type_v": "q4_0"}, 25.31, 15.67),
        ({"flash_attention": "off"}, 90.0, 27.51),
        ({"flash_attention": "off", "context": 16384, "slots": 1}, 360.0, 327.51),
        ({"kv_unified": True}, 90.0, 18.64),
        ({"kv_unified": True, "context": 16384, "slots": 16, "ubatch": 64}, 360.0, 5.71),
    ],
)
def test_llamacpp_buffers_are_those_the_server_logs(demo_model, changes, kv_mib, compute_mib):
    fit = memory_fit("llamacpp", read_model(demo_model), llamacpp(**changes), machine(), TASK)
    assert fit.bytes_of("kv") / MIB == pytest.approx(kv_mib, rel=0.002)
    assert fit.bytes_of("compute") / MIB == pytest.approx(compute_mib, rel=0.08)
    assert fit.bytes_of("output") / MIB == pytest.approx(int(changes.get("slots", 4)) * 0.1875)
    assert fit.bytes_of("weights") == 98_362_432


@pytest.mark.parametrize(
    ("changes", "kv_mib", "compute_mib"),
    [
        # what the server logged for Gemma 3 270M: three full layers, fifteen with a window of 512
        ({}, 72.0, 20.28),
        ({"slots": 1}, 27.0, 23.28),
        ({"slots": 16}, 72.0, 22.78),
        ({"ubatch": 64}, 57.0, 5.0),
        ({"ubatch": 1024, "context": 16384, "flash_attention": "off"}, 138.0, 110.54),
        ({"kv_unified": True}, 49.5, 24.78),
        ({"kv_unified": True, "slots": 16, "context": 16384, "ubatch": 64}, 171.75, 19.82),
        ({"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, 38.26, 20.81),
    ],
)
def test_sliding_caches_keep_a_window_and_a_batch(changes, kv_mib, compute_mib):
    model = built_in_models()["gemma3-270m"].facts
    fit = memory_fit("llamacpp", model, llamacpp(**changes), machine(), TASK)
    assert fit.bytes_of("kv") / MIB == pytest.approx(kv_mib, rel=0.005)
    assert fit.bytes_of("compute") / MIB == pytest.approx(compute_mib, rel=0.08)


def test_weights_with_a_faster_layout_are_held_twice(tmp_path, gguf_bytes):
    values = {"general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": 256}
    values |= {"llama.attention.head_count": 4, "llama.vocab_size": 100}
    path = tmp_path / "m.gguf"
    path.write_bytes(
        gguf_bytes(values, [("token_embd.weight", (256, 100), 12), ("blk.0.ffn_up.weight", (256, 256), 12)])
    )
    model = read_model(path)
    here = memory_fit("llamacpp", model, llamacpp(), machine(), TASK)
    assert here.bytes_of("repacked") == 256 * 256 // 256 * 144  # the looked-up embedding is not copied
    elsewhere = memory_fit("llamacpp", model, llamacpp(), machine(architecture="riscv64"), TASK)
    assert elsewhere.bytes_of("repacked") == 0


def test_only_the_cells_in_use_are_touched(demo_model):
    model = read_model(demo_model)
    short = Task(load=Load(streams=1), max_tokens=64, prompt_tokens=200)
    settings = llamacpp(context=32768, slots=1, flash_attention="off")
    small = memory_fit("llamacpp", model, settings, machine(), short)
    large = memory_fit("llamacpp", model, settings, machine(), TASK)
    assert small.bytes_of("compute") < large.bytes_of("compute") / 5
    assert small.bytes_of("kv") == large.bytes_of("kv")


def test_offloaded_layers_move_to_the_devices(demo_model):
    model = read_model(demo_model)
    none = memory_fit("llamacpp", model, llamacpp(), machine(gpus=1), TASK)
    every = memory_fit("llamacpp", model, llamacpp(gpu_layers=31), machine(gpus=1), TASK)
    half = memory_fit("llamacpp", model, llamacpp(gpu_layers=15), machine(gpus=1), TASK)
    assert none.bytes_of(place="device") == 0
    assert every.bytes_of("kv", place="host") == 0
    assert 0 < half.bytes_of("kv", place="device") < every.bytes_of("kv", place="device")


def test_recurrent_states_are_kept_for_each_slot():
    model = ModelInfo(
        name="hybrid",
        path="x.gguf",
        format="gguf",
        weight_bytes=GIB,
        layers=4,
        hidden_size=1024,
        heads=8,
        kv_heads=2,
        head_dim=128,
        vocabulary=1000,
        recurrent_layers=3,
        extra={"layer_kinds": "RRRF", "conv_elements": 100, "state_elements": 1000},
    )
    one = memory_fit("llamacpp", model, llamacpp(slots=1), machine(), TASK)
    four = memory_fit("llamacpp", model, llamacpp(slots=4), machine(), TASK)
    assert one.bytes_of("state") == 3 * 1100 * 4
    assert four.bytes_of("state") == 4 * one.bytes_of("state")


def test_a_verdict_names_the_numbers_and_the_largest_part(demo_model, monkeypatch):
    model = read_model(demo_model)
    roomy = memory_fit("llamacpp", model, llamacpp(), machine(), TASK)
    assert (roomy.fits, roomy.verdict) == (True, "fit.fits")
    tight = memory_fit("llamacpp", model, llamacpp(context=1 << 20), machine(ram_gb=4), TASK)
    assert tight.fits is False
    error = tight.error()
    assert isinstance(error, DoesNotFit)
    assert error.exit_code == 4
    monkeypatch.setenv("LC_ALL", "C")
    assert str(math.ceil(tight.needed_bytes / MIB)) in str(error)
    assert "KV cache" in str(memory_fit("llamacpp", model, llamacpp(context=1 << 20), machine(ram_gb=4), TASK).error())


def test_the_margin_is_kept_and_not_more(demo_model):
    model = read_model(demo_model)
    need = memory_fit("llamacpp", model, llamacpp(), machine(), TASK).needed_bytes / GIB
    assert memory_fit("llamacpp", model, llamacpp(), machine(ram_gb=need / 0.85), TASK).fits
    assert memory_fit("llamacpp", model, llamacpp(), machine(ram_gb=need * 1.02), TASK).fits is False


def test_the_memory_of_a_container_counts_not_that_of_its_host(demo_model):
    limited = HostMemory(total_bytes=64 * GIB, available_bytes=60 * GIB, limit_bytes=200 * MIB)
    fit = memory_fit("llamacpp", read_model(demo_model), llamacpp(), replace(machine(), memory=limited), TASK)
    assert (fit.fits, fit.available_bytes) == (False, 200 * MIB)


@pytest.mark.parametrize(
    ("model", "gpus", "gpu_gb", "settings", "fits"),
    [
        (LLAMA, 1, 80, {}, True),
        (LLAMA, 1, 24, {"max_model_len": 8192}, True),
        (LLAMA, 1, 24, {"max_model_len": 131072}, False),  # 16 GiB of cache beside 15 GiB of weights
        (LLAMA, 1, 16, {"max_model_len": 8192}, False),
        (LLAMA, 1, 16, {"max_model_len": 4096, "quantization": "int4", "enforce_eager": True}, True),
        (LLAMA, 1, 24, {"max_model_len": 8192, "gpu_memory_utilization": 0.97}, True),
        (LLAMA, 1, 80, {"max_model_len": 8192, "gpu_memory_utilization": 1.0}, False),  # more than is free
        (LLAMA, 1, 80, {"max_model_len": 8192, "gpu_memory_utilization": 0.15}, False),  # too little allowed
        (LLAMA_70B, 1, 80, {"max_model_len": 8192}, False),
        (LLAMA_70B, 4, 80, {"max_model_len": 8192, "tensor_parallel": 4}, True),
        (LLAMA_70B, 2, 80, {"max_model_len": 8192, "tensor_parallel": 2, "quantization": "fp8"}, True),
        (LLAMA_70B, 1, 80, {"max_model_len": 8192, "quantization": "int4"}, True),
    ],
)
def test_paged_engines_on_gpus(model, gpus, gpu_gb, settings, fits):
    fit = memory_fit("vllm", model, settings, machine(gpus=gpus, gpu_gb=gpu_gb), TASK)
    assert fit.fits is fits
    if fits:  # the cache takes what is left of the share, so the share is what is held
        ranks = settings.get("tensor_parallel", 1)
        held = settings.get("gpu_memory_utilization", 0.9) * gpu_gb * GIB * ranks
        assert fit.bytes_of(place="device") == pytest.approx(held, rel=0.001)


def test_paged_engines_without_a_gpu_hold_the_cache_they_are_given():
    fit = memory_fit("vllm", LLAMA, {"kv_cache_bytes": 4 * GIB, "max_model_len": 1024}, machine(), TASK)
    assert fit.bytes_of("kv") == 4 * GIB
    assert fit.bytes_of(place="device") == 0


def test_vllm_on_a_cpu_holds_embedding_and_head_twice():
    """What is packed for the processor's kernels and kept as it was: one table where they are tied, two where not."""
    settings = {"kv_cache_bytes": GIB, "max_model_len": 1024}

    def taken(*, tied: bool) -> int:
        model = replace(LLAMA, extra={**LLAMA.extra, "tied_embeddings": tied})
        return memory_fit("vllm", model, settings, machine(), TASK).bytes_of("runtime")

    table = LLAMA.vocabulary * LLAMA.hidden_size
    assert taken(tied=False) - taken(tied=True) == pytest.approx(2 * table * 0.5, rel=1e-6)


def test_transformers_run_one_request_after_the_other_unless_they_batch():
    task = replace(TASK, prompt_tokens=1000)
    alone = memory_fit("transformers", LLAMA, {"continuous_batching": False}, machine(), task)
    one = memory_fit("transformers", LLAMA, {}, machine(), replace(task, load=Load(streams=1)))
    assert alone.bytes_of("kv") == one.bytes_of("kv")
    paged = {"continuous_batching": True, "cache_blocks": 256, "block_size": 32}
    assert memory_fit("transformers", LLAMA, paged, machine(), task).bytes_of("kv") == 256 * 32 * 2 * 32 * 8 * 128 * 2


def test_short_prompts_fill_no_large_micro_batch():
    gguf = replace(LLAMA, format="gguf", weight_bytes=4 * GIB)
    settings = {"slots": 2, "context": 4096, "ubatch": 1024, "batch": 2048}
    short, long = (
        memory_fit("llamacpp", gguf, settings, machine(), replace(TASK, prompt_tokens=tokens)).bytes_of("compute")
        for tokens in (50, 2000)
    )
    assert short < long / 5


def test_latent_attention_gains_nothing_from_more_ranks():
    model = replace(LLAMA, kv_heads=32, mla_rank=512, mla_rope_dim=64, extra={})
    one = memory_fit("sglang", model, {"kv_cache_bytes": 0, "max_model_len": 4096}, machine(), TASK)
    assert one.bytes_of("kv") == 4096 * 32 * 576 * 2


def test_transformers_grow_with_running_requests():
    few = memory_fit("transformers", LLAMA, {}, machine(), replace(TASK, prompt_tokens=1000))
    many = memory_fit("transformers", LLAMA, {}, machine(), replace(TASK, prompt_tokens=1000, load=Load(streams=8)))
    assert many.bytes_of("kv") == 2 * few.bytes_of("kv")
    assert few.bytes_of("kv") == 4 * 1256 * 2 * 32 * 8 * 128 * 2
    gpu = memory_fit("transformers", LLAMA, {"dtype": "float16"}, machine(gpus=1), TASK)
    assert gpu.bytes_of("weights", place="device") == LLAMA.parameters * 2


def test_quantised_weights_keep_their_embeddings_at_sixteen_bits():
    plain = weight_bytes(LLAMA, "float16")
    small = weight_bytes(LLAMA, "int4")
    table = 128256 * 4096 * 2  # embedding and head, two bytes each
    assert small == pytest.approx(2 * table + (LLAMA.parameters - table) * 4.5 / 8, rel=1e-6)
    assert small < plain / 2.5
    assert weight_bytes(replace(LLAMA, weight_bytes=123), "auto") == 123
    assert weight_bytes(ModelInfo(name="x", path="a/b", format="hub"), "int4") is None


@pytest.mark.parametrize("engine", ["llamacpp", "vllm", "sglang", "transformers", "unheard_of"])
def test_an_unknown_shape_is_unknown_never_a_guess(engine):
    fit = memory_fit(engine, ModelInfo(name="x", path="a/b", format="hub"), {}, machine(), TASK)
    assert (fit.fits, fit.verdict, fit.total_bytes) == (None, "fit.unknown", 0)


def test_what_runs_elsewhere_needs_nothing_here():
    fit = memory_fit("openai", ModelInfo(name="x", path="a/b", format="hub"), {}, machine(), TASK)
    assert fit.fits is True


def test_corrections_only_raise_and_never_touch_what_is_exact(demo_model):
    model = read_model(demo_model)
    plain = memory_fit("llamacpp", model, llamacpp(), machine(), TASK)
    raised = memory_fit("llamacpp", model, llamacpp(), machine(), TASK, correction=Correction(factor=1.5))
    lowered = memory_fit("llamacpp", model, llamacpp(), machine(), TASK, correction=Correction(factor=0.5))
    assert raised.bytes_of("compute") == pytest.approx(1.5 * plain.bytes_of("compute"), abs=1)
    assert raised.bytes_of("weights", "kv") == plain.bytes_of("weights", "kv")
    assert lowered.total_bytes == plain.total_bytes


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(1, 1e12), st.floats(1, 1e12)), max_size=20))
def test_learned_factors_are_never_below_one(pairs):
    factor = learn_correction([said for said, _ in pairs], [seen for _, seen in pairs]).factor
    assert factor >= 1.0
    assert math.isfinite(factor)


def test_learned_factors_cover_what_was_seen():
    assert learn_correction([100, 100], [90, 130]).factor == pytest.approx(1.3)
    assert learn_correction([100] * 5, [80] * 5).factor == 1.0
    many = learn_correction([100] * 20, [100 + number for number in range(20)]).factor
    assert 1.15 < many < 1.25


@settings(max_examples=60)
@given(
    slots=st.sampled_from([1, 2, 4, 8]),
    context=st.sampled_from([1024, 4096, 16384]),
    ubatch=st.sampled_from([64, 256, 512]),
    flash=st.sampled_from(["on", "off"]),
    unified=st.booleans(),
)
def test_more_never_needs_less(slots, context, ubatch, flash, unified):
    model = built_in_models()["gemma3-1b"].facts
    base = llamacpp(slots=slots, context=context, ubatch=ubatch, flash_attention=flash, kv_unified=unified)
    small = memory_fit("llamacpp", model, base, machine(), TASK).total_bytes
    for grown in ({"context": context * 2}, {"ubatch": ubatch * 2}):
        assert memory_fit("llamacpp", model, {**base, **grown}, machine(), TASK).total_bytes >= small


def test_the_table_gives_each_model_its_best_precision_or_the_reason():
    entries = built_in_models().values()
    small = {row.name: row for row in fit_table(entries, machine(ram_gb=8))}
    large = {row.name: row for row in fit_table(entries, machine(ram_gb=64))}
    assert set(small) == set(large) == set(built_in_models())
    assert (small["qwen2.5-7b"].precision, small["qwen2.5-7b"].fits) == ("q4_k_m", True)
    assert large["qwen2.5-7b"].precision == "q8_0"
    assert small["llama3.1-70b"].fits is False
    assert small["llama3.1-70b"].verdict in {"fit.too_large", "fit.weights_too_large"}
    assert small["kanana1.5-8b"].fits is None
    assert small["hyperclovax-seed-think-14b"].verdict == "fit.unknown"
    gpu = {row.name: row for row in fit_table(entries, machine(gpus=1, gpu_gb=24))}
    assert (gpu["qwen2.5-7b"].precision, gpu["qwen2.5-14b"].precision) == ("float16", "int8")
    assert gpu["llama3.1-70b"].fits is False
    eight = {row.name: row for row in fit_table(entries, machine(gpus=1, gpu_gb=8))}
    assert eight["qwen2.5-7b"].precision == "int4"


def test_a_local_file_is_judged_as_it_is(demo_model):
    row = fit_row(read_model(demo_model), machine(ram_gb=1))
    assert (row.precision, row.fits) == ("Q4_1", True)
    assert fit_row(read_model(demo_model), machine(ram_gb=0.2)).fits is False


def test_the_plan_of_each_device_is_its_share_of_what_goes_to_devices():
    hardware = machine(gpus=4)
    settings = {"gpu_memory_utilization": 0.9, "tensor_parallel": 2, "max_model_len": 4096, "dtype": "bfloat16"}
    fit = memory_fit("vllm", LLAMA, settings, hardware, TASK)
    planned = planned_device_bytes(fit, settings, hardware)
    assert len(planned) == 2
    assert set(planned) <= {device.uuid for device in hardware.devices}
    assert sum(planned.values()) == pytest.approx(fit.bytes_of(place="device"), abs=2)
    assert planned_device_bytes(memory_fit("fake", LLAMA, {}, hardware, TASK), {}, hardware) == {}
    nowhere = machine(gpus=0)
    assert planned_device_bytes(memory_fit("vllm", LLAMA, settings, nowhere, TASK), settings, nowhere) == {}
