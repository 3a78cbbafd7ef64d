"""KV bytes of published architectures: each configuration as its makers published it, each expectation derived by hand."""

from __future__ import annotations

import json

import pytest

from llmopt.models.kv_cache import TYPE_BITS, kv_bytes_per_token, kv_cache
from llmopt.models.metadata import read_model
from llmopt.records import ModelInfo

GQA_LLAMA_8B = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
GQA_QWEN25_7B = {
    "model_type": "qwen2",
    "num_hidden_layers": 28,
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "max_window_layers": 28,
}
GQA_WIDE_HEADS_QWEN3_8B = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
    "vocab_size": 151936,
}
MHA_PHI2 = {
    "model_type": "phi",
    "num_hidden_layers": 32,
    "hidden_size": 2560,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 10240,
    "vocab_size": 51200,
}
MQA_FALCON_7B = {
    "model_type": "falcon",
    "num_hidden_layers": 32,
    "hidden_size": 4544,
    "num_attention_heads": 71,
    "num_kv_heads": 1,
    "vocab_size": 65024,
}
SLIDING_GEMMA3_27B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 62,
        "hidden_size": 5376,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "intermediate_size": 21504,
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152},
}
SLIDING_GEMMA2_9B = {
    "model_type": "gemma2",
    "num_hidden_layers": 42,
    "hidden_size": 3584,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "intermediate_size": 14336,
    "sliding_window": 4096,
}
SLIDING_ALL_MISTRAL_V01 = {
    "model_type": "mistral",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "sliding_window": 4096,
}
SLIDING_EXAONE4_32B = {
    "model_type": "exaone4",
    "num_hidden_layers": 64,
    "hidden_size": 5120,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 27392,
    "sliding_window": 4096,
    "sliding_window_pattern": "LLLG",
}
SLIDING_MOE_GPT_OSS_20B = {
    "model_type": "gpt_oss",
    "num_hidden_layers": 24,
    "hidden_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}
CHUNKED_MOE_LLAMA4_SCOUT = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text",
        "num_hidden_layers": 48,
        "hidden_size": 5120,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_chunk_size": 8192,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
    },
}
MOE_QWEN3_30B = {
    "model_type": "qwen3_moe",
    "num_hidden_layers": 48,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}
