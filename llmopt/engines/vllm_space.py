"""vLLM's launch settings by machine, model and task: legal values, the plain command's, the specification's, the rules.

Defaults are those of vLLM 0.32 (``EngineArgs``, ``CacheConfig``): sequences and batched tokens by device memory,
92 % of the memory, blocks of 16 tokens on GPUs and 128 on CPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llmopt.engines.accelerators import gpus, has_bfloat16, has_float8, ranks_dividing, stages_dividing
from llmopt.engines.options import Options
from llmopt.engines.sizing import (
    doublings,
    launch_parameter,
    openmp_threads,
    round_up,
    streams_of,
    thread_choices,
    with_choices,
)
from llmopt.models.draft import draft_of
from llmopt.models.kv_cache import kv_bytes_per_token
from llmopt.records import DeviceType, Hardware, ModelInfo, Parameter, Settings, SettingValue, Strategy, Task

__all__ = ["ALWAYS", "SOMETIMES", "conflict", "parameters", "plain", "preset"]

ALWAYS = ("dtype", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "block_size", "enforce_eager")
SOMETIMES = (
    "quantization",
    "kv_cache_dtype",
    "gpu_memory_utilization",
    "kv_cache_bytes",
    "prefix_cache",
    "chunked_prefill",
    "tensor_parallel",
    "pipeline_parallel",
    "data_parallel",
    "expert_parallel",
    "speculation",
    "spec_lookup",
    "spec_draft",
    "attention_backend",
    "threads",
    "core_binding",
)
GIB = 1 << 30
LARGE_GPU, HUGE_GPU = 70 * GIB, 160 * GIB
CONTEXT = 4096
CONTEXT_UNIT = 128
UTILIZATION = 0.92
KV_UNIT = 64 << 20
KV_SHARE = 0.25
"""The share of free RAM a CPU launch's cache starts with, where the plain command would take nearly all of it."""
CACHE_ROOM = 1.25
FAST_SEQS = 16
SEQS_BY_GPU_BYTES = ((8 * GIB, 1), (16 * GIB, 2))
"""The specification's batch sizes by GPU memory; above the last one, 4."""
MODERATE_SEQS = 4
FOUR_BIT = ("bitsandbytes",)
METHODS = {"draft": "draft_model", "eagle": "eagle", "eagle3": "eagle3"}
"""vLLM's names for the kinds of draft models."""


def parameters(model: ModelInfo, hardware: Hardware, task: Task, options: Options) -> tuple[Parameter, ...]:
    """Every setting that has a choice here; one-valued ones are left to the plan."""
    starts: list[Settings] = [plain(model, hardware, task)]
    starts += [preset(model, hardware, task, strategy, options) for strategy in (None, *Strategy)]
    streams = streams_of(task)
    need = round_up(task.context_tokens, CONTEXT_UNIT)
    drafters = _drafters(model, options)
    lookup, drafting = {"speculation": ("ngram",)}, {"speculation": drafters}
    everything = [
        launch_parameter("dtype", _dtypes(hardware), changes_answers=True),
        launch_parameter(
            "max_num_seqs", _sizes(starts, "max_num_seqs", (*doublings(1, streams), streams)), ordinal=True
        ),
        launch_parameter(
            "max_num_batched_tokens",
            _sizes(starts, "max_num_batched_tokens", doublings(512, 8192)),
            ordinal=True,
            changes_answers=True,
        ),
        launch_parameter("max_model_len", _sizes(starts, "max_model_len", (need,)), ordinal=True),
        launch_parameter("block_size", (16, 32) if gpus(hardware) else (32, 64, 128), ordinal=True),
        launch_parameter("enforce_eager", (False, True), changes_answers=True),
        launch_parameter(
            "quantization",
            _sizes(starts, "quantization", _quantisations(model, hardware, options)),
            changes_answers=True,
        ),
        launch_parameter("kv_cache_dtype", _cache_types(hardware, options), changes_answers=True),
        launch_parameter("chunked_prefill", (True, False), changes_answers=True),
        launch_parameter("prefix_cache", (True, False) if task.prefix_cache else (False,), changes_answers=True),
        launch_parameter("speculation", ("off", *drafters), changes_answers=True),
        launch_parameter("spec_lookup", (2, 4), ordinal=True, changes_answers=True, only_if=lookup),
        launch_parameter("spec_draft", (2, 4, 8), ordinal=True, changes_answers=True, only_if=drafting),
        launch_parameter("attention_backend", _backends(hardware, options), changes_answers=True),
        *(_on_gpus(model, hardware, starts) if gpus(hardware) else _on_cpu(model, hardware, starts)),
    ]
    return with_choices(everything, ALWAYS)


