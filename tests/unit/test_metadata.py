"""read_model: folders, pickles, chat templates, quantised packings, and GGUF facts of several architectures."""

from __future__ import annotations

import json

import pytest

from llmopt.errors import WeightsError
from llmopt.models.metadata import read_model

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}


@pytest.fixture
def folder(tmp_path, safetensors_bytes):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    data = safetensors_bytes(
        {"model.embed_tokens.weight": ("BF16", (100, 64), 12800), "lm_head.weight": ("BF16", (100, 64), 12800)}
    )
    (tmp_path / "model.safetensors").write_bytes(data)
    return tmp_path


def test_a_folder_gives_shape_and_exact_bytes(folder):
    model = read_model(folder, "mine")
    assert (model.name, model.format, model.architecture) == ("mine", "safetensors", "llama")
    assert (model.weight_bytes, model.parameters) == (25600, 12800)
    assert (model.head_dim, model.kv_heads, model.quantization) == (8, 2, "bfloat16")
    assert model.extra["embedding_bytes"] == 12800
    assert model.chat_template is False


@pytest.mark.parametrize(
    ("name", "text", "thinking"),
    [
        ("chat_template.jinja", "{{ x }} <think>", True),
        ("tokenizer_config.json", json.dumps({"chat_template": "{{ enable_thinking }}"}), True),
        ("tokenizer_config.json", json.dumps({"chat_template": [{"name": "default", "template": "plain"}]}), False),
        ("chat_template.json", json.dumps({"chat_template": "plain"}), False),
    ],
)
def test_chat_templates_are_found_wherever_they_are_kept(folder, name, text, thinking):
    (folder / name).write_text(text)
    model = read_model(folder)
    assert model.chat_template is True
    assert model.thinking is thinking


def test_a_broken_tokenizer_file_counts_as_no_template(folder):
    (folder / "tokenizer_config.json").write_text("{")
    assert read_model(folder).chat_template is False


def test_pickled_weights_are_refused_unless_asked_for(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError) as missing:
        read_model(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04" + b"x" * 98)
    with pytest.raises(WeightsError) as refused:
        read_model(folder)
    assert refused.value.key == "weights.pickle_refused"
    assert missing.value.key != refused.value.key
    assert read_model(folder, allow_pickle=True).weight_bytes == 100


def test_packed_weights_are_counted_not_their_containers(folder, safetensors_bytes):
    (folder / "config.json").write_text(
        json.dumps({**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}})
    )
    tensors = {
        "l.q_proj.qweight": ("I32", (64, 8), 64 * 8 * 4),
        "l.q_proj.qzeros": ("I32", (1, 8), 32),
        "l.q_proj.scales": ("F16", (1, 64), 128),
        "norm.weight": ("F16", (64,), 128),
    }
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    model = read_model(folder)
    assert model.parameters == 64 * 64 + 64
    assert model.quantization == "awq-4bit"


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[]",
        json.dumps({**CONFIG, "num_hidden_layers": -3}),
        json.dumps({**CONFIG, "num_hidden_layers": 10**9}),
        json.dumps({**CONFIG, "num_hidden_layers": True}),
        json.dumps({**CONFIG, "hidden_size": "many"}),
        json.dumps({key: value for key, value in CONFIG.items() if key != "hidden_size"}),
        json.dumps({**CONFIG, "attn_layer_indices": [1 << 60]}),
        '{"num_hidden_layers": 1e400}',
    ],
)
def test_broken_configurations_are_clear_errors(folder, broken):
    (folder / "config.json").write_text(broken)
    with pytest.raises(WeightsError) as caught:
        read_model(folder)
    assert "config.json" in str(caught.value)


def test_the_language_part_of_a_multimodal_model_counts(folder):
    nested = {"model_type": "wrapper", "vision_config": {"hidden_size": 9999}, "text_config": CONFIG}
    (folder / "config.json").write_text(json.dumps(nested))
    model = read_model(folder)
    assert (model.hidden_size, model.extra["multimodal"]) == (64, True)


def test_code_that_comes_with_a_model_is_reported(folder):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "auto_map": {"AutoModel": "modeling_x.X"}}))
    assert read_model(folder).extra["remote_code"] is True


def test_an_empty_folder_and_a_missing_path_are_clear_errors(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(WeightsError):
            read_model(path)


BASE = {
    "block_count": 4,
    "embedding_length": 64,
    "attention.head_count": 4,
    "context_length": 512,
}


def _gguf(tmp_path, gguf_bytes, architecture: str, extra: dict, tensors=(("output.weight", (64, 8), 0),)):
    values = {"general.architecture": architecture}
    values |= {f"{architecture}.{key}": value for key, value in {**BASE, **extra}.items()}
    path = tmp_path / f"{architecture}.gguf"
    path.write_bytes(gguf_bytes(values, tensors))
    return read_model(path)


@pytest.mark.parametrize(
    ("architecture", "extra", "kinds"),
    [
        ("llama", {}, "FFFF"),
        ("llama", {"attention.sliding_window": 100}, "FFFF"),
        ("gemma2", {"attention.sliding_window": 100}, "SFSF"),
        ("gemma3", {"attention.sliding_window": 100}, "SSSS"),
        ("gpt-oss", {"attention.sliding_window": 128}, "SFSF"),
        ("llama4", {}, "SSSF"),
        (
            "other",
            {"attention.sliding_window": 100, "attention.sliding_window_pattern": [True, False, True, True]},
            "SFSS",
        ),
        ("gemma3n", {"attention.sliding_window": 100, "attention.shared_kv_layers": 2}, "SSNN"),
        ("deci", {"attention.head_count_kv": [2, 0, 2, 0]}, "FNFN"),
        (
            "jamba",
            {
                "attention.head_count_kv": [0, 2, 0, 0],
                "ssm.inner_size": 128,
                "ssm.state_size": 16,
                "ssm.conv_kernel": 4,
            },
            "RFRR",
        ),
        (
            "qwen3next",
            {"full_attention_interval": 4, "ssm.inner_size": 128, "ssm.state_size": 16, "ssm.conv_kernel": 4},
            "RRRF",
        ),
    ],
)
def test_gguf_layer_kinds(tmp_path, gguf_bytes, architecture, extra, kinds):
    assert _gguf(tmp_path, gguf_bytes, architecture, extra).extra["layer_kinds"] == kinds


def test_gguf_names_the_rest(tmp_path, gguf_bytes):
    tensors = (("blk.0.ffn_up_exps.weight", (64, 8), 0), ("token_embd.weight", (64, 8), 1))
    model = _gguf(
        tmp_path,
        gguf_bytes,
        "deepseek2",
        {"attention.kv_lora_rank": 32, "rope.dimension_count": 8, "expert_count": 4},
        tensors,
    )
    assert (model.mla_rank, model.mla_rope_dim, model.experts) == (32, 8, 4)
    assert model.extra["expert_bytes"] == 64 * 8 * 4
    assert model.extra["tied_embeddings"] is True
    assert model.quantization == "F32"  # the file says none: the type with most bytes


@pytest.mark.parametrize("extra", [{"block_count": 0}, {"block_count": 99999}, {"embedding_length": 0}])
def test_impossible_gguf_shapes_are_refused(tmp_path, gguf_bytes, extra):
    with pytest.raises(WeightsError):
        _gguf(tmp_path, gguf_bytes, "llama", extra)