MOE_MIXTRAL = {
    "model_type": "mixtral",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": None,
}
MLA_DEEPSEEK_V3 = {
    "model_type": "deepseek_v3",
    "num_hidden_layers": 61,
    "hidden_size": 7168,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
}
MLA_DEEPSEEK_V2_LITE = {
    "model_type": "deepseek_v2",
    "num_hidden_layers": 27,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
HYBRID_QWEN35_27B = {
    "model_type": "qwen3_5",
    "text_config": {
        "model_type": "qwen3_5_text",
        "num_hidden_layers": 64,
        "hidden_size": 5120,
        "num_attention_heads": 24,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 48,
        "linear_value_head_dim": 128,
    },
}
HYBRID_NEMOTRON_NANO = {
    "model_type": "nemotron_h",
    "num_hidden_layers": 52,
    "hidden_size": 2688,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "mamba_num_heads": 64,
    "mamba_head_dim": 64,
    "n_groups": 8,
    "ssm_state_size": 128,
    "conv_kernel": 4,
    "expand": 2,
}
HYBRID_JAMBA = {
    "model_type": "jamba",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "attn_layer_period": 8,
    "attn_layer_offset": 4,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}
HYBRID_LFM2 = {
    "model_type": "lfm2",
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "conv_L_cache": 3,
    "full_attn_idxs": [2, 5, 8, 10, 12, 14],
}
TWO_WIDTHS_GEMMA4_26B = {
    "model_type": "gemma4",
    "text_config": {
        "model_type": "gemma4_text",
        "num_hidden_layers": 30,
        "hidden_size": 2816,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
        "head_dim": 256,
        "global_head_dim": 512,
        "sliding_window": 1024,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
    },
}
UNEQUAL_KV_MIMO_V2 = {
    "model_type": "mimo_v2_flash",
    "num_hidden_layers": 48,
    "hidden_size": 4096,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 192,
    "v_head_dim": 128,
    "swa_num_key_value_heads": 8,
    "swa_head_dim": 192,
    "swa_v_head_dim": 128,
    "sliding_window": 128,
    "hybrid_layer_pattern": [0] + [1, 1, 1, 1, 0] + [1, 1, 1, 1, 1, 0] * 7,
}
PER_LAYER_NEMOTRON_NAS = {
    "model_type": "nemotron-nas",
    "num_hidden_layers": 4,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "block_configs": [
        {"attention": {"n_heads_in_group": 8}},
        {"attention": {"no_op": True, "n_heads_in_group": None}},
        {"attention": {"n_heads_in_group": 8}},
        {"attention": {"replace_with_linear": True}},
    ],
}
SHARED_GEMMA3N = {
    "model_type": "gemma3n",
    "text_config": {
        "model_type": "gemma3n_text",
        "num_hidden_layers": 30,
        "hidden_size": 2048,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "sliding_window": 512,
        "num_kv_shared_layers": 10,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 6,
    },
}

CASES = {
    # name: (configuration, bytes a token in full layers, bytes a token in sliding layers, state elements a sequence)
    "llama-3.1-8b": (GQA_LLAMA_8B, 2 * 32 * 8 * 128 * 2, 0, 0),  # 128 KiB
    "qwen2.5-7b": (GQA_QWEN25_7B, 2 * 28 * 4 * 128 * 2, 0, 0),  # 56 KiB
    "qwen3-8b": (GQA_WIDE_HEADS_QWEN3_8B, 2 * 36 * 8 * 128 * 2, 0, 0),
    "phi-2": (MHA_PHI2, 2 * 32 * 32 * 80 * 2, 0, 0),
    "falcon-7b": (MQA_FALCON_7B, 2 * 32 * 1 * 64 * 2, 0, 0),
    # every sixth of 62 layers is global: layers 6, 12 … 60, so 10; the other 52 slide
    "gemma-3-27b": (SLIDING_GEMMA3_27B, 2 * 10 * 16 * 128 * 2, 2 * 52 * 16 * 128 * 2, 0),
    "gemma-2-9b": (SLIDING_GEMMA2_9B, 2 * 21 * 8 * 256 * 2, 2 * 21 * 8 * 256 * 2, 0),
    "mistral-7b-v0.1": (SLIDING_ALL_MISTRAL_V01, 0, 2 * 32 * 8 * 128 * 2, 0),
    "exaone-4.0-32b": (SLIDING_EXAONE4_32B, 2 * 16 * 8 * 128 * 2, 2 * 48 * 8 * 128 * 2, 0),
    "gpt-oss-20b": (SLIDING_MOE_GPT_OSS_20B, 2 * 12 * 8 * 64 * 2, 2 * 12 * 8 * 64 * 2, 0),
    "llama-4-scout": (CHUNKED_MOE_LLAMA4_SCOUT, 2 * 12 * 8 * 128 * 2, 2 * 36 * 8 * 128 * 2, 0),
    "qwen3-30b-a3b": (MOE_QWEN3_30B, 2 * 48 * 4 * 128 * 2, 0, 0),
    "mixtral-8x7b": (MOE_MIXTRAL, 2 * 32 * 8 * 128 * 2, 0, 0),
    "deepseek-v3": (MLA_DEEPSEEK_V3, 61 * (512 + 64) * 2, 0, 0),  # 70,272 bytes
    "deepseek-v2-lite": (MLA_DEEPSEEK_V2_LITE, 27 * (512 + 64) * 2, 0, 0),
    # 16 full layers; 48 keep 3 · (2·16·128 + 48·128) of convolution and 48 · 128 · 128 of state
    "qwen3.5-27b": (HYBRID_QWEN35_27B, 2 * 16 * 4 * 256 * 2, 0, 48 * (3 * 10240 + 786432)),
    # 6 attention layers, 23 of Mamba-2: 3 · (64·64 + 2·8·128) and 64·64 · 128
    "nemotron-3-nano": (HYBRID_NEMOTRON_NANO, 2 * 6 * 2 * 128 * 2, 0, 23 * (3 * 6144 + 524288)),
    # layers 4, 12, 20, 28 attend; 28 of Mamba-1: 3 · 8192 and 8192 · 16
    "jamba-v0.1": (HYBRID_JAMBA, 2 * 4 * 8 * 128 * 2, 0, 28 * (3 * 8192 + 131072)),
    "lfm2-1.2b": (HYBRID_LFM2, 2 * 6 * 8 * 64 * 2, 0, 10 * 2 * 2048),
    "gemma-4-26b-a4b": (TWO_WIDTHS_GEMMA4_26B, 2 * 5 * 2 * 512 * 2, 2 * 25 * 8 * 256 * 2, 0),
    "mimo-v2-flash": (UNEQUAL_KV_MIMO_V2, 9 * 4 * (192 + 128) * 2, 39 * 8 * (192 + 128) * 2, 0),
    "nemotron-nas": (PER_LAYER_NEMOTRON_NAS, 2 * 2 * 8 * 128 * 2, 0, 0),
    # the last 10 layers share: of the first 20, four are global
    "gemma-3n-e2b": (SHARED_GEMMA3N, 2 * 4 * 2 * 256 * 2, 2 * 16 * 2 * 256 * 2, 0),
}


def _read(tmp_path, safetensors_bytes, config) -> ModelInfo:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes({"norm.weight": ("BF16", (8,), 16)}))
    return read_model(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_bytes_per_token_equal_the_value_derived_by_hand(name, tmp_path, safetensors_bytes):
    config, full, sliding, state = CASES[name]
    model = _read(tmp_path, safetensors_bytes, config)
    cache = kv_cache(model)
    assert cache is not None
    assert (cache.full_bytes, cache.sliding_bytes, cache.state_elements) == (full, sliding, state)
    assert kv_bytes_per_token(model) == full + sliding


def test_there_are_at_least_fifteen_architectures_of_every_kind():
    assert len(CASES) >= 15
    for kind in ("GQA", "MLA", "SLIDING", "MOE", "HYBRID"):
        assert any(name.startswith(kind) for name in globals()), kind


def test_quantised_caches_take_their_block_sizes(tmp_path, safetensors_bytes):
    model = _read(tmp_path, safetensors_bytes, GQA_LLAMA_8B)
    elements = 2 * 32 * 8 * 128
    assert kv_bytes_per_token(model, key_type="q8_0", value_type="q8_0") == elements * 8.5 / 8
    assert kv_bytes_per_token(model, key_type="q4_0", value_type="q4_0") == elements * 4.5 / 8
    assert kv_bytes_per_token(model, key_type="f16", value_type="q8_0") == elements / 2 * (2 + 8.5 / 8)
    assert kv_bytes_per_token(model, key_type="fp8", value_type="fp8") == elements
    assert kv_bytes_per_token(model, key_type="nonsense") is None
    assert TYPE_BITS["q8_0"] == 8.5


def test_a_window_bounds_what_a_sequence_keeps(tmp_path, safetensors_bytes):
    cache = kv_cache(_read(tmp_path, safetensors_bytes, SLIDING_GEMMA3_27B))
    full, sliding = 2 * 10 * 16 * 128 * 2, 2 * 52 * 16 * 128 * 2
    assert cache.sequence_bytes(512) == 512 * (full + sliding)
    assert cache.sequence_bytes(8192) == 8192 * full + 1024 * sliding
    assert cache.sequence_bytes(8192, extra_window=512) == 8192 * full + 1536 * sliding


@pytest.mark.parametrize(
    ("ranks", "heads_on_a_rank"),
    [(1, 8), (2, 4), (4, 2), (8, 1), (16, 1)],
)
def test_grouped_heads_split_down_to_one_then_are_copied(tmp_path, safetensors_bytes, ranks, heads_on_a_rank):
    model = _read(tmp_path, safetensors_bytes, GQA_LLAMA_8B)
    assert kv_bytes_per_token(model, tensor_parallel=ranks) == 2 * 32 * heads_on_a_rank * 128 * 2


def test_latent_attention_is_copied_on_every_rank(tmp_path, safetensors_bytes):
    model = _read(tmp_path, safetensors_bytes, MLA_DEEPSEEK_V3)
    assert kv_bytes_per_token(model, tensor_parallel=8) == 61 * 576 * 2


def test_sparse_attention_keeps_its_index_keys_too(tmp_path, safetensors_bytes):
    model = _read(tmp_path, safetensors_bytes, {**MLA_DEEPSEEK_V3, "model_type": "deepseek_v32", "index_head_dim": 128})
    assert kv_bytes_per_token(model) == 61 * (576 * 2 + 128 + 4)


@pytest.mark.parametrize(
    "change",
    [
        {"compress_ratios": [0, 4, 128]},
        {"layer_types": ["full_attention", "never_seen_before"] * 16},
        {"model_type": "falcon_mamba", "state_size": None},
    ],
)
def test_what_is_not_known_is_not_guessed(tmp_path, safetensors_bytes, change):
    assert kv_cache(_read(tmp_path, safetensors_bytes, {**GQA_LLAMA_8B, **change})) is None


def test_without_any_shape_there_is_no_answer():
    assert kv_cache(ModelInfo(name="x", path="a/b", format="hub")) is None
    assert (
        kv_cache(ModelInfo(name="x", path="a/b", format="hub", layers=2, recurrent_layers=1, kv_heads=1, head_dim=8))
        is None
    )