def _sizes(starts: Sequence[Settings], name: str, values: Iterable[SettingValue]) -> list[SettingValue]:
    """The values, and those of the starting points, which must be among them."""
    return [*values, *(start[name] for start in starts if name in start)]


def _on_gpus(model: ModelInfo, hardware: Hardware, starts: Sequence[Settings]) -> list[Parameter]:
    count = len(gpus(hardware))
    ranks = (*ranks_dividing(model, count), *(int(start["tensor_parallel"] or 1) for start in starts))
    stages = stages_dividing(model, count)
    return [
        launch_parameter("gpu_memory_utilization", (0.8, 0.88, UTILIZATION, 0.95), ordinal=True),
        launch_parameter("tensor_parallel", ranks, ordinal=True, changes_answers=True),
        launch_parameter("pipeline_parallel", stages, ordinal=True, changes_answers=True),
        launch_parameter("data_parallel", tuple(range(1, count + 1)), ordinal=True),
        launch_parameter(
            "expert_parallel", (False, True) if model.experts and count > 1 else (False,), changes_answers=True
        ),
    ]


def _on_cpu(model: ModelInfo, hardware: Hardware, starts: Sequence[Settings]) -> list[Parameter]:
    sizes = [int(start["kv_cache_bytes"] or 0) for start in starts]
    alone, both = _token_bytes(model, drafting=False), _token_bytes(model, drafting=True)
    if alone and both > alone:  # the draft keeps its own tokens in the same cache
        sizes += [round_up(int(size * both / alone), KV_UNIT) for size in sizes]
    bindings = ("auto", "nobind") if openmp_threads() is None else ("nobind",)  # binding would choose the threads
    return [
        launch_parameter("kv_cache_bytes", sizes, ordinal=True),
        launch_parameter("core_binding", bindings),
        launch_parameter("threads", thread_choices(hardware), ordinal=True, only_if={"core_binding": ("nobind",)}),
    ]


def plain(model: ModelInfo, hardware: Hardware, task: Task) -> dict[str, SettingValue]:
    """``vllm serve MODEL`` with every value written out; the context is cut to what one request may need if it must."""
    devices = gpus(hardware)
    context = model.context_length or max(CONTEXT, round_up(task.context_tokens, CONTEXT_UNIT))
    settings: dict[str, SettingValue] = {
        "dtype": "auto",
        "max_model_len": _fitting(context, model, hardware, task),
        "enforce_eager": False,
        "quantization": "none",
        "kv_cache_dtype": "auto",
        "chunked_prefill": True,
        "prefix_cache": task.prefix_cache,
        "speculation": "off",
        "attention_backend": "auto",
    }
    if not devices:
        given = openmp_threads()
        cpu: dict[str, SettingValue] = {
            "max_num_seqs": 128,
            "max_num_batched_tokens": 2048,
            "block_size": 128,
            **({"core_binding": "auto"} if given is None else {"core_binding": "nobind", "threads": given}),
        }
        return settings | cpu | {"kv_cache_bytes": _cpu_cache(int(settings["max_model_len"] or 0), model, hardware)}
    memory = min(device.total_bytes for device in devices)
    large = memory >= LARGE_GPU and "a100" not in devices[0].name.lower()
    tokens = 16384 if memory >= HUGE_GPU else 8192 if large else 2048
    return settings | {
        "max_num_seqs": 1024 if large or memory >= HUGE_GPU else 256,
        "max_num_batched_tokens": tokens,
        "block_size": 16,
        "gpu_memory_utilization": UTILIZATION,
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "data_parallel": 1,
        "expert_parallel": False,
    }


