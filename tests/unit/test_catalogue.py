"""The built-in catalogue's honesty, look-up by name, path and hub id, and the user's overlay."""

from __future__ import annotations

import json

import pytest

from llmopt.config.models import ModelConfig, ModelConfigManager, QuantizationConfig
from llmopt.errors import LlmoptError, SettingsError, UsageError
from llmopt.models.catalogue import DEFAULT_MODEL, built_in_models, find_model, model_names
from llmopt.paths import Workspace
from llmopt.records import DataType, ModelType

FAMILIES = (
    *("qwen2.5", "qwen3", "llama3", "llama3.1", "llama3.2", "gemma3", "exaone3.5", "exaone4", "exaone-deep"),
    *("kanana", "hyperclovax", "solar", "mistral", "phi4", "deepseek-r1", "smollm2"),
)


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "config").mkdir()
    return Workspace(root=tmp_path)


def test_there_are_the_models_people_in_korea_serve():
    names = list(built_in_models())
    assert len(names) >= 25
    for family in FAMILIES:
        assert any(name.startswith(family) for name in names), family
    assert built_in_models()["qwen2.5-7b"].path == "Qwen/Qwen2.5-7B-Instruct"
    assert "8B" in built_in_models()["llama3-8b"].path
    assert DEFAULT_MODEL in names


@pytest.mark.parametrize("name", list(built_in_models()))
def test_every_fact_names_its_source_and_agrees_with_the_others(name):
    entry = built_in_models()[name]
    facts = entry.facts
    stated = {"license": facts.license, "thinking": facts.thinking, "parameters": facts.parameters, "gguf": entry.gguf}
    for group, value in stated.items():
        if value is not None:
            assert entry.sources.get(group) or (group == "parameters" and "dimensions" in entry.sources), group
    dimensions = (facts.layers, facts.hidden_size, facts.heads, facts.kv_heads, facts.context_length)
    if any(value is not None for value in dimensions):
        assert entry.sources.get("dimensions")
    if facts.heads and isinstance(facts.kv_heads, int):
        assert facts.heads % facts.kv_heads == 0
    if "layer_kinds" in facts.extra:
        kinds = facts.extra["layer_kinds"]
        assert (len(kinds), kinds.count("S")) == (facts.layers, facts.sliding_layers or 0)
    assert set(entry.description) == {"ko", "en"}
    if entry.gguf is not None:
        assert all(file.endswith(".gguf") for file in entry.gguf.files)
    if entry.packages:
        assert entry.gguf is not None
        assert sum(part.size_bytes for part in entry.packages) == entry.gguf.size_bytes


@pytest.mark.parametrize(
    "name", [name for name, entry in built_in_models().items() if "computed" in entry.sources.get("parameters", "")]
)
def test_computed_parameters_follow_from_the_dimensions(name):
    facts = built_in_models()[name].facts
    assert all((facts.layers, facts.hidden_size, facts.heads, facts.head_dim, facts.vocabulary))
    assert isinstance(facts.kv_heads, int)
    attention = 2 * facts.hidden_size * facts.head_dim * (facts.heads + facts.kv_heads)
    width = facts.extra.get("expert_feed_forward", facts.feed_forward)
    mlp = 3 * facts.hidden_size * width * (facts.experts or 1)
    embedding = facts.vocabulary * facts.hidden_size * (1 if facts.extra["tied_embeddings"] else 2)
    expected = facts.layers * (attention + mlp) + embedding
    assert facts.parameters == pytest.approx(expected, rel=0.01)


def test_names_ids_and_case(workspace):
    assert find_model("qwen2.5-7b", workspace).name == "qwen2.5-7b"
    assert find_model("Qwen2.5-7B", workspace).name == "qwen2.5-7b"
    assert find_model("qwen/qwen2.5-7b-instruct", workspace).name == "qwen2.5-7b"
    unlisted = find_model("someone/some-model", workspace)
    assert (unlisted.origin, unlisted.local) == ("hub", False)


