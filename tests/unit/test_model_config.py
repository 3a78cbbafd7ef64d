"""ModelConfig and config/models.json: the documented lines, every kind of bad value, and a file anyone may have edited."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from config import model_config
from llmopt.config import models
from llmopt.config.models import (
    DataType,
    DeviceType,
    InferenceParams,
    ModelConfig,
    ModelConfigManager,
    ModelType,
    QuantizationConfig,
)
from llmopt.errors import LlmoptError, SettingsError, StorageError


def test_the_documented_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMOPT_HOME", raising=False)
    config = ModelConfig(name="qwen2.5-7b", model_path="Qwen/Qwen2.5-7B-Instruct", model_type=ModelType.TRANSFORMERS)
    assert config.validate()
    new_model = ModelConfig(
        name="custom-model",
        model_path="your/model/path",
        model_type=ModelType.TRANSFORMERS,
        device=DeviceType.AUTO,
        dtype=DataType.FLOAT16,
        quantization=QuantizationConfig(load_in_4bit=True),
        description="Custom model for specific task",
    )
    manager = ModelConfigManager()
    manager.add_config("custom-model", new_model)
    manager.save_to_file("config/models.json")
    assert ModelConfigManager().get_config("custom-model") == new_model
    assert InferenceParams(temperature=0.1, top_p=0.3, top_k=10).given() == {
        "temperature": 0.1,
        "top_p": 0.3,
        "top_k": 10,
    }


def test_the_documented_module_gives_the_same_objects():
    assert set(model_config.__all__) == set(models.__all__)
    assert all(getattr(model_config, name) is getattr(models, name) for name in models.__all__)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "two words"),
        ("name", "a/b"),
        ("name", None),
        ("model_path", ""),
        ("model_path", "  "),
        ("model_path", "a\nb"),
        ("model_path", 3),
        ("model_type", "vlm"),
        ("device", "gpu9"),
        ("dtype", 16),
        ("quantization", {"load_in_4bit": "maybe"}),
        ("quantization", QuantizationConfig(load_in_4bit=True, load_in_8bit=True)),
        ("quantization", QuantizationConfig(load_in_4bit=True, method="awq")),
        ("quantization", QuantizationConfig(quant_type="nf5")),
        ("revision", "../x"),
        ("revision", ""),
        ("trust_remote_code", "perhaps"),
        ("gguf_file", "x.gguf"),
        ("sha256", "abc"),
        ("inference", InferenceParams(temperature=-1)),
        ("inference", InferenceParams(top_p=2)),
        ("inference", InferenceParams(max_tokens=0)),
        ("inference", {"temperature": "warm"}),
    ],
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(SettingsError) as caught:
        ModelConfig(**{"name": "m", "model_path": "p", field: value}).validate()
    assert field.split(".")[0] in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("file", ["../up.gguf", "/abs.gguf", "x.bin"])
def test_a_gguf_file_stays_inside_its_repository(file):
    with pytest.raises(SettingsError, match="gguf_file"):
        ModelConfig(name="m", model_path="p", gguf_repo="a/b", gguf_file=file).validate()


def test_plain_strings_become_enums():
    config = ModelConfig(name="m", model_path="p", model_type="vllm", dtype="bfloat16", device="cuda").checked()
    assert (config.model_type, config.dtype, config.device) == (ModelType.VLLM, DataType.BFLOAT16, DeviceType.CUDA)


def test_manager_keeps_what_was_there(tmp_path):
    path = tmp_path / "models.json"
    first = ModelConfigManager(path)
    first.add_config("a", ModelConfig(name="a", model_path="p"))
    first.save_to_file()
    second = ModelConfigManager(path)
    second.add_config("b", ModelConfig(name="other", model_path="q", inference=InferenceParams(top_k=5)))
    second.save_to_file()
    third = ModelConfigManager(path)
    assert third.list_configs() == ["a", "b"]
    assert third.get_config("b").name == "b"
    assert third.get_config("b").inference.top_k == 5
    assert third.remove_config("a").model_path == "p"
    with pytest.raises(SettingsError, match=r"no entry 'a'|'a' 모델 항목"):
        third.get_config("a")


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "models.json"
    manager = ModelConfigManager(path)
    manager.add_config("a", ModelConfig(name="a", model_path="p"))
    manager.save_to_file()
    before = path.read_bytes()
    manager.add_config("b", ModelConfig(name="b", model_path="p"))

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llmopt.paths.os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        manager.save_to_file()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["models.json"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"models": {"a": {"model_pth": "x"}}}', "line 1, column 19"),
        ('{"modells": {}}', "models"),
        ('{"models": {"a": {"model_path": "x", "quantization": {"load_in_4bits": true}}}}', "load_in_4bit"),
        ('{"models": {"a": {"model_path": "x", "inference": {"temprature": 1}}}}', "temperature"),
        ('{"models": {"a": {"model_path": "x"}, "a": {"model_path": "y"}}}', '"a" twice'),
        ('{"models": {"a": 3}}', "object"),
        ('{"models": []}', "must hold"),
        ("[]", "must hold"),
        ('{"schema_version": 2, "models": {}}', "newer"),
        ('{"schema_version": true, "models": {}}', "must hold"),
        ("{", "line 1"),
        ("", "line 1"),
        ("[" * 100_000, "nested"),
        ('{"models": {"a b": {"model_path": "x"}}}', "name"),
        ('{"models": {"a": {}}}', "model_path"),
        ('{"models": {"a": {"model_path": "x", "inference": {"top_p": 9}}}}', "0–1"),
    ],
)
def test_broken_files_say_what_and_where(tmp_path, text, expected, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    path = tmp_path / "models.json"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        ModelConfigManager(path)
    assert expected in str(caught.value)


@pytest.mark.parametrize("data", ["한글".encode("cp949"), b"\xff\xfe\x00", b"\x00" * 100])
def test_other_encodings_are_a_clear_error(tmp_path, data):
    path = tmp_path / "models.json"
    path.write_bytes(data)
    with pytest.raises(SettingsError):
        ModelConfigManager(path)


def test_a_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "models.json"
    path.write_text('{"models": {"a": {"model_path": "x"}}}', encoding="utf-8-sig")
    assert ModelConfigManager(path).list_configs() == ["a"]


def test_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "models.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(SettingsError):
        ModelConfigManager(path)


GOOD = {
    "schema_version": 1,
    "models": {
        "a": {"model_path": "me/a", "model_type": "vllm", "dtype": "float16", "quantization": {"load_in_4bit": True}},
        "b": {"model_path": "b.gguf", "description": "둘째", "inference": {"temperature": 0.7, "top_k": 40}},
    },
}


def _fuzz(count: int, path, seed: int) -> None:
    rng = random.Random(seed)
    refused = []
    text = json.dumps(GOOD, ensure_ascii=False, indent=1)
    pieces = [
        "{",
        "}",
        "[",
        "]",
        '"',
        ",",
        ":",
        "null",
        "true",
        "1e999",
        "-0",
        "NaN",
        "\\u0000",
        "\ud55c",
        "  ",
        "//",
        "'",
    ]
    for _ in range(count):
        data = text
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(data) + 1)
            choice = rng.randrange(3)
            if choice == 0:
                data = data[:at] + rng.choice(pieces) + data[at:]
            elif choice == 1:
                data = data[:at] + data[at + rng.randint(1, 20) :]
            else:
                data = data[:at] + chr(rng.randrange(32, 0x3000)) + data[at + 1 :]
        path.write_text(data, encoding="utf-8", errors="surrogatepass")
        try:
            ModelConfigManager(path)
        except LlmoptError as error:
            refused.append(str(error))
    assert len(refused) > count // 3
    assert all(refused)


def test_fuzzed_files_give_our_errors_only(tmp_path):
    _fuzz(300, tmp_path / "models.json", 1)


@pytest.mark.long
def test_fuzzed_files_give_our_errors_only_many(tmp_path):
    _fuzz(5000, tmp_path / "models.json", 2)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
_fields = st.sampled_from(
    ["model_path", "model_type", "dtype", "device", "quantization", "inference", "revision", "sha256", "x"]
)


@settings(max_examples=120)
@given(entry=st.dictionaries(_fields, _values, max_size=5))
def test_any_entry_is_accepted_or_refused_clearly(tmp_path_factory, entry):
    path = tmp_path_factory.mktemp("models") / "models.json"
    path.write_text(json.dumps({"models": {"a": {"model_path": "p", **entry}}}))
    try:
        loaded = ModelConfigManager(path).get_config("a")
    except SettingsError as refused:
        event(refused.key)
        return
    manager = ModelConfigManager(path)
    manager.save_to_file()
    assert ModelConfigManager(path).get_config("a") == loaded


def test_save_and_load_is_the_identity(tmp_path):
    config = ModelConfig(
        name="m",
        model_path="me/m",
        model_type=ModelType.LLAMACPP,
        device=DeviceType.CUDA,
        dtype=DataType.BFLOAT16,
        quantization=QuantizationConfig(load_in_4bit=True, method="bitsandbytes", double_quant=False),
        description="설명",
        revision="abc",
        trust_remote_code=True,
        gguf_repo="me/m-GGUF",
        gguf_file="m.gguf",
        sha256="0" * 64,
        inference=InferenceParams(temperature=0.1, thinking=True),
    )
    manager = ModelConfigManager(tmp_path / "models.json")
    manager.add_config("m", config)
    manager.save_to_file()
    assert ModelConfigManager(tmp_path / "models.json").get_config("m") == config
