"""Old single-file configurations: twelve shapes converted with a note for every field, broken ones refused by place."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmopt.config.settings import SPECS
from llmopt.config.v1 import convert, merge, parse_v1
from llmopt.config.v1_values import quantization, starting_value, words
from llmopt.errors import SettingsError
from llmopt.records import DataType, DeviceType, ModelType
from llmopt.study.request import METHODS
from llmopt.workload.datasets import dataset_names

DATASETS = dataset_names()
QWEN = "Qwen/Qwen2.5-7B-Instruct"

# name → (old file, {model: {field: value}}, settings, fields that are dropped)
OLD = {
    "list with path": (
        {"models": [{"name": "qwen", "path": QWEN, "type": "vllm", "dtype": "bfloat16"}]},
        {"qwen": {"model_path": QWEN, "model_type": "vllm", "dtype": "bfloat16"}}, {}, [],
    ),
    "dict with model_path": (
        {"models": {"tiny": {"model_path": "./tiny.gguf", "type": "gguf", "quantization": "q4_k_m", "n_ctx": 2048}}},
        {"tiny": {"model_path": "./tiny.gguf", "model_type": "llamacpp", "quantization.method": "Q4_K_M"}},
        {}, ["models.tiny.n_ctx"],
    ),
    "hf_id, ranges of its own": (
        {"models": [{"hf_id": QWEN, "torch_dtype": "torch.float16", "load_in_4bit": True,
                     "temperature": [0.1, 0.9], "top_k": {"min": 10, "max": 50}, "top_p": "0.5~0.9"}]},
        {"Qwen2.5-7B-Instruct": {"dtype": "float16", "quantization.load_in_4bit": True,
                                 "inference.temperature": 0.5, "inference.top_k": 30, "inference.top_p": 0.7}},
        {}, [],
    ),
    "strings only": (
        {"models": [QWEN, "meta-llama/Llama-3.1-8B-Instruct"], "datasets": ["korean_qa", "kobest"]},
        {"Qwen2.5-7B-Instruct": {}, "Llama-3.1-8B-Instruct": {}}, {"dataset": "korean_qa"}, ["datasets[1]"],
    ),
    "name to path": (
        {"models": {"q": QWEN}, "default_model": "q", "language": "korean"},
        {"q": {"model_path": QWEN}}, {"model": "q", "lang": "ko"}, [],
    ),
    "shared ranges": (
        {"models": {"q": QWEN, "p": {"path": "a/b", "temperature": 0.2}},
         "parameters": {"temperature": [0.0, 0.5, 1.0], "max_tokens": [64, 512], "top_k": 1e9}},
        {"q": {"inference.temperature": 0.0}, "p": {"inference.temperature": 0.2}},
        {"max_tokens": 512}, ["parameters.top_k"],
    ),
    "other optimisers": (
        {"optimization": {"method": "scikit-optimize", "n_trials": "40", "timeout_minutes": 2, "random_state": 7,
                          "acq_func": "EI"}},
        {}, {"method": "gp", "trials": 40, "timeout": 120.0, "seed": 7}, ["optimization.acq_func"],
    ),
    "one model at the top": (
        {"model_path": "./m", "model_type": "huggingface", "device": "cuda:0", "n_trials": 5, "trust_remote_code": True},
        {"m": {"model_path": "./m", "model_type": "transformers", "device": "cuda"}}, {"trials": 5},
        ["trust_remote_code"],
    ),
    "a bare list": ([{"id": QWEN, "quantisation": {"bits": 8}}], {"Qwen2.5-7B-Instruct": {"quantization.load_in_8bit": True}}, {}, []),
    "names at the top": ({"큐원": {"path": QWEN}, "b c": {"path": "x/y"}}, {"큐원": {}, "b-c": {}}, {}, []),
    "secrets and remarks": (
        {"version": 1, "api_key": "sk-1234567890abcdef", "models": [{"path": "a/b", "hf_token": "hf_0123456789abcdefgh"}]},
        {"b": {}}, {}, ["version", "api_key", "models[0].hf_token"],
    ),
    "values nobody can use": (
        {"models": [{"path": "a/b", "temperature": 99, "dtype": "float99", "type": "tensorrt", "quantization": True},
                    {"name": "no path"}, 3],
         "n_trials": 0, "method": "magic", "dataset": "nowhere", "seed": None, "timeout": "soon"},
        {"b": {"inference.temperature": None}}, {},
        ["models[0].temperature", "models[0].dtype", "models[0].type", "models[0].quantization", "models[1]",
         "models[2]", "n_trials", "method", "dataset", "seed", "timeout"],
    ),
    "nothing": ({}, {}, {}, []),
}  # fmt: skip

# name → (bytes, line, column)
BROKEN = {
    "comma": (b'{\n  "models": [],\n}', None, None),
    "cut off": (b'{\n  "models": [', 2, 14),
    "a key twice": (b'{"a": 1,\n "a": 2}', 2, 2),
    "deep": (b"[" * 5000, 1, 65),
    "no number": (b'{\n"n_trials": NaN}', 2, 13),
    "long number": (b'{"n": ' + b"9" * 5000 + b"}", 1, 7),
    "half a letter": (b'{\n "name": "\\ud800"}', 2, 11),
    "binary": (b'{\n"a": "\xff\xff"}', 2, 7),
    "empty": (b"", 1, 1),
}


def notes(found):
    return {note.field: note for note in found.notes}


def value_at(config, path):
    for name in path.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize("name", OLD)
def test_an_old_file_becomes_models_and_settings(name):
    old, models, wanted, dropped = OLD[name]
    found = convert(old, datasets=DATASETS, known_models=("qwen2.5-7b",))
    assert [model.name for model in found.models] == list(models)
    for model in found.models:
        assert model.validate()
        for path, value in models[model.name].items():
            assert value_at(model, path) == value, path
    assert found.settings == wanted
    assert [note.field for note in found.notes if note.outcome == "dropped"] == dropped


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("lang", ["ko", "en"])
def test_every_field_has_its_note_with_a_reason_and_no_secret(name, lang):
    from llmopt.messages import set_language

    set_language(lang)
    try:
        found = convert(OLD[name][0], datasets=DATASETS)
        for note in found.notes:
            assert note.text
            assert bool(note.target) is (note.outcome != "dropped")
            assert "1234567890" not in note.value
            assert "0123456789" not in note.value
    finally:
        set_language(None)


def leaves(value, where=""):
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from leaves(each, f"{where}[{number}]")
    else:
        yield where


@pytest.mark.parametrize("name", OLD)
def test_no_field_is_lost_without_a_word(name):
    old = OLD[name][0] if isinstance(OLD[name][0], dict) else {"models": OLD[name][0]}
    told = set(notes(convert(OLD[name][0], datasets=DATASETS)))
    for leaf in leaves(old):
        assert any(
            leaf == field or leaf.startswith((f"{field}.", f"{field}[")) or field == f"{leaf}.path" for field in told
        ), leaf


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_place(name):
    data, line, column = BROKEN[name]
    with pytest.raises(SettingsError) as caught:
        parse_v1(data, "llm_config.json")
    assert caught.value.exit_code == 3
    if line is not None:
        assert (caught.value.values["line"], caught.value.values["column"]) == (line, column)
    assert "llm_config.json" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_korean_text_in_every_usual_encoding(encoding):
    old = {"models": [{"name": "한국어-모델", "path": "a/b", "description": "수학"}]}
    document = parse_v1(json.dumps(old, ensure_ascii=False).encode(encoding), "f")
    (model,) = convert(document, datasets=DATASETS).models
    assert (model.name, model.description) == ("한국어-모델", "수학")


def test_a_file_that_is_neither_object_nor_list_is_refused():
    with pytest.raises(SettingsError):
        convert("text", datasets=DATASETS)


def test_the_vocabulary_speaks_of_what_there_is():
    known = words()
    assert set(known["methods"]) <= set(METHODS)
    assert set(known["datasets"]) <= set(DATASETS)
    assert set(known["settings"]) <= {spec.name for spec in SPECS}
    assert set(known["types"]) <= {kind.value for kind in ModelType}
    assert set(known["dtypes"]) <= {kind.value for kind in DataType}
    assert set(known["devices"]) <= {kind.value for kind in DeviceType}


@pytest.mark.parametrize(
    ("name", "written", "value", "how"),
    [
        ("temperature", 0.3, 0.3, "same"),
        ("temperature", "0.3", 0.3, "spelling"),
        ("temperature", {"low": 0, "high": 1}, 0.5, "range"),
        ("temperature", {"values": [0.7, 0.1, 0.2]}, 0.7, "choices"),
        ("temperature", {"min": 0, "max": 1, "default": 0.2}, 0.2, "choices"),
        ("max_tokens", "16-256", 256, "limit"),
        ("top_k", [1, 10], 6, "range"),
    ],
)
def test_numbers_and_ranges(name, written, value, how):
    found = starting_value(name, written)
    assert found is not None
    assert (found.value, found.how) == (value, how)


@pytest.mark.parametrize("written", ["warm", [], {}, True, None, ["a", 1], float("inf"), {"min": 1}])
def test_what_is_no_number_is_none(written):
    assert starting_value("temperature", written) is None


@pytest.mark.parametrize(
    ("key", "written", "bits", "method"),
    [
        ("quantization", "nf4", 4, None),
        ("bits", 8, 8, None),
        ("load_in_8bit", True, 8, None),
        ("quantization", "AWQ", None, "awq"),
        ("quantization", "iq4_xs", None, "IQ4_XS"),
        ("quantization", {"quant_method": "gptq", "bits": 4}, None, "gptq"),
    ],
)
def test_quantisations(key, written, bits, method):
    found = quantization(key, written)
    assert found is not None
    assert (found.bits, found.method) == (bits, method)


def test_what_todays_files_say_stays():
    found = convert({"models": {"q": QWEN, "r": "a/b"}, "n_trials": 9, "seed": 3}, datasets=DATASETS)
    later = convert({"models": {"q": "c/d"}}, datasets=DATASETS).models[0]
    merged = merge(found, {"trials": 12, "seed": 3}, {"q": later})
    assert [model.name for model in merged.models] == ["r"]
    assert merged.settings == {}
    by_field = notes(merged)
    assert by_field["n_trials"].outcome == by_field["models.q.path"].outcome == "dropped"
    assert by_field["seed"].outcome == by_field["models.r.path"].outcome == "carried"


KEYS = {"models", "path", "name", "type", "dtype", "quantization", "temperature", "max_tokens", "top_k", "datasets",
        "method", "n_trials", "parameters", "optimization", "min", "max", "bits", "device", "timeout_minutes", "zzz",
        "load_in_4bit", "description", "values", "seed", "model", "engine", "lang"}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(QWEN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(KEYS)), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
@settings(max_examples=150)
def test_any_shape_is_converted_or_refused(document):
    if not isinstance(document, dict | list):
        return
    found = convert(document, datasets=DATASETS)
    for model in found.models:
        assert model.validate()
    for spec in SPECS:
        if spec.name in found.settings:
            spec.check(found.settings[spec.name], "test")
    assert all(note.text for note in found.notes)
