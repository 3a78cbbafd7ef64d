"""A model's shape from its GGUF header."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmopt.models.fields import Fields
from llmopt.models.gguf import ArrayShape, GgufHeader, read_gguf_header
from llmopt.models.header_errors import bad_header
from llmopt.models.layers import pattern_kinds

__all__ = ["facts_of_gguf", "split_headers"]

_MAX_LAYERS = 4096
_SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_FILE_TYPES = {
    # general.file_type → the name users know (llama.cpp's llama_ftype)
    **dict(enumerate(("F32", "F16", "Q4_0", "Q4_1"))),
    **dict(enumerate(("Q8_0", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M"), 7)),
    **dict(enumerate(("Q5_K_S", "Q5_K_M", "Q6_K", "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S"), 16)),
    **dict(enumerate(("IQ4_NL", "IQ3_S", "IQ3_M", "IQ2_S", "IQ2_M", "IQ4_XS", "IQ1_M", "BF16"), 25)),
    **dict(enumerate(("TQ1_0", "TQ2_0", "MXFP4_MOE", "NVFP4", "Q1_0"), 36)),
}
_PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "cohere2": 4, "exaone4": 4, "gpt-oss": 2, "llama4": 4, "olmo2": 4}
"""Every n-th layer is full where llama.cpp's code knows it and the file need not say so."""
_LLAMA4_CHUNK = 8192
_NO_WINDOW_IN_ENGINE = {"phi3", "qwen2", "llama"}
"""Families whose window llama.cpp does not use: it keeps full caches for them."""


def split_headers(path: Path) -> tuple[GgufHeader, ...]:
    """The header of ``path``, and those of its other parts where the weights are split over several files."""
    first = read_gguf_header(path)
    count = first.values.get("split.count", 0)
    match = _SPLIT_NAME.fullmatch(path.name)
    if not isinstance(count, int) or count <= 1 or match is None:
        return (first,)
    stem, _, total = match.groups()
    names = [f"{stem}-{number:05d}-of-{total}.gguf" for number in range(1, int(total) + 1)]
    if int(total) != count or path.name != names[0]:
        raise bad_header(path, "missing_shard", name=names[0])
    for name in names:
        if not path.with_name(name).is_file():
            raise bad_header(path, "missing_shard", name=name)
    return (first, *(read_gguf_header(path.with_name(name)) for name in names[1:]))


