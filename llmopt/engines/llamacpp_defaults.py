"""Starting points for llama.cpp: what its plain command resolves to, and the specification's hardware table."""

from __future__ import annotations

import math
import sys

from llmopt.engines.llamacpp_native import native_server
from llmopt.engines.probing import ask_json
from llmopt.engines.sizing import round_up, streams_of, usable_threads
from llmopt.models.kv_cache import kv_bytes_per_token
from llmopt.records import DeviceType, Hardware, ModelInfo, Settings, SettingValue, Strategy, Task

__all__ = ["OPENMP", "all_layers", "offload_devices", "plain", "preset", "tensor_splits"]

OPENMP = sys.platform == "linux"
"""The Linux wheel is built with OpenMP: there llama.cpp's own polling has no effect, OpenMP's wait policy has."""
CONTEXT_UNIT = 256
"""llama.cpp pads the context of a sequence to this many tokens."""
CONTEXT = 4096
"""Taken where a header names no context length."""
SLOTS = 4
"""What ``--parallel auto`` becomes, with one KV cache for all slots."""
BATCH = 2048
UBATCH = 512
POLL = 50
HTTP_THREADS = 64
"""Enough that waiting requests never keep /health or /metrics from being answered."""
MEMORY_SHARE = 0.8
"""The share of available memory the plain command's weights and KV cache may take together."""
GIB = 1 << 30
GPUS = frozenset({DeviceType.CUDA, DeviceType.ROCM, DeviceType.XPU, DeviceType.MPS})
SLOTS_BY_GPU_BYTES = ((8 * GIB, 1), (16 * GIB, 2))
"""The specification's batch sizes by GPU memory; above the last one, 4."""
FAST_SLOTS = 16


def plain(model: ModelInfo, hardware: Hardware, task: Task) -> Settings:
    """``llama-server -m MODEL``: four slots over one cache of the model's own context, physical cores, f16, flash on.

    ``--parallel auto`` is four slots with one cache; ``--flash-attn auto`` is on wherever the backend has it, which the
    CPU and every current GPU backend have. A context that would not fit is halved until it does.
    """
    context = _bounded_context(model, hardware, task)
    threads = max(1, hardware.cpu.physical_cores)
    settings = _common(task, threads=threads, threads_batch=threads)
    return (
        settings | {"slots": SLOTS, "context": context, "kv_unified": True, **_batches(context)} | _gpu(model, hardware)
    )


def preset(model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> Settings:
    """Without a GPU: physical cores, as far as we may use them; with one: slots by its memory, 16 for speed."""
    usable = usable_threads(hardware)
    slots = min(streams_of(task), _slots(hardware, strategy))
    context = slots * round_up(task.context_tokens, CONTEXT_UNIT)
    settings = _common(task, threads=max(1, min(hardware.cpu.physical_cores, usable)), threads_batch=usable)
    return (
        settings
        | {"slots": slots, "context": context, "kv_unified": False, **_batches(context)}
        | _gpu(model, hardware)
    )


def all_layers(model: ModelInfo) -> int:
    """Layers to name so that every one is on the GPU, the output layer included."""
    return (model.layers or 998) + 1


def offload_devices(hardware: Hardware) -> int:
    """How many GPUs of this machine the build in use can compute on (asked of the build, once); 0 for a CPU build."""
    present = sum(device.kind in GPUS for device in hardware.devices)
    if not present:
        return 0
    native = native_server(only_if_configured=True)
    if native is not None:
        return min(present, len(native.devices))
    build = ask_json("llamacpp_server.py", "version")
    return min(present, sum(device["name"] != "CPU" for device in build["devices"])) if build else 0


def tensor_splits(hardware: Hardware) -> tuple[str, ...]:
    """Shares of the layers for each GPU: by memory, as llama.cpp does by itself, and even; empty below two GPUs.

    Also empty where the build sees only some of the GPUs: which ones is not known.
    """
    sizes = [max(1, round(device.total_bytes / GIB)) for device in hardware.devices if device.kind in GPUS]
    if len(sizes) < 2 or offload_devices(hardware) != len(sizes):  # noqa: PLR2004 - a split needs two
        return ()
    unit = math.gcd(*sizes)
    even = ",".join("1" for _ in sizes)
    return tuple(dict.fromkeys((",".join(str(size // unit) for size in sizes), even)))


def _common(task: Task, *, threads: int, threads_batch: int) -> dict[str, SettingValue]:
    settings: dict[str, SettingValue] = {
        "threads": threads,
        "threads_batch": threads_batch,
        "cache_type_k": "f16",
        "cache_type_v": "f16",
        "flash_attention": "on",
        "speculation": "off",
    }
    settings |= {"wait_policy": "default"} if OPENMP else {"poll": POLL}
    # the server keeps every slot's last prompt unless told otherwise
    return settings | ({"prefix_cache": True, "cache_reuse": 0} if task.prefix_cache else {})


def _batches(context: int) -> dict[str, SettingValue]:
    """The default batch sizes as llama.cpp cuts them to the context."""
    return {"batch": min(BATCH, context), "ubatch": min(UBATCH, context)}


def _gpu(model: ModelInfo, hardware: Hardware) -> dict[str, SettingValue]:
    """Everything on the GPUs, layer by layer: what ``--gpu-layers auto`` does where it fits."""
    devices = offload_devices(hardware)
    if not devices:
        return {}
    settings: dict[str, SettingValue] = {"gpu_layers": all_layers(model)}
    settings |= {"split_mode": "layer"} if devices > 1 else {}
    settings |= {"tensor_split": splits[0]} if (splits := tensor_splits(hardware)) else {}
    return settings | ({"cpu_expert_layers": 0} if model.experts and model.layers else {})


def _slots(hardware: Hardware, strategy: Strategy | None) -> int:
    if strategy is Strategy.SPEED:
        return FAST_SLOTS
    memory = max((device.total_bytes for device in hardware.devices if device.kind in GPUS), default=None)
    if memory is None:
        return SLOTS
    return next((slots for limit, slots in SLOTS_BY_GPU_BYTES if memory <= limit), SLOTS)


def _bounded_context(model: ModelInfo, hardware: Hardware, task: Task) -> int:
    """The model's context, halved while weights and an f16 cache of it exceed their share of the free memory."""
    context = model.context_length or CONTEXT
    per_token = kv_bytes_per_token(model)
    if per_token is None:
        return context
    free = max((device.free_bytes for device in hardware.devices), default=0) if offload_devices(hardware) else 0
    budget = MEMORY_SHARE * (free or hardware.memory.available_bytes) - (model.weight_bytes or 0)
    least = round_up(task.context_tokens, CONTEXT_UNIT)
    while context * per_token > budget and context // 2 >= least:
        context //= 2
    return context
