"""GGUF → safetensors: made once, whole or not at all, found again by its source's checksum."""

import json
import os
import stat
import sys

import pytest

from llmopt.engines import locate
from llmopt.errors import WeightsError
from llmopt.models import conversion
from llmopt.models.conversion import convert, converted, source_digest
from llmopt.models.entry import HubFiles, ModelEntry
from llmopt.models.metadata import read_model
from llmopt.paths import Workspace
from llmopt.records import ModelInfo
from llmopt.study import weights as study_weights
from llmopt.study.weights import bring_weights

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in interpreter is a script with a shebang")
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1}
CONFIG |= {"num_attention_heads": 2, "vocab_size": 16, "max_position_embeddings": 64, "intermediate_size": 16}

VALUES = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.embedding_length": 32,
    "llama.attention.head_count": 2,
    "llama.context_length": 64,
    "llama.feed_forward_length": 64,
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOPT_WEIGHTS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def gguf(tmp_path, gguf_bytes):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_bytes(VALUES, [("token_embd.weight", (32, 4), 0)]))
    return path


@pytest.fixture
def python(tmp_path, safetensors_bytes):
    """Makes a stand-in for an interpreter with transformers: called as ``python SCRIPT FILE FOLDER``."""

    def make(*, ends="done", code=0):
        data = safetensors_bytes({"model.embed_tokens.weight": ("BF16", (16, 8), 256)})
        (tmp_path / "data").write_bytes(data)
        script = tmp_path / "python"
        script.write_text(
            f"#!{sys.executable}\n"
            "import json, pathlib, sys\n"
            f"count = pathlib.Path({str(tmp_path / 'calls')!r})\n"
            "count.write_text(count.read_text() + 'x' if count.exists() else 'x')\n"
            "folder = pathlib.Path(sys.argv[3])\n"
            f"(folder / 'model.safetensors').write_bytes(pathlib.Path({str(tmp_path / 'data')!r}).read_bytes())\n"
            f"(folder / 'config.json').write_text({json.dumps(CONFIG)!r})\n"
            f"print(json.dumps({{'stage': {ends!r}, 'transformers': '5', 'torch': '2'}}))\n"
            "print('KeyError: there is no such architecture', file=sys.stderr)\n"
            f"sys.exit({code})\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return str(script)

    return make


def calls(tmp_path):
    return len((tmp_path / "calls").read_text())


def test_a_file_is_converted_once_and_known_by_its_source(tmp_path, cache, gguf, python):
    told = []
    folder = convert(gguf, python=python(), sha256="ab" * 32, progress=told.append)
    assert folder.is_relative_to(cache)
    assert read_model(folder).format == "safetensors"
    note = json.loads((folder / conversion.NOTE).read_text())
    assert note["versions"] == {"transformers": "5", "torch": "2"}
    assert len(note["sha256"]["model.safetensors"]) == 64
    assert source_digest(folder) == f"{'ab' * 32}+safetensors{conversion.FORMAT}"
    assert convert(gguf, python="no-such-interpreter", sha256="ab" * 32) == folder
    assert calls(tmp_path) == 1
    assert {one.phase for one in told} == {"convert"}


def test_a_damaged_result_is_made_again(tmp_path, cache, gguf, python):
    folder = convert(gguf, python=python())
    (folder / "model.safetensors").write_bytes(b"cut off")
    assert converted(gguf) is None
    assert convert(gguf, python=python()) == folder
    assert calls(tmp_path) == 2
    assert converted(gguf) == folder


@pytest.mark.parametrize("broken", [{"code": 1}, {"ends": "weights"}])
def test_what_fails_leaves_nothing_and_says_why(cache, gguf, python, broken):
    with pytest.raises(WeightsError, match="no such architecture") as failed:
        convert(gguf, python=python(**broken))
    assert failed.value.exit_code == 6
    assert converted(gguf) is None
    assert [path.name for path in (cache / "converted").iterdir() if path.is_dir()] == []


def test_a_changed_file_is_another_source(cache, gguf, python, gguf_bytes):
    first = convert(gguf, python=python())
    gguf.write_bytes(gguf_bytes({**VALUES, "more": 1}, [("token_embd.weight", (64, 4), 0)]))
    assert converted(gguf) is None
    assert convert(gguf, python=python()) != first


# ── which weights an engine gets ───────────────────────────────────────────────────────────────────────────────────


def entry(file, **changes):
    facts = ModelInfo(name="tiny", path=str(file), format="gguf")
    return ModelEntry(**{"name": "tiny", "path": str(file), "facts": facts, "origin": "path", **changes})


def test_a_local_file_serves_engines_of_both_forms(tmp_path, cache, gguf, python, monkeypatch):
    monkeypatch.setattr(study_weights, "converter", python)
    workspace = Workspace(root=tmp_path)
    assert bring_weights(entry(gguf), "gguf", workspace=workspace).path == str(gguf)
    model = bring_weights(entry(gguf), "safetensors", workspace=workspace)
    assert model.format == "safetensors"
    assert model.name == "tiny"
    assert model.sha256 is not None


def test_without_a_hub_the_catalogue_s_file_is_converted(tmp_path, cache, gguf, python, monkeypatch):
    monkeypatch.setattr(study_weights, "converter", python)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    cache.mkdir()
    (cache / "tiny.gguf").write_bytes(gguf.read_bytes())
    known = entry(
        gguf,
        path="owner/tiny",
        origin="built-in",
        facts=ModelInfo(name="tiny", path="owner/tiny", format="hub"),
        gguf=HubFiles(repo="owner/tiny-gguf", files=("tiny.gguf",)),
    )
    model = bring_weights(known, "safetensors", workspace=Workspace(root=tmp_path))
    assert model.format == "safetensors"
    assert bring_weights(known, "safetensors", workspace=Workspace(root=tmp_path)) == model
    assert calls(tmp_path) == 1


def test_without_an_interpreter_that_can_the_next_step_is_named(tmp_path, cache, gguf, monkeypatch):
    monkeypatch.setattr(study_weights, "converter", lambda: None)
    with pytest.raises(WeightsError) as refused:
        bring_weights(entry(gguf), "safetensors", workspace=Workspace(root=tmp_path))
    assert refused.value.key == "weights.no_converter"
    assert "llmopt engines install transformers" in refused.value.next_step


def test_the_converter_is_an_environment_that_has_it_all(monkeypatch):
    found = locate.Found(python="/t/bin/python", version="5", origin="environment")
    monkeypatch.setattr(locate, "locate_package", lambda engine, **_: found if engine == "vllm" else None)
    monkeypatch.setattr(locate, "has_module", lambda python, module: module != "gguf")
    assert locate.converter() is None
    monkeypatch.setattr(locate, "has_module", lambda python, module: True)
    assert locate.converter() == "/t/bin/python"
