"""Bytes a model keeps for the tokens it has seen, layer by layer.

Full attention keeps a key and a value of ``kv_heads · head_dim`` for each token; a sliding window keeps them for its
last tokens only; latent attention (MLA) keeps one vector of ``rank + rope`` for both, the same on every tensor-parallel
rank; recurrent layers keep a constant state for each sequence. Sources: the GQA and MLA papers (arXiv:2305.13245,
arXiv:2405.04434) and llama.cpp's and vLLM's cache code, whose block sizes ``TYPE_BITS`` follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llmopt.records import ModelInfo

__all__ = ["TYPE_BITS", "KvCache", "kv_bytes_per_token", "kv_cache"]

TYPE_BITS: Mapping[str, float] = MappingProxyType(
    {
        **dict.fromkeys(("f32", "float32"), 32.0),
        **dict.fromkeys(("f16", "bf16", "float16", "bfloat16", "auto"), 16.0),
        **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2", "float8", "int8"), 8.0),
        "q8_0": 8.5,
        "q5_1": 6.0,
        "q5_0": 5.5,
        "q4_1": 5.0,
        "q4_0": 4.5,
        "iq4_nl": 4.5,
    }
)
"""Bits of one stored element by the names engines give their cache types; block formats with their scales."""
_INDEXER_SCALE_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class KvCache:
    """What a model's caches cost: for each token in full and in sliding layers, and for each sequence."""

    full_bytes: float
    """A token's bytes in all full-attention layers together."""
    sliding_bytes: float
    """A token's bytes in all sliding layers together, while it is inside the window."""
    window: int
    state_elements: int
    """Elements of convolution and recurrent state that one sequence keeps in all its layers."""

    @property
    def token_bytes(self) -> float:
        """What one more token costs while every window still has room."""
        return self.full_bytes + self.sliding_bytes

    def sequence_bytes(self, tokens: int, *, extra_window: int = 0) -> float:
        """One sequence of ``tokens``; ``extra_window`` are tokens a sliding cache keeps beyond its window."""
        inside = min(tokens, self.window + extra_window) if self.window else tokens
        return self.full_bytes * tokens + self.sliding_bytes * inside


def kv_cache(
    model: ModelInfo, *, key_type: str = "f16", value_type: str = "f16", tensor_parallel: int = 1
) -> KvCache | None:
    """The caches of ``model`` on one of ``tensor_parallel`` ranks; None where its shape is not known well enough.

    Grouped heads are split over the ranks down to one head each, beyond which ranks keep copies.
    """
    kinds = _kinds(model)
    if kinds is None or key_type not in TYPE_BITS or value_type not in TYPE_BITS:
        return None
    key_bytes, value_bytes = TYPE_BITS[key_type] / 8, TYPE_BITS[value_type] / 8
    full = sliding = 0.0
    for index, kind in enumerate(kinds):
        if kind in "FSB":
            elements = _layer_elements(model, index, kind, tensor_parallel)
            if elements is None:
                return None
            cost = elements[0] * key_bytes + elements[1] * value_bytes
            full, sliding = (full, sliding + cost) if kind == "S" else (full + cost, sliding)
            if "indexer_dim" in model.extra and kind != "S":
                full += model.extra["indexer_dim"] + _INDEXER_SCALE_BYTES  # 8-bit keys with one scale
    recurrent = kinds.count("R") + kinds.count("B")
    if recurrent and "conv_elements" not in model.extra:
        return None
    per_layer = model.extra.get("conv_elements", 0) + model.extra.get("state_elements", 0)
    return KvCache(
        full_bytes=full,
        sliding_bytes=sliding,
        window=model.sliding_window or 0,
        state_elements=-(-recurrent * per_layer // tensor_parallel),
    )


def kv_bytes_per_token(
    model: ModelInfo, *, key_type: str = "f16", value_type: str = "f16", tensor_parallel: int = 1
) -> float | None:
    """Bytes one more token costs (inside every window) on one rank; None where the model's shape is not known."""
    cache = kv_cache(model, key_type=key_type, value_type=value_type, tensor_parallel=tensor_parallel)
    return None if cache is None else cache.token_bytes


def _kinds(model: ModelInfo) -> str | None:
    """One letter a layer (see ``models.layers``), or None where it cannot be told."""
    if model.layers is None or "kv_unknown" in model.extra:
        return None
    kinds = model.extra.get("layer_kinds")
    if kinds is None:
        if model.sliding_layers or model.recurrent_layers:
            return None
        return "F" * model.layers
    return None if "?" in kinds else str(kinds)


def _layer_elements(model: ModelInfo, index: int, kind: str, ranks: int) -> tuple[int, int] | None:
    """Key and value elements one token keeps in this layer on one rank."""
    if model.mla_rank is not None:
        return model.mla_rank + (model.mla_rope_dim or 0), 0
    prefix = "sliding" if kind == "S" else "full"
    heads = model.kv_heads[index] if isinstance(model.kv_heads, tuple) else model.kv_heads
    heads = model.extra.get(f"{prefix}_kv_heads", heads)
    width = model.extra.get(f"{prefix}_head_dim", model.head_dim)
    if heads is None or width is None:
        return None
    value_width = model.extra.get(f"{prefix}_value_head_dim")
    if value_width is None:
        value_width = model.value_head_dim if f"{prefix}_head_dim" not in model.extra else width
    on_rank = -(-heads // ranks) if heads >= ranks else min(heads, 1)
    return on_rank * width, on_rank * (value_width or width)
