"""A draft model: who may guess ahead for whom, what engines make of it, and the memory it takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.config.models import ModelConfig, ModelConfigManager
from llmopt.engines.base import RunFolder
from llmopt.engines.llamacpp import LlamaCpp
from llmopt.engines.options import options_of
from llmopt.engines.vllm import Vllm
from llmopt.errors import SettingsError
from llmopt.messages import t
from llmopt.models.catalogue import find_model
from llmopt.models.draft import draft_of, with_draft
from llmopt.models.memory_fit import memory_fit
from llmopt.paths import Workspace
from llmopt.records import Endpoint, Load, ModelInfo, Task
from llmopt.study.weights import bring_weights
from tests.unit.machines import cpu_machine, gpu_machine
from tests.unit.test_engine_worker_flags import load

SHAPE = {"layers": 4, "hidden_size": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "feed_forward": 512}
LARGE = ModelInfo(
    name="large", path="/w/large.gguf", format="gguf", weight_bytes=400 << 20, parameters=4 * 10**8, vocabulary=32000,
    context_length=8192, **SHAPE,
)  # fmt: skip
SMALL = replace(LARGE, name="small", path="/w/small.gguf", weight_bytes=40 << 20, parameters=4 * 10**7)
TASK = Task(load=Load(streams=4), max_tokens=64, prompt_tokens=200)
RUN = RunFolder(folder=Path("/r"), endpoint=Endpoint(model="", socket_path="/r/e.sock"))


def offered(engine, model, hardware):
    return {p.name: p for p in engine.parameters(model, hardware, TASK)}


def test_without_a_draft_nothing_guesses_by_one():
    for engine, model in ((LlamaCpp(), LARGE), (Vllm(), replace(LARGE, format="safetensors", path="/w/large"))):
        names = offered(engine, model, gpu_machine())
        assert not [value for value in names["speculation"].values if str(value).startswith(("draft", "eagle"))]
        assert "draft_tokens" not in names


def test_llama_cpp_is_given_the_draft_with_every_value_explicit():
    model, engine = with_draft(LARGE, SMALL), LlamaCpp()
    names = offered(engine, model, cpu_machine())
    assert "draft-simple" in names["speculation"].values
    assert names["speculation"].changes_answers
    assert names["draft_tokens"].changes_answers
    assert names["draft_tokens"].only_if == {"speculation": ("draft-simple",)}
    settings = {**engine.baseline(model, cpu_machine(), TASK), "speculation": "draft-simple", "draft_tokens": 4}
    argv = engine.plan(model, settings, RUN).argv
    for option, value in {
        "--spec-type": "draft-simple",
        "--spec-draft-model": "/w/small.gguf",
        "--spec-draft-n-max": "4",
        "--spec-draft-n-min": "0",
        "--spec-draft-ngl": "0",
    }.items():
        assert argv[argv.index(option) + 1] == value


def test_the_embedded_server_takes_what_it_is_given():
    engine, model = LlamaCpp(), with_draft(LARGE, SMALL)
    settings = {**engine.baseline(model, cpu_machine(), TASK), "speculation": "draft-simple", "draft_tokens": 4}
    server = load("llamacpp_server.py")
    argv = engine.plan(model, settings, RUN).argv
    params = server.build_params(server.parse(list(argv[argv.index("--model") :])))
    draft = params.speculative.draft
    assert (draft.mparams.path, draft.n_max, draft.n_min, draft.n_gpu_layers) == ("/w/small.gguf", 4, 0, 0)


@pytest.mark.parametrize(
    ("architectures", "method"),
    [(None, "draft_model"), (["EagleLlamaForCausalLM"], "eagle"), (["LlamaForCausalLMEagle3"], "eagle3")],
)
def test_vllm_is_given_a_draft_model_or_a_head_by_its_kind(tmp_path, architectures, method):
    if architectures:
        (tmp_path / "config.json").write_text(json.dumps({"architectures": architectures}))
    large = replace(LARGE, format="safetensors", path="/w/large")
    small = replace(SMALL, format="safetensors", path=str(tmp_path), vocabulary=32000 if not architectures else 400)
    model, engine = with_draft(large, small), Vllm()
    names = offered(engine, model, gpu_machine())
    assert names["speculation"].values == ("off", "ngram", method)
    assert names["spec_draft"].only_if == {"speculation": ("ngram", method)}
    assert names["spec_lookup"].only_if == {"speculation": ("ngram",)}
    settings = {**engine.baseline(model, gpu_machine(), TASK), "speculation": method, "spec_draft": 4}
    argv = engine.plan(model, settings, RUN).argv
    config = json.loads(argv[argv.index("--speculative-config") + 1])
    assert config == {"method": method, "num_speculative_tokens": 4, "model": str(tmp_path)}
    assert method in options_of("vllm", None).values["speculation"]


def test_vllm_on_a_cpu_needs_room_for_the_tokens_of_both():
    """As the real one said: with a draft of its own size, one request of full length took twice the cache."""
    large = replace(LARGE, format="safetensors", path="/w/large")
    model, engine = with_draft(large, replace(large, name="twin", path="/w/twin")), Vllm()
    names = offered(engine, model, cpu_machine())
    alone = engine.baseline(model, cpu_machine(), TASK)
    assert max(names["kv_cache_bytes"].values) >= 2 * alone["kv_cache_bytes"]
    length = alone["kv_cache_bytes"] // (4 * 2 * 64 * 2 * 2)  # layers, KV heads, width, keys and values, bytes
    full = {**alone, "max_model_len": length, "max_num_batched_tokens": max(2048, length)}
    drafting = {**full, "speculation": "draft_model", "spec_draft": 2}
    roomy = replace(model, context_length=length)
    assert engine.conflict(full, roomy, cpu_machine(), TASK) is None
    assert engine.conflict(drafting, roomy, cpu_machine(), TASK) == "engines.conflict_cache_under_request"
    doubled = {**drafting, "kv_cache_bytes": 2 * alone["kv_cache_bytes"]}
    assert engine.conflict(doubled, roomy, cpu_machine(), TASK) is None


def test_an_entry_names_its_draft_and_both_are_brought(tmp_path, gguf_bytes):
    shape = {"block_count": 2, "embedding_length": 64, "feed_forward_length": 128, "context_length": 512}
    facts = {"general.architecture": "llama", "llama.attention.head_count": 4}
    facts |= {f"llama.{name}": value for name, value in shape.items()}
    facts["tokenizer.ggml.tokens"] = [f"t{number}" for number in range(40)]
    for name in ("large", "small"):
        (tmp_path / f"{name}.gguf").write_bytes(gguf_bytes(facts, [("token_embd.weight", (64, 40), 0)]))
    workspace = Workspace(root=tmp_path)
    manager = ModelConfigManager(workspace.models_file)
    manager.add_config("mine", ModelConfig(name="mine", model_path="large.gguf", draft_model="small.gguf"))
    manager.save_to_file()
    model = bring_weights(find_model("mine", workspace), "gguf", workspace=workspace)
    draft = draft_of(model)
    assert draft is not None
    assert (model.name, draft.model.name, Path(draft.model.path).name) == ("mine", "small", "small.gguf")
    with pytest.raises(SettingsError):
        ModelConfig(name="mine", model_path="large.gguf", draft_model=" ").validate()


def test_another_tokenizer_is_refused_in_both_languages():
    with pytest.raises(SettingsError) as refused:
        with_draft(LARGE, replace(SMALL, vocabulary=128000))
    for lang in ("ko", "en"):
        assert "128" in t(refused.value.key, lang=lang, **refused.value.values)
        assert t(f"{refused.value.key}.next", lang=lang)


def test_the_draft_survives_being_written_down():
    kept = json.loads(json.dumps(dict(with_draft(LARGE, replace(SMALL, kv_heads=(2, 2, 1, 1))).extra)))
    found = draft_of(replace(LARGE, extra=kept))
    assert found is not None
    assert (found.kind, found.model.path, found.model.kv_heads) == ("draft", "/w/small.gguf", (2, 2, 1, 1))


def test_memory_counts_the_draft_only_where_it_is_loaded():
    model = with_draft(LARGE, SMALL)
    settings = dict(LlamaCpp().baseline(model, cpu_machine(), TASK))
    alone = memory_fit("llamacpp", model, settings, cpu_machine(), TASK)
    guessing = {**settings, "speculation": "draft-simple", "draft_tokens": 4}
    both = memory_fit("llamacpp", model, guessing, cpu_machine(), TASK)
    assert alone.total_bytes == memory_fit("llamacpp", LARGE, settings, cpu_machine(), TASK).total_bytes
    assert both.bytes_of("weights") == alone.bytes_of("weights") + (40 << 20)
    assert both.bytes_of("kv") == 2 * alone.bytes_of("kv"), "both shapes are the same here"
    assert both.bytes_of("runtime") == alone.bytes_of("runtime")