def test_paths_relative_to_the_workspace(workspace):
    (workspace.root / "m.gguf").write_bytes(b"x")
    entry = find_model("m.gguf", workspace)
    assert (entry.local, entry.facts.format, entry.name) == (True, "gguf", "m")
    (workspace.root / "folder").mkdir()
    assert find_model(str(workspace.root / "folder"), workspace).facts.format == "safetensors"


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("qwen2.5-7bb", "qwen2.5-7b"),
        ("lama3-8b", "llama3-8b"),
        ("exaone", "exaone3.5-2.4b"),
        ("smollm", "smollm2-135m"),
    ],
)
def test_a_wrong_name_shows_near_ones(workspace, wrong, near):
    with pytest.raises(UsageError) as caught:
        find_model(wrong, workspace)
    assert near in str(caught.value)


@pytest.mark.parametrize("wrong", ["zzzzzz", "", "a/b/c", "missing.gguf", "dir/missing.gguf", "../x"])
def test_a_name_like_nothing_is_still_one_clear_error(workspace, wrong):
    with pytest.raises(UsageError) as caught:
        find_model(wrong, workspace)
    assert caught.value.exit_code == 2


def test_the_users_entries_lie_over_the_built_in_ones(workspace):
    manager = ModelConfigManager(workspace.models_file)
    mine = ModelConfig(name="mine", model_path="me/mine", gguf_repo="me/mine-GGUF", gguf_file="a.gguf", sha256="0" * 64)
    manager.add_config("mine", mine)
    tuned = ModelConfig(
        name="qwen2.5-7b",
        model_path="Qwen/Qwen2.5-7B-Instruct",
        model_type=ModelType.VLLM,
        dtype=DataType.BFLOAT16,
        quantization=QuantizationConfig(load_in_8bit=True),
        description="우리 것",
    )
    manager.add_config("qwen2.5-7b", tuned)
    manager.add_config("llama3-8b", ModelConfig(name="llama3-8b", model_path="other/llama"))
    manager.save_to_file()
    assert model_names(workspace)[-1] == "mine"
    entry = find_model("mine", workspace)
    assert (entry.origin, entry.gguf.files, entry.gguf.sha256) == ("user", ("a.gguf",), "0" * 64)
    known = find_model("qwen2.5-7b", workspace)
    assert (known.model_type, known.dtype) == (ModelType.VLLM, DataType.BFLOAT16)
    assert known.quantization["load_in_8bit"] is True
    assert known.facts.layers == 28  # the same weights: what is known of them still holds
    assert known.describe("ko") == "우리 것"
    assert find_model("llama3-8b", workspace).facts.layers is None  # other weights: it does not


def test_a_user_entry_may_be_a_path(workspace):
    (workspace.root / "m.gguf").write_bytes(b"x")
    manager = ModelConfigManager(workspace.models_file)
    manager.add_config("local", ModelConfig(name="local", model_path="m.gguf"))
    manager.add_config("gone", ModelConfig(name="gone", model_path="./gone.gguf"))
    manager.save_to_file()
    assert find_model("local", workspace).local
    assert find_model("gone", workspace).local  # ensure_weights then says that it is not there


def test_a_broken_overlay_is_said_not_skipped(workspace):
    workspace.models_file.write_text('{"models": {"a": {"model_pth": "x"}}}')
    with pytest.raises(SettingsError, match="model_path"):
        find_model("qwen2.5-7b", workspace)


def test_all_texts_exist_in_both_languages():
    from importlib.resources import files

    for area in ("weights", "models"):
        entries = json.loads((files("llmopt.messages") / f"{area}.json").read_text(encoding="utf-8"))
        for key, texts in entries.items():
            assert set(texts) == {"ko", "en"}, key


def test_every_error_is_one_of_ours(workspace):
    for name in ("\x00", "a" * 5000, "☃", "-", "..", "/"):
        try:
            find_model(name, workspace)
        except LlmoptError:
            continue
