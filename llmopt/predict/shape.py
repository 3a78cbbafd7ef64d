"""How many weights each part of a model has, and what a token costs in its attention."""

from __future__ import annotations

from dataclasses import dataclass

from llmopt.records import ModelInfo

__all__ = ["Shape", "shape_of"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Weights in numbers, not bytes. ``expert`` is one expert in all its layers together."""

    layers: int
    hidden: int
    dense: float
    """Attention, recurrent projections, feed-forward layers and shared experts: read for every token."""
    head: float
    expert: float
    experts: int
    active: int
    attention_layers: int
    attention_flops: float
    """Of one token against one earlier token, in all full layers."""
    prompt_flops: float
    """Of causal attention for each squared prompt token, in all full layers."""


def shape_of(model: ModelInfo) -> Shape | None:
    """The parts of ``model``, or None where its shape is not known well enough.

    Weights of a layer: GQA 2·h·(H+K)·d; MLA its five projections; recurrent h·(convolution + 2·inner); SwiGLU 3·h·f.
    """
    layers, hidden, heads = model.layers, model.hidden_size, model.heads
    width, vocabulary = model.head_dim, model.vocabulary
    if layers is None or hidden is None or heads is None or width is None or vocabulary is None:
        return None
    attention = _attention_weights(model, hidden, heads, width)
    feed_forward = _feed_forward(model, layers, hidden)
    if attention is None or feed_forward is None:
        return None
    kinds = str(model.extra.get("layer_kinds", "F" * layers))
    attending = sum(kinds.count(kind) for kind in "FSB")
    recurrent = kinds.count("R") + kinds.count("B")
    inner = model.extra.get("recurrent_inner")
    if recurrent and (inner is None or "conv_elements" not in model.extra):
        return None
    convolution = model.extra.get("conv_elements", 0) / 3  # its kernel is 4 wide wherever one is published
    dense, expert = feed_forward
    full = kinds.count("F") + kinds.count("B")
    return Shape(
        layers=layers,
        hidden=hidden,
        dense=attention * attending + recurrent * hidden * (convolution + 2 * (inner or 0)) + dense,
        head=vocabulary * hidden,
        expert=expert,
        experts=(model.experts or 0) if expert else 0,
        active=(model.active_experts or 0) if expert else 0,
        attention_layers=attending,
        attention_flops=full * 2.0 * _pair_elements(model, heads, width),
        prompt_flops=full * 2.0 * heads * width,
    )


def _attention_weights(model: ModelInfo, hidden: int, heads: int, width: int) -> float | None:
    if model.mla_rank is not None:
        rope = model.mla_rope_dim or 0
        value = model.value_head_dim or width
        plain = int(model.extra.get("nope_head_dim", width - rope))
        query_rank = int(model.extra.get("query_rank", 0))
        query = hidden * query_rank + query_rank * heads * width if query_rank else hidden * heads * width
        keys = hidden * (model.mla_rank + rope) + model.mla_rank * heads * (plain + value)
        return query + keys + heads * value * hidden
    if model.kv_heads is None:
        return None
    kv_heads = sum(model.kv_heads) / len(model.kv_heads) if isinstance(model.kv_heads, tuple) else model.kv_heads
    return 2.0 * hidden * width * (heads + kv_heads)


def _pair_elements(model: ModelInfo, heads: int, width: int) -> float:
    """Multiply-adds of one query against one cached token: keys and values, in latent space where that is kept."""
    if model.mla_rank is not None:
        return heads * (2.0 * model.mla_rank + (model.mla_rope_dim or 0))
    return 2.0 * heads * width


def _feed_forward(model: ModelInfo, layers: int, hidden: int) -> tuple[float, float] | None:
    """Weights of the dense feed-forward parts, and of one expert, over all layers."""
    if not model.experts:
        return None if model.feed_forward is None else (layers * 3.0 * hidden * model.feed_forward, 0.0)
    width = model.extra.get("expert_feed_forward") or model.feed_forward
    if width is None or not model.active_experts:
        return None
    first = int(model.extra.get("dense_layers", 0))
    shared = int(model.extra.get("shared_experts", 0))
    dense = first * 3.0 * hidden * (model.feed_forward or 0) + (layers - first) * shared * 3.0 * hidden * width
    return dense, (layers - first) * 3.0 * hidden * width
