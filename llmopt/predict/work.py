"""What one decode step and one prompt must do on one device: bytes to move, operations, exchanges to wait for."""

from __future__ import annotations

from dataclasses import dataclass

from llmopt.models.kv_cache import kv_cache
from llmopt.predict.shape import Shape, shape_of
from llmopt.records import ModelInfo

__all__ = ["Serving", "Work", "held_bytes", "work_of"]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a model is served: ``sequences`` run at once on one attention replica of ``tensor_parallel`` devices."""

    sequences: int
    prompt_tokens: int
    output_tokens: int
    fresh_tokens: int | None = None
    """Of a prompt, those that must be computed, where a cache holds the others."""
    weight_bits: float = 16.0
    compute_bits: float | None = None
    """Of the arithmetic, where it is wider than the stored weights (weight-only formats compute in 16 bits)."""
    expert_bits: float | None = None
    """Of the experts' weights, where they differ."""
    head_bits: float = 16.0
    """Of the embedding and output tables."""
    kv_type: str = "f16"
    attended: float = 1.0
    """Cached tokens that attention visits, over those of the sequence itself: others' too where it skips none."""
    attention_cost: float = 1.0
    """Of one operation of attention, in operations of the usual kernel."""
    tensor_parallel: int = 1
    data_parallel: int = 1
    """Attention replicas that share one set of experts."""
    expert_parallel: int = 1

    @property
    def arithmetic_bits(self) -> float:
        """Of the dense layers' arithmetic."""
        return self.compute_bits or self.weight_bits

    @property
    def expert_arithmetic_bits(self) -> float:
        """Of the experts' arithmetic."""
        return self.compute_bits or self.expert_bits or self.weight_bits

    @property
    def expert_shards(self) -> int:
        """Devices over which the experts are split."""
        together = self.tensor_parallel * (self.data_parallel if self.expert_parallel > 1 else 1)
        return max(together, self.expert_parallel)


@dataclass(frozen=True, kw_only=True)
class Work:
    """For one device. Operations are split by the precision they run in."""

    weight_bytes: float
    cache_bytes: float
    dense_flops: float
    expert_flops: float
    attention_flops: float
    prompt_dense_flops: float
    prompt_expert_flops: float
    prompt_attention_flops: float
    exchange_bytes: float
    exchanges: int
    """Waits for other devices in one step."""
    layers: int
    experts_touched: float
    serving: Serving
    mixture: bool


def work_of(model: ModelInfo, serving: Serving) -> Work | None:
    """The work of ``model`` served so, or None where its shape is not known well enough.

    A step reads every dense weight and each expert that any of its tokens was sent to: E·(1-(1-k/E)^tokens).
    """
    shape = shape_of(model)
    ranks = serving.tensor_parallel
    caches = kv_cache(model, key_type=serving.kv_type, value_type=serving.kv_type, tensor_parallel=ranks)
    if shape is None or caches is None:
        return None
    running = serving.sequences
    prompt = serving.prompt_tokens if serving.fresh_tokens is None else serving.fresh_tokens
    length = round(serving.prompt_tokens + serving.output_tokens / 2)
    attention = serving.attended * serving.attention_cost
    together = running * serving.data_parallel
    touched = _touched(shape, together)
    shards = serving.expert_shards
    expert_bits = serving.expert_bits or serving.weight_bits
    dense_bytes = shape.dense * serving.weight_bits / 8 + shape.head * serving.head_bits / 8
    state_bytes = 2 * running * caches.state_elements * 4  # read and written back
    return Work(
        weight_bytes=dense_bytes / ranks + shape.expert * touched * expert_bits / 8 / shards,
        cache_bytes=running * caches.sequence_bytes(length) + state_bytes,
        dense_flops=2.0 * running * (shape.dense + shape.head) / ranks,
        expert_flops=2.0 * together * shape.expert * shape.active / shards,
        attention_flops=attention * running * length * shape.attention_flops / ranks,
        prompt_dense_flops=2.0 * prompt * shape.dense / ranks,
        prompt_expert_flops=2.0 * prompt * serving.data_parallel * shape.expert * shape.active / shards,
        prompt_attention_flops=attention * shape.prompt_flops * prompt * (2 * serving.prompt_tokens - prompt) / ranks,
        exchange_bytes=_exchange_bytes(shape, serving),
        exchanges=2 * shape.layers if ranks > 1 else 0,
        layers=shape.layers,
        experts_touched=touched,
        serving=serving,
        mixture=shape.experts > 0,
    )


def held_bytes(model: ModelInfo, serving: Serving) -> tuple[float, float] | None:
    """What one device holds: its share of the weights, and of the caches of one average sequence; None if not known."""
    shape, ranks = shape_of(model), serving.tensor_parallel
    caches = kv_cache(model, key_type=serving.kv_type, value_type=serving.kv_type, tensor_parallel=ranks)
    if shape is None or caches is None:
        return None
    tables = shape.head * serving.head_bits / 8 * (1 if model.extra.get("tied_embeddings") else 2)
    dense = (shape.dense * serving.weight_bits / 8 + tables) / ranks
    expert_bits = serving.expert_bits or serving.weight_bits
    experts = shape.expert * shape.experts * expert_bits / 8 / serving.expert_shards
    length = round(serving.prompt_tokens + serving.output_tokens / 2)
    return dense + experts, caches.sequence_bytes(length) + caches.state_elements * 4


def _touched(shape: Shape, tokens: int) -> float:
    return shape.experts * (1 - (1 - shape.active / shape.experts) ** tokens) if shape.experts else 0.0


def _exchange_bytes(shape: Shape, serving: Serving) -> float:
    """Two all-reduces of 16-bit activations a layer; with expert parallelism, tokens sent to experts and back."""
    ranks, running = serving.tensor_parallel, serving.sequences
    reduced = 2.0 * shape.layers * running * shape.hidden * 2 * 2 * (ranks - 1) / ranks
    sent = 2.0 * shape.layers * running * shape.active * shape.hidden if serving.expert_parallel > 1 else 0.0
    return reduced + sent
