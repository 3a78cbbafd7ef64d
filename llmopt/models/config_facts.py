"""A model's shape from the config.json its makers published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmopt.models.fields import Fields
from llmopt.models.layers import layer_kinds, recurrent_inner, state_elements

__all__ = ["facts_of_config", "quantization_label"]

_MAX_LAYERS = 4096
_INNER = ("text_config", "llm_config", "language_config")


def facts_of_config(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Fields of ModelInfo as ``config`` states them, the language part of a multimodal model merged in.

    Raises WeightsError for values no model can have. What cannot be derived is left out.
    """
    fields = Fields(_merged(config), path)
    listed = fields.texts("layers_block_type") or fields.texts("layer_types") or ()
    layers = fields.integer("num_hidden_layers", "n_layer", "num_layers") or len(listed)
    if not layers:
        raise fields.bad("num_hidden_layers")
    if layers > _MAX_LAYERS:
        raise fields.bad("num_hidden_layers")
    hidden = fields.needed("hidden_size", "n_embd", "d_model")
    heads = fields.integer("num_attention_heads", "n_head") or 0
    kinds = layer_kinds(fields, layers)
    extra = _extra(fields, kinds, config)
    windowed = kinds.count("S")
    return {
        "architecture": fields.text("model_type"),
        "quantization": quantization_label(fields),
        "layers": layers,
        "hidden_size": hidden,
        "heads": heads or None,
        "kv_heads": _kv_heads(fields, heads),
        "head_dim": _head_dim(fields, hidden, heads),
        "value_head_dim": fields.integer("v_head_dim"),
        "feed_forward": fields.integer("intermediate_size", "n_inner", "ffn_dim", low=0) or None,
        "vocabulary": fields.integer("vocab_size"),
        "context_length": fields.integer("max_position_embeddings", "n_positions", "max_seq_len"),
        "experts": fields.integer("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", low=0)
        or None,
        "active_experts": fields.integer(
            "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "top_k_experts", "moe_topk", low=0
        )
        or None,
        "sliding_window": fields.integer("sliding_window", "attention_chunk_size") if windowed else None,
        "sliding_layers": windowed or None,
        "recurrent_layers": (kinds.count("R") + kinds.count("B")) or None,
        "mla_rank": fields.integer("kv_lora_rank"),
        "mla_rope_dim": fields.integer("qk_rope_head_dim") if fields.integer("kv_lora_rank") else None,
        "extra": extra,
    }


def _merged(config: Mapping[str, Any]) -> dict[str, Any]:
    """Top-level values overlaid by those of the language model inside."""
    merged = dict(config)
    for name in _INNER:
        inner = config.get(name)
        if isinstance(inner, dict):
            merged.update({key: value for key, value in inner.items() if value is not None})
    return merged


def _kv_heads(fields: Fields, heads: int) -> int | tuple[int, ...] | None:
    """KV heads, one number where all layers agree; Llama-Nemotron writes them layer by layer."""
    per_layer = fields.values.get("block_configs")
    if isinstance(per_layer, list):
        counts = [_block_kv_heads(block, heads) for block in per_layer]
        if all(count is not None for count in counts):
            return tuple(count for count in counts if count is not None)
    one = fields.integer("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
    return one or heads or None


def _head_dim(fields: Fields, hidden: int, heads: int) -> int | None:
    """Width of one key head; with latent attention its two parts together."""
    plain, rotary = fields.integer("qk_nope_head_dim"), fields.integer("qk_rope_head_dim")
    if plain and rotary:
        return plain + rotary
    return fields.integer("head_dim", "attention_head_dim") or (hidden // heads if heads else None)


def _block_kv_heads(block: Any, heads: int) -> int | None:
    attention = block.get("attention") if isinstance(block, dict) else None
    if not isinstance(attention, dict):
        return None
    if attention.get("no_op") or attention.get("replace_with_linear"):
        return 0
    group = attention.get("n_heads_in_group")
    return heads // group if type(group) is int and group > 0 else None


def _extra(fields: Fields, kinds: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What only some architectures have, under the names ``models.kv_cache`` reads."""
    extra: dict[str, Any] = {"layer_kinds": kinds}
    if "R" in kinds or "B" in kinds:
        extra |= _recurrent(fields)
    numbers = {
        "sliding_kv_heads": ("swa_num_key_value_heads",),
        "sliding_head_dim": ("swa_head_dim",),
        "sliding_value_head_dim": ("swa_v_head_dim",),
        "indexer_dim": ("index_head_dim",),
        "expert_feed_forward": ("moe_intermediate_size",),
        "shared_experts": ("n_shared_experts", "num_shared_experts"),
        "query_rank": ("q_lora_rank",),
        "nope_head_dim": ("qk_nope_head_dim",),
        "dense_layers": ("first_k_dense_replace",),
    }
    for name, sources in numbers.items():
        value = fields.integer(*sources, low=0)
        if value:
            extra[name] = value
    if fields.integer("global_head_dim"):  # Gemma 4: the plain names describe its sliding layers
        extra["sliding_head_dim"] = fields.integer("head_dim")
        extra["sliding_kv_heads"] = fields.integer("num_key_value_heads")
        extra["full_head_dim"] = fields.integer("global_head_dim")
        extra["full_kv_heads"] = fields.integer("num_global_key_value_heads") or fields.integer("num_key_value_heads")
    if fields.integers("compress_ratios") is not None:
        extra["kv_unknown"] = "compress_ratios"
    tied = fields.flag("tie_word_embeddings")
    if tied is not None:
        extra["tied_embeddings"] = tied
    if isinstance(config.get("auto_map"), dict):
        extra["remote_code"] = True
    if any(isinstance(config.get(name), dict) for name in ("vision_config", "audio_config")):
        extra["multimodal"] = True
    return extra


def _recurrent(fields: Fields) -> dict[str, int]:
    elements, inner = state_elements(fields), recurrent_inner(fields)
    found = {} if elements is None else {"conv_elements": elements[0], "state_elements": elements[1]}
    return found if inner is None else {**found, "recurrent_inner": inner}


def quantization_label(fields: Fields) -> str | None:
    """The weights' quantisation (``awq-4bit``, ``fp8`` …), else their plain data type."""
    given = fields.inner("quantization_config")
    if given is None:
        return fields.text("torch_dtype") or fields.text("dtype")
    method = given.text("quant_method") or given.text("quant_algo") or "quantized"
    bits = given.integer("bits", "w_bit")
    if given.flag("load_in_4bit"):
        bits = 4
    if given.flag("load_in_8bit"):
        bits = 8
    return f"{method}-{bits}bit" if bits else method