def facts_of_gguf(headers: tuple[GgufHeader, ...], path: Path) -> dict[str, Any]:
    """Fields of ModelInfo from the header (of all parts); raises WeightsError for values no model can have."""
    values = headers[0].values
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", architecture):
        raise bad_header(path, "field", name="general.architecture")
    prefix = architecture + "."
    fields = Fields({key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}, path)
    layers = fields.needed("block_count")
    if layers > _MAX_LAYERS:
        raise fields.bad("block_count")
    tensors = [tensor for header in headers for tensor in header.tensors]
    kinds = _kinds(fields, architecture, layers)
    template = values.get("tokenizer.chat_template")
    heads = _largest(fields, "attention.head_count")
    hidden = fields.needed("embedding_length")
    mla = fields.integer("attention.kv_lora_rank")
    return {
        "architecture": architecture,
        "parameters": sum(tensor.weights for tensor in tensors),
        "weight_bytes": sum(tensor.size_bytes for tensor in tensors),
        "quantization": _label(values, _bytes_by_type(headers)),
        "layers": layers,
        "hidden_size": hidden,
        "heads": heads,
        "kv_heads": _kv_heads(fields, kinds, heads),
        "head_dim": fields.integer("attention.key_length") or (hidden // heads if heads else None),
        "value_head_dim": fields.integer("attention.value_length"),
        "feed_forward": _largest(fields, "feed_forward_length"),
        "vocabulary": _vocabulary(values, fields),
        "context_length": fields.integer("context_length"),
        "experts": fields.integer("expert_count", low=0) or None,
        "active_experts": fields.integer("expert_used_count", low=0) or None,
        "sliding_window": (fields.integer("attention.sliding_window") or _LLAMA4_CHUNK) if "S" in kinds else None,
        "sliding_layers": kinds.count("S") or None,
        "recurrent_layers": (kinds.count("R") + kinds.count("B")) or None,
        "mla_rank": mla,
        "mla_rope_dim": fields.integer("rope.dimension_count") if mla else None,
        "chat_template": isinstance(template, str) and bool(template),
        "thinking": _thinks(template) if isinstance(template, str) else None,
        "license": values["general.license"] if isinstance(values.get("general.license"), str) else None,
        "extra": _extra(fields, kinds, headers),
    }


def _kinds(fields: Fields, architecture: str, layers: int) -> str:
    """One letter a layer (see ``models.layers``)."""
    heads = fields.integers("attention.head_count_kv")
    if fields.integer("ssm.inner_size") or fields.integer("shortconv.l_cache"):
        interval = fields.integer("full_attention_interval")
        if heads is not None:
            return _by_heads(heads, layers, "R")
        if interval is not None:
            return "".join("F" if (index + 1) % interval == 0 else "R" for index in range(layers))
        return "B" * layers if architecture == "falcon-h1" else "R" * layers
    if heads is not None and 0 in heads:
        return _by_heads(heads, layers, "N")
    shared = min(fields.integer("attention.shared_kv_layers", low=0) or 0, layers)
    return _windowed(fields, architecture, layers)[: layers - shared] + "N" * shared


def _by_heads(heads: tuple[int, ...], layers: int, without: str) -> str:
    return "".join("F" if index < len(heads) and heads[index] else without for index in range(layers))


def _windowed(fields: Fields, architecture: str, layers: int) -> str:
    window = fields.integer("attention.sliding_window", low=0)
    pattern = fields.integers("attention.sliding_window_pattern")
    if pattern is not None and len(pattern) >= layers:
        return "".join("S" if flag else "F" for flag in pattern[:layers])
    if architecture in _NO_WINDOW_IN_ENGINE or (not window and architecture != "llama4"):
        return "F" * layers
    period = fields.integer("attention.sliding_window_pattern", low=0)
    return pattern_kinds(layers, _PERIODS.get(architecture, 1) if period is None else period)


def _kv_heads(fields: Fields, kinds: str, heads: int | None) -> int | tuple[int, ...] | None:
    per_layer = fields.integers("attention.head_count_kv")
    if per_layer is None:
        return fields.integer("attention.head_count_kv") or heads
    used = {count for count, kind in zip(per_layer, kinds, strict=False) if kind in "FSB"}
    return used.pop() if len(used) == 1 else per_layer


def _largest(fields: Fields, name: str) -> int | None:
    """A number, or the largest of a list with one number a layer."""
    several = fields.integers(name)
    return max(several, default=0) or None if several is not None else fields.integer(name, low=0) or None


def _vocabulary(values: Mapping[str, Any], fields: Fields) -> int | None:
    tokens = values.get("tokenizer.ggml.tokens")
    return tokens.length if isinstance(tokens, ArrayShape) else fields.integer("vocab_size")


def _bytes_by_type(headers: tuple[GgufHeader, ...]) -> Counter[str]:
    """Weight bytes of each tensor type; the token embedding, which is looked up and never multiplied, left out."""
    total: Counter[str] = Counter()
    for header in headers:
        for tensor in header.tensors:
            if tensor.name != "token_embd.weight":
                total[tensor.type] += tensor.size_bytes
    return total


def _label(values: Mapping[str, Any], by_type: Counter[str]) -> str | None:
    file_type = values.get("general.file_type")
    if isinstance(file_type, int) and file_type in _FILE_TYPES:
        return _FILE_TYPES[file_type]
    return by_type.most_common(1)[0][0] if by_type else None


def _thinks(template: str) -> bool:
    return "<think>" in template or "enable_thinking" in template


def _extra(fields: Fields, kinds: str, headers: tuple[GgufHeader, ...]) -> dict[str, Any]:
    """What memory and speed formulas need besides the common fields."""
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    extra: dict[str, Any] = {"layer_kinds": kinds, "file_bytes": sum(header.file_bytes for header in headers)}
    expert_bytes = sum(tensor.size_bytes for name, tensor in tensors.items() if "_exps." in name)
    embedding = tensors.get("token_embd.weight")
    extra["bytes_by_type"] = dict(_bytes_by_type(headers))
    merges = headers[0].values.get("tokenizer.ggml.merges")
    if isinstance(merges, ArrayShape):
        extra["merges"] = merges.length
    if expert_bytes:
        extra["expert_bytes"] = expert_bytes
    if embedding is not None:
        extra["embedding_bytes"] = embedding.size_bytes
    extra["tied_embeddings"] = "output.weight" not in tensors
    for name, source in (
        ("sliding_head_dim", "attention.key_length_swa"),
        ("sliding_value_head_dim", "attention.value_length_swa"),
        ("expert_feed_forward", "expert_feed_forward_length"),
        ("indexer_dim", "attention.indexer.key_length"),
    ):
        value = fields.integer(source)
        if value:
            extra[name] = value
    if "R" in kinds or "B" in kinds:
        extra.update(_states(fields))
    return extra


def _states(fields: Fields) -> dict[str, int]:
    """Elements one sequence keeps in one recurrent layer, as llama.cpp's recurrent memory counts them."""
    hidden = fields.needed("embedding_length")
    if fields.integer("shortconv.l_cache"):
        return {"conv_elements": hidden * (fields.needed("shortconv.l_cache") - 1), "state_elements": 0}
    inner, state = fields.integer("ssm.inner_size"), fields.integer("ssm.state_size")
    kernel, groups = fields.integer("ssm.conv_kernel"), fields.integer("ssm.group_count", low=0) or 0
    if not inner or not state or not kernel:
        return {}
    return {"conv_elements": (kernel - 1) * (inner + 2 * groups * state), "state_elements": state * inner}
