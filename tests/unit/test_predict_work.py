"""Shapes and work: weights counted from dimensions equal published counts, and work follows the textbook."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmopt.models.catalogue import built_in_models
from llmopt.predict.shape import shape_of
from llmopt.predict.work import Serving, held_bytes, work_of
from llmopt.records import ModelInfo

LLAMA = built_in_models()["llama3.1-8b"].facts
MIXTURE = built_in_models()["qwen3-30b-a3b"].facts
SERVING = Serving(sequences=16, prompt_tokens=1024, output_tokens=1024)
DEEPSEEK = ModelInfo(
    name="deepseek-v3",
    path="x/y",
    format="hub",
    layers=61,
    hidden_size=7168,
    heads=128,
    kv_heads=128,
    head_dim=192,
    value_head_dim=128,
    feed_forward=18432,
    vocabulary=129280,
    experts=256,
    active_experts=8,
    mla_rank=512,
    mla_rope_dim=64,
    extra={
        "query_rank": 1536,
        "nope_head_dim": 128,
        "expert_feed_forward": 2048,
        "shared_experts": 1,
        "dense_layers": 3,
    },
)


@pytest.mark.parametrize("name", ["llama3.1-8b", "qwen2.5-7b", "smollm2-135m", "phi4-14b", "gemma3-12b", "qwen3-8b"])
def test_dense_weights_add_up_to_the_model(name):
    model = built_in_models()[name].facts
    shape = shape_of(model)
    heads = 1 if model.extra["tied_embeddings"] else 2
    assert shape.dense + heads * shape.head == pytest.approx(model.parameters, rel=0.005)


def test_experts_and_active_weights_of_a_mixture():
    shape = shape_of(MIXTURE)
    assert shape.dense + 2 * shape.head + shape.expert * shape.experts == pytest.approx(MIXTURE.parameters, rel=0.005)
    assert shape.dense + shape.head + shape.expert * shape.active == pytest.approx(3.0e9, rel=0.12)  # its name: A3B


def test_a_latent_mixture_adds_up_to_its_published_size():
    shape = shape_of(DEEPSEEK)
    total = shape.dense + 2 * shape.head + shape.expert * shape.experts
    assert total == pytest.approx(671e9, rel=0.01)
    assert shape.dense + shape.head + shape.expert * shape.active == pytest.approx(37e9, rel=0.03)


def test_a_step_reads_weights_once_and_every_cache():
    work = work_of(LLAMA, SERVING)
    shape = shape_of(LLAMA)
    assert work.weight_bytes == 2 * (shape.dense + shape.head)
    assert work.cache_bytes == 16 * 1536 * 2 * 32 * 8 * 128 * 2
    assert work.dense_flops == 2 * 16 * (shape.dense + shape.head)
    assert work.attention_flops == 16 * 1536 * 4 * 32 * 32 * 128
    assert work.exchanges == 0


def test_experts_touched_grow_with_the_batch_and_never_exceed_all():
    one = work_of(MIXTURE, replace(SERVING, sequences=1))
    many = work_of(MIXTURE, replace(SERVING, sequences=512))
    assert one.experts_touched == pytest.approx(8)
    assert 127 < many.experts_touched <= 128
    assert one.weight_bytes < many.weight_bytes / 5


def test_sharding_divides_and_adds_exchanges():
    one, four = (work_of(LLAMA, replace(SERVING, tensor_parallel=ranks)) for ranks in (1, 4))
    assert four.weight_bytes == one.weight_bytes / 4
    assert four.exchanges == 64
    assert four.exchange_bytes > 0 == one.exchange_bytes
    wide = replace(SERVING, tensor_parallel=2, data_parallel=4, expert_parallel=8)
    narrow = replace(SERVING, tensor_parallel=2)
    assert held_bytes(MIXTURE, wide)[0] < held_bytes(MIXTURE, narrow)[0]


def test_what_is_held_is_the_whole_model():
    weights, sequence = held_bytes(LLAMA, SERVING)
    assert weights == pytest.approx(2 * LLAMA.parameters, rel=0.001)
    assert sequence == 1536 * 2 * 32 * 8 * 128 * 2


@pytest.mark.parametrize("missing", ["layers", "hidden_size", "heads", "vocabulary", "feed_forward", "kv_heads"])
def test_an_unknown_shape_has_no_work(missing):
    assert work_of(replace(LLAMA, **{missing: None}), SERVING) is None


@settings(max_examples=80)
@given(
    sequences=st.integers(1, 512),
    prompt=st.integers(1, 8192),
    output=st.integers(1, 4096),
    ranks=st.sampled_from([1, 2, 4, 8]),
    bits=st.sampled_from([4.5, 8.0, 16.0]),
)
def test_more_load_is_never_less_work(sequences, prompt, output, ranks, bits):
    base = Serving(
        sequences=sequences, prompt_tokens=prompt, output_tokens=output, tensor_parallel=ranks, weight_bits=bits
    )
    for model in (LLAMA, MIXTURE, DEEPSEEK):
        small = work_of(model, base)
        grown = work_of(model, replace(base, sequences=sequences + 1, prompt_tokens=prompt + 1))
        assert grown.weight_bytes >= small.weight_bytes
        assert grown.cache_bytes > small.cache_bytes
        assert grown.prompt_dense_flops > small.prompt_dense_flops
