"""``models add|show|remove`` and ``list`` with its filters, as typed."""

import json

import pytest

from llmopt.cli.listing import COLUMNS
from llmopt.models.catalogue import built_in_models

SHAPE = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 512,
    "llama.feed_forward_length": 128,
}
TENSORS = [("token_embd.weight", (64, 100), 0), ("blk.0.attn_q.weight", (64, 64), 0)]


@pytest.fixture
def gguf(inline, gguf_bytes):
    path = inline.folder / "tiny.gguf"
    path.write_bytes(gguf_bytes(SHAPE, TENSORS))
    return path


def entries(inline):
    return json.loads((inline.folder / "config" / "models.json").read_text(encoding="utf-8"))["models"]


def test_an_entry_is_added_shown_listed_replaced_and_removed(inline, gguf):
    options = ("--type", "vllm", "--dtype", "bfloat16", "--load-in-4bit", "--top-k", "10", "--description", "우리 모델")
    added = inline.run("models", "add", "ours", "team/ours", *options)
    assert added.code == 0, added.err
    assert entries(inline)["ours"] == {
        "model_path": "team/ours",
        "model_type": "vllm",
        "dtype": "bfloat16",
        "quantization": {"load_in_4bit": True},
        "description": "우리 모델",
        "inference": {"top_k": 10},
    }
    for lang in ("en", "ko"):
        shown = inline.run("models", "show", "ours", lang=lang)
        assert shown.code == 0, shown.err
        assert "team/ours" in shown.out
        assert "우리 모델" in shown.out
    assert inline.run("models", "add", "ours", "x/y").code == 2
    assert inline.run("models", "add", "ours", "tiny.gguf", "--replace").code == 0
    assert entries(inline)["ours"] == {"model_path": "tiny.gguf"}
    (row,) = json.loads(inline.run("list", "--type", "models", "--filter", "ours", "--json").out)
    assert (row["origin"], row["parameters"]) == ("user", 64 * 100 + 64 * 64)
    removed = inline.run("models", "remove", "ours", "--json")
    assert removed.code == 0, removed.err
    assert json.loads(removed.out)["entry"] == {"name": "ours", "model_path": "tiny.gguf"}
    assert entries(inline) == {}
    assert gguf.exists()
    assert inline.run("models", "remove", "ours").code == 3


def test_a_local_path_is_read_from_its_headers(inline, gguf):
    ran = inline.run("models", "show", "tiny.gguf", "--json")
    assert ran.code == 0, ran.err
    facts = json.loads(ran.out)
    assert (facts["facts"]["layers"], facts["facts"]["heads"], facts["facts"]["kv_heads"]) == (2, 4, 2)
    assert facts["fits"]["why"]


def test_a_path_outside_the_workspace_is_kept_absolute(inline, gguf, tmp_path, monkeypatch):
    elsewhere = tmp_path / "there"
    elsewhere.mkdir()
    gguf.rename(elsewhere / "far.gguf")
    monkeypatch.chdir(elsewhere)
    assert inline.run("models", "add", "far", "far.gguf").code == 0
    assert entries(inline)["far"]["model_path"] == str((elsewhere / "far.gguf").resolve())


@pytest.mark.parametrize("damage", ["torn", "missing"])
def test_an_entry_for_files_that_cannot_be_used_is_not_written(inline, gguf, damage):
    if damage == "torn":
        gguf.write_bytes(gguf.read_bytes()[:60])
    else:
        gguf.unlink()
    ran = inline.run("models", "add", "bad", "./tiny.gguf")
    assert ran.code in {2, 6}, ran.err
    assert "tiny.gguf" in ran.err
    assert not (inline.folder / "config" / "models.json").exists()


def test_a_user_entry_with_torn_files_does_not_break_the_list(inline, gguf):
    assert inline.run("models", "add", "mine", "tiny.gguf").code == 0
    gguf.write_bytes(b"GGUF" + b"\xff" * 40)
    rows = json.loads(inline.run("list", "--type", "models", "--json").out)
    mine = next(row for row in rows if row["model"] == "mine")
    assert mine["fits"] is False
    assert "tiny.gguf" in mine["why"]
    assert len(rows) == len(built_in_models()) + 1


def test_a_built_in_entry_cannot_go_and_comes_back(inline):
    assert inline.run("models", "remove", "qwen2.5-7b").code == 2
    assert inline.run("models", "add", "qwen2.5-7b", "me/mine").code == 0
    ran = inline.run("models", "remove", "qwen2.5-7b")
    assert ran.code == 0
    assert "built-in" in ran.out
    assert json.loads(inline.run("models", "show", "qwen2.5-7b", "--json").out)["path"] == "Qwen/Qwen2.5-7B-Instruct"


def test_every_built_in_model_can_be_shown_with_its_sources(inline):
    for name, entry in built_in_models().items():
        ran = inline.run("models", "show", name, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["sources"] == dict(entry.sources)


def test_models_say_whether_they_fit_in_which_precision_and_why_not(inline):
    rows = json.loads(inline.run("list", "--type", "models", "--json").out)
    assert {row["fits"] for row in rows} <= {True, False, None}
    for row in rows:
        assert row["why"]
        assert row["precision"] or row["fits"] is not True
    fitting = json.loads(inline.run("list", "--type", "models", "--fits", "--json").out)
    assert [row["model"] for row in fitting] == [row["model"] for row in rows if row["fits"]]
    for lang, word in (("en", "not known"), ("ko", "미확인")):
        if any(row["fits"] is None for row in rows):
            assert word in inline.run("list", "--type", "models", lang=lang).out


@pytest.mark.parametrize("kind", ["results", "models", "datasets", "errors", "engines"])
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_every_kind_is_listed_filtered_and_limited(inline, kind, lang):
    everything = inline.run("list", "--type", kind, "--json", lang=lang)
    assert everything.code == 0, everything.err
    first = next(iter(COLUMNS[kind]))
    rows = [row[first] for row in json.loads(everything.out)]  # memory figures move from run to run
    assert inline.run("list", "--type", kind, lang=lang).code == 0
    few = json.loads(inline.run("list", "--type", kind, "--limit", "2", "--json", lang=lang).out)
    assert [row[first] for row in few] == rows[:2]
    assert json.loads(inline.run("list", "--type", kind, "--filter", "no such thing", "--json").out) == []
    if rows:
        both = ("--filter", rows[0], "--filter", rows[0][:3])
        found = json.loads(inline.run("list", "--type", kind, *both, "--json", lang=lang).out)
        assert rows[0] in [row[first] for row in found]