def preset(
    model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None, options: Options
) -> dict[str, SettingValue]:
    """The specification's table: sequences by GPU memory (16 for speed), all GPUs tensor-parallel, 4 bit on 8 GB."""
    devices = gpus(hardware)
    need = round_up(task.context_tokens, CONTEXT_UNIT)
    memory = min((device.total_bytes for device in devices), default=None)
    if strategy is Strategy.SPEED:
        wanted = FAST_SEQS
    elif memory is None:
        wanted = MODERATE_SEQS
    else:
        wanted = next((seqs for limit, seqs in SEQS_BY_GPU_BYTES if memory <= limit), MODERATE_SEQS)
    seqs = min(streams_of(task), wanted)
    settings = plain(model, hardware, task) | {
        "max_num_seqs": seqs,
        "max_model_len": need,
        "max_num_batched_tokens": max(2048, 512 * -(-need // 512)),
    }
    if devices:
        settings["tensor_parallel"] = max(ranks_dividing(model, len(devices)))
        if memory is not None and memory <= SEQS_BY_GPU_BYTES[0][0]:
            offered = _quantisations(model, hardware, options)
            settings["quantization"] = next((method for method in FOUR_BIT if method in offered), "none")
    else:
        settings["kv_cache_bytes"] = _cpu_cache(need * seqs, model, hardware)
    return settings


def conflict(settings: Settings, model: ModelInfo, hardware: Hardware, task: Task) -> str | None:
    """The message key of the rule that the settings break, or None."""
    tokens, length = int(settings["max_num_batched_tokens"] or 0), int(settings["max_model_len"] or 0)
    ranks = [int(settings.get(name) or 1) for name in ("tensor_parallel", "pipeline_parallel", "data_parallel")]
    one_request = _token_bytes(model, drafting=settings.get("speculation") in METHODS.values()) * length
    rules = {
        "length_over_model": model.context_length is not None and length > model.context_length,
        "length_under_task": length < task.context_tokens,
        "tokens_under_seqs": tokens < int(settings["max_num_seqs"] or 0),
        "tokens_under_length": not settings.get("chunked_prefill", True) and tokens < length,
        "too_many_ranks": ranks[0] * ranks[1] * ranks[2] > max(1, len(gpus(hardware))),
        "experts_need_ranks": bool(settings.get("expert_parallel")) and ranks[0] * ranks[2] == 1,
        "cache_under_request": one_request > int(settings.get("kv_cache_bytes") or one_request or 1),
    }
    return next((f"engines.conflict_{rule}" for rule, broken in rules.items() if broken), None)


def _token_bytes(model: ModelInfo, *, drafting: bool) -> float:
    """Cache of one token; of the draft's too where one guesses ahead. 0 where the shape is not known."""
    draft = draft_of(model) if drafting else None
    own = kv_bytes_per_token(model) or 0.0
    return own + ((kv_bytes_per_token(draft.model) or 0.0) if draft else 0.0)


def _dtypes(hardware: Hardware) -> tuple[str, ...]:
    if not gpus(hardware):
        return ("auto", "bfloat16", "float32")
    return ("auto", "float16") if has_bfloat16(hardware) else ("auto",)


def _quantisations(model: ModelInfo, hardware: Hardware, options: Options) -> tuple[str, ...]:
    """Ways to quantise unquantised weights while loading; what a checkpoint already is, vLLM sees by itself."""
    if model.quantization is not None or not gpus(hardware):
        return ("none",)
    wanted = (*FOUR_BIT, *(("fp8",) if has_float8(hardware) else ()))
    return ("none", *(method for method in wanted if method in options.values.get("quantization", ())))


def _cache_types(hardware: Hardware, options: Options) -> tuple[str, ...]:
    eight_bit = has_float8(hardware) and "fp8" in options.values.get("kv_cache_dtype", ())
    return ("auto", "fp8") if eight_bit else ("auto",)


def _drafters(model: ModelInfo, options: Options) -> tuple[str, ...]:
    """Looking up n-grams, and the draft that was given for the model, as far as this version knows its method."""
    if not options.offers("--speculative-config"):
        return ()
    draft = draft_of(model)
    method = METHODS[draft.kind] if draft else ""
    return ("ngram", *((method,) if method in options.values.get("speculation", ()) else ()))


def _backends(hardware: Hardware, options: Options) -> tuple[str, ...]:
    kinds = {device.kind for device in gpus(hardware)}
    if not options.offers("--attention-backend") or not kinds:
        return ("auto",)
    wanted = ("FLASHINFER", "TRITON_ATTN") if kinds == {DeviceType.CUDA} else ("TRITON_ATTN",)
    return ("auto", *(name for name in wanted if name in options.values.get("attention_backend", ())))


def _fitting(context: int, model: ModelInfo, hardware: Hardware, task: Task) -> int:
    """The context, halved while one request of it would not fit beside the weights."""
    per_token = kv_bytes_per_token(model)
    devices = gpus(hardware)
    memory = UTILIZATION * devices[0].total_bytes if devices else KV_SHARE * hardware.memory.available_bytes
    budget = memory - ((model.weight_bytes or 0) if devices else 0)
    while per_token and context * per_token > budget and context // 2 >= task.context_tokens:
        context //= 2
    return context


def _cpu_cache(tokens: int, model: ModelInfo, hardware: Hardware) -> int:
    """Bytes for the cache of a CPU launch: these tokens with some room, or its share of the free RAM if that is less.

    Where the model's shape is not known, the share.
    """
    share = int(KV_SHARE * hardware.memory.available_bytes)
    per_token = kv_bytes_per_token(model)
    wanted = int(tokens * per_token * CACHE_ROOM) if per_token else share
    return max(KV_UNIT, round_up(min(wanted, share), KV_UNIT))
