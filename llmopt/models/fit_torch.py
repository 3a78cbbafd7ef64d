"""What vLLM, SGLang and transformers hold in memory.

Paged engines (vLLM, SGLang) take a fixed share of each GPU and give to the KV cache what weights, activations, graphs
and libraries leave; they need room for one sequence of the full length at least. Activation peak for n tokens at once:
``2 · n · heads · head_dim · c`` bytes with c = 10, 6, 5, 5 for 1, 2, 4, 8 tensor-parallel ranks, plus 4-byte logits;
weights split over the ranks, latent attention's cache copied on each. Sources: vLLM's profiling run, the default table
of NVIDIA's aiconfigurator, and 551 MiB (libraries) / 340–390 MiB (collectives) as measured there.
"""

from __future__ import annotations

from llmopt.models.kv_cache import TYPE_BITS, kv_cache
from llmopt.models.memory_fit import Part
from llmopt.records import Hardware, ModelInfo, Settings, Task

__all__ = ["paged_parts", "transformers_parts", "weight_bytes"]

_MIB = 1 << 20
_BLOCK_TOKENS = 16
_ACTIVATION = {1: 10, 2: 6, 4: 5, 8: 5}
_LIBRARY_BYTES = 551 * _MIB
_COMMUNICATION_BYTES = 390 * _MIB
_GRAPH_BYTES = 768 * _MIB
"""Captured graphs of the usual batch sizes; engines report 0.5–3 GiB, growing with layers and sizes."""
_TORCH_HOST_BYTES = 475 * _MIB
"""An interpreter with torch and transformers imported and serving, as measured (transformers 5.24, torch 2.13, CPU)."""
_VLLM_HOST_BYTES = 1800 * _MIB
"""vLLM's API and engine processes, without weights."""
_VLLM_CPU_BYTES = 1670 * _MIB
_KEPT_SHARE = 0.5
"""The same with the worker of its CPU build (0.32), and the share of unpacked matrices that the allocator keeps: as
measured in 11 launches of two models, the share between a quarter and three quarters."""
_UTILISATION = 0.90
_PLAIN_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
_QUANTISED_BITS = {"int8": 8.5, "float8": 8.1, "int4": 4.5}
"""With scales; embedding and output head stay at 16 bits beside them."""


def weight_bytes(model: ModelInfo, dtype: str | None) -> int | None:
    """Bytes of the weights once loaded as ``dtype``; None or ``auto`` is as they are stored.

    Quantised precisions leave the embedding (and an untied output head) at 16 bits, as loaders do.
    """
    stored = model.weight_bytes
    if dtype in {None, "auto"} and stored is not None and model.format == "safetensors":
        return stored
    if model.parameters is None:
        return stored
    if dtype in {None, "auto"} or dtype in _PLAIN_BITS:
        return model.parameters * _PLAIN_BITS.get(dtype or "", 16) // 8
    if dtype not in _QUANTISED_BITS:
        return stored
    table = (model.vocabulary or 0) * (model.hidden_size or 0)
    plain = min(model.parameters, table * (1 if model.extra.get("tied_embeddings") else 2))
    return round((model.parameters - plain) * _QUANTISED_BITS[dtype] / 8 + plain * 2)


def _loaded_weights(model: ModelInfo, settings: Settings) -> int | None:
    """What the settings make of the weights: load-time quantisation first, else the data type."""
    if settings.get("load_in_4bit") or settings.get("quantization") in {"bitsandbytes", "int4", "bnb-4bit"}:
        return weight_bytes(model, "int4")
    if settings.get("load_in_8bit") or settings.get("quantization") in {"int8", "bnb-8bit"}:
        return weight_bytes(model, "int8")
    if settings.get("quantization") == "fp8":
        return weight_bytes(model, "float8")
    dtype = settings.get("dtype")
    if model.quantization not in {None, *_PLAIN_BITS}:  # already quantised files stay as they are
        return model.weight_bytes if model.weight_bytes is not None else weight_bytes(model, "int4")
    return weight_bytes(model, None if dtype is None else str(dtype))


def paged_parts(model: ModelInfo, settings: Settings, hardware: Hardware, task: Task) -> tuple[Part, ...] | None:
    """The parts of a vLLM or SGLang launch on all its ranks together, or None where the shape is not known."""
    ranks = int(settings.get("tensor_parallel") or 1)
    stages = int(settings.get("pipeline_parallel") or 1)
    weights = _loaded_weights(model, settings)
    kv_type = str(settings.get("kv_cache_dtype") or "auto")
    caches = kv_cache(
        model,
        key_type=kv_type if kv_type in TYPE_BITS else "fp8",
        value_type=kv_type if kv_type in TYPE_BITS else "fp8",
        tensor_parallel=ranks,
    )
    if weights is None or caches is None or model.heads is None or model.head_dim is None:
        return None
    length = int(settings.get("max_model_len") or model.context_length or task.context_tokens)
    sequence = caches.sequence_bytes(_blocks(length)) + caches.state_elements * 2
    together = ranks * stages
    activations = _activation_bytes(model, settings, ranks) * together
    if not hardware.devices:
        return _paged_on_cpu(model, settings, weights, sequence, activations)
    fixed = (_LIBRARY_BYTES + (0 if settings.get("enforce_eager") else _GRAPH_BYTES)) * together
    collective = _COMMUNICATION_BYTES * together if together > 1 else 0
    share = float(settings.get("gpu_memory_utilization") or _UTILISATION)
    budget = share * min(device.total_bytes for device in hardware.devices) * together
    left = budget - weights - activations - fixed - collective
    one = round(sequence * ranks)
    return tuple(
        part
        for part in (
            Part(name="weights", size_bytes=weights, place="device"),
            Part(name="kv", size_bytes=max(one, round(left)), least_bytes=one, place="device"),
            Part(name="compute", size_bytes=activations, place="device"),
            Part(name="graphs", size_bytes=fixed - _LIBRARY_BYTES * together, place="device"),
            Part(name="communication", size_bytes=collective, place="device"),
            Part(name="runtime", size_bytes=_LIBRARY_BYTES * together, place="device"),
            Part(name="runtime", size_bytes=_VLLM_HOST_BYTES),
        )
        if part.size_bytes
    )


