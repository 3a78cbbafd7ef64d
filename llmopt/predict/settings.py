"""From an engine's settings to what the physics and the residual see of them."""

from __future__ import annotations

import math
from dataclasses import replace

from llmopt.models.kv_cache import TYPE_BITS
from llmopt.predict.devices import DeviceSpec
from llmopt.predict.work import Serving, held_bytes
from llmopt.records import ModelInfo, Settings, Task

__all__ = ["as_memory_allows", "features_of_settings", "serving_of"]

_USABLE_SHARE = 0.9
_RUNTIME_BYTES = 4e9
"""Of one GPU: activations, graphs and libraries."""
_WEIGHT_ONLY = {"awq", "gptq", "bitsandbytes", "int4"}
"""Quantisations that store few bits and compute in 16."""
_BITS = {
    "fp8": 8.0,
    "float8": 8.0,
    "int8": 8.5,
    "int4": 4.5,
    "awq": 4.2,
    "gptq": 4.2,
    "bitsandbytes": 4.5,
    "nvfp4": 4.5,
}
_ATTENTION_COST = {"on": 1.5, "off": 2.4}
"""Of an operation of llama.cpp's attention with and without flash, in those of its matrix products: CPU seconds of
prompts of 80 and 300 tokens in one and four slots, measured on one CPU (docs/measurements/prediction.md)."""
_COUNTED = ("threads", "threads_batch", "ubatch", "batch", "max_num_batched_tokens", "max_num_seqs", "slots")
_SWITCHED = ("flash_attention", "kv_unified", "enforce_eager", "enable_prefix_caching", "speculation", "wait_policy")


def serving_of(model: ModelInfo, settings: Settings, task: Task) -> Serving:
    """The load as the engine sees it: as many sequences at once as streams and its own limit allow."""
    streams = task.load.streams or 1
    limit = int(settings.get("slots") or settings.get("max_num_seqs") or streams)
    ranks = int(settings.get("tensor_parallel") or 1)
    bits, arithmetic = _weight_bits(model, settings)
    whole_file = model.format == "gguf"
    cache = str(settings.get("cache_type_k") or settings.get("kv_cache_dtype") or "f16")
    sequences = max(1, min(streams, limit))
    flash = str(settings.get("flash_attention"))
    return Serving(
        sequences=sequences,
        # flash attention skips what is masked; without it every slot's tokens in a shared cache are computed
        attended=float(sequences) if flash == "off" and settings.get("kv_unified") else 1.0,
        attention_cost=_ATTENTION_COST.get(flash, 1.0),
        prompt_tokens=task.prompt_tokens,
        output_tokens=task.max_tokens,
        weight_bits=bits,
        compute_bits=arithmetic,
        head_bits=bits if whole_file else 16.0,
        kv_type=cache if cache in TYPE_BITS else "f16",
        tensor_parallel=ranks,
        data_parallel=int(settings.get("data_parallel") or 1),
        expert_parallel=int(settings.get("expert_parallel") or 1),
    )


def _weight_bits(model: ModelInfo, settings: Settings) -> tuple[float, float | None]:
    """Stored bits of a weight, and the bits of the arithmetic where those are more."""
    if model.format == "gguf" and model.weight_bytes and model.parameters:
        return 8 * model.weight_bytes / model.parameters, 16.0
    chosen = "int4" if settings.get("load_in_4bit") else settings.get("quantization") or model.quantization
    method = str(chosen or "").split("-", maxsplit=1)[0]
    bits = _BITS.get(method)
    if bits is None:
        return (32.0 if settings.get("dtype") == "float32" else 16.0), None
    return bits, 16.0 if method in _WEIGHT_ONLY else None


def as_memory_allows(model: ModelInfo, serving: Serving, spec: DeviceSpec) -> Serving:
    """As many sequences as the cache has room for; the others wait."""
    held = held_bytes(model, serving)
    if held is None or not spec.memory_bytes:
        return serving
    room = _USABLE_SHARE * spec.memory_bytes - held[0] - _RUNTIME_BYTES
    return serving if room <= 0 else replace(serving, sequences=max(1, min(serving.sequences, int(room / held[1]))))


def features_of_settings(settings: Settings) -> dict[str, float]:
    """What the physics does not see of a launch, on scales where equal steps matter about equally."""
    features = {
        f"log2_{name}": math.log2(float(settings[name] or 1)) for name in _COUNTED if _positive(settings.get(name))
    }
    for name in _SWITCHED:
        if name in settings:
            features[f"{name}={settings[name]}"] = 1.0
    for name in ("cache_type_k", "cache_type_v"):
        if name in settings:
            features[f"log2_{name}"] = math.log2(TYPE_BITS.get(str(settings[name]), 16.0))
    return features


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