def _paged_on_cpu(
    model: ModelInfo, settings: Settings, weights: int, sequence: float, activations: int
) -> tuple[Part, ...]:
    """Without a GPU the cache has the size it is given, and weights are read into anonymous memory.

    Matrices are packed for the processor's kernels: embedding and head are then held in both forms, and of the others'
    first form a part stays with the allocator.
    """
    cache = float(settings.get("kv_cache_bytes") or 0)
    tables = (model.vocabulary or 0) * (model.hidden_size or 0) * (1 if model.extra.get("tied_embeddings") else 2)
    twice = min(1.0, tables / model.parameters) if model.parameters else 0.0
    packed = round(weights * (twice + _KEPT_SHARE * (1.0 - twice)))
    return (
        Part(name="weights", size_bytes=weights),
        Part(name="kv", size_bytes=round(max(cache, sequence))),
        Part(name="compute", size_bytes=activations),
        Part(name="runtime", size_bytes=_VLLM_CPU_BYTES + packed),
    )


def _blocks(tokens: int) -> int:
    return -(-tokens // _BLOCK_TOKENS) * _BLOCK_TOKENS


def _activation_bytes(model: ModelInfo, settings: Settings, ranks: int) -> int:
    tokens = int(settings.get("max_num_batched_tokens") or 2048)
    sequences = int(settings.get("max_num_seqs") or 256)
    factor = _ACTIVATION.get(ranks, 5)
    width = (model.heads or 0) * (model.head_dim or 0)
    return round(2 * tokens * width * factor + sequences * (model.vocabulary or 0) * 4 / ranks)


def transformers_parts(model: ModelInfo, settings: Settings, hardware: Hardware, task: Task) -> tuple[Part, ...] | None:
    """The parts of ``transformers serve``: weights, one growing cache a running request, activations of its prompt."""
    weights = _loaded_weights(model, settings)
    caches = kv_cache(model)
    if weights is None or caches is None or model.heads is None or model.head_dim is None:
        return None
    # this library unpacks latent attention into whole heads before it caches them
    unpacked = _unpacked_latent(model)
    token = caches.token_bytes if unpacked is None else unpacked
    running = _running(settings, task)
    paged = int(settings.get("cache_blocks") or 0) * int(settings.get("block_size") or 0)
    tokens = paged if settings.get("continuous_batching") and paged else running * task.context_tokens
    kv = token * tokens + running * caches.state_elements * 4
    wide = {**settings, "max_num_batched_tokens": max(512, task.prompt_tokens), "max_num_seqs": running}
    on_device = bool(hardware.devices) and settings.get("device") != "cpu"
    bits = 4 if not on_device and str(settings.get("dtype")) == "float32" else 2
    found = [
        Part(name="weights", size_bytes=weights, place="device" if on_device else "host"),
        Part(name="kv", size_bytes=round(kv * bits / 2), place="device" if on_device else "host"),
        Part(name="compute", size_bytes=_activation_bytes(model, wide, 1), place="device" if on_device else "host"),
        Part(name="runtime", size_bytes=_TORCH_HOST_BYTES + _converting(model, settings)),
    ]
    if on_device:
        found.append(Part(name="runtime", size_bytes=_LIBRARY_BYTES, place="device"))
    return tuple(found)


def _converting(model: ModelInfo, settings: Settings) -> int:
    """Where weights are loaded in another type than they are stored in, the largest tensor is held in both."""
    if model.quantization not in _PLAIN_BITS or settings.get("dtype") in {None, "auto", model.quantization}:
        return 0
    return (model.vocabulary or 0) * (model.hidden_size or 0) * _PLAIN_BITS[model.quantization] // 8


def _running(settings: Settings, task: Task) -> int:
    """Requests at once: one after the other without continuous batching."""
    if settings.get("continuous_batching") is False:
        return 1
    return int(settings.get("max_batch_size") or task.load.streams or 1)


def _unpacked_latent(model: ModelInfo) -> float | None:
    if model.mla_rank is None or model.heads is None or model.layers is None:
        return None
    width = (model.head_dim or 0) + (model.value_head_dim or model.head_dim or 0)
    return 2.0 * model.layers * model.heads * width
