"""The GGUF header reader: what it reads, what it refuses, and that no file makes it slow or hungry."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmopt.errors import WeightsError
from llmopt.models.gguf import ArrayShape, read_gguf_header
from llmopt.models.metadata import read_model

VALUES = {
    "general.architecture": "llama",
    "general.file_type": 15,
    "llama.block_count": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.tokens": ["a", "가", "bc"] * 200,
    "tokenizer.ggml.scores": [0.5] * 600,
    "tokenizer.chat_template": "{{ messages }}<think>",
}
TENSORS = [("token_embd.weight", (64, 600), 8), ("blk.0.attn_q.weight", (64, 64), 0), ("output.weight", (64, 600), 2)]


def test_reads_values_tensors_and_steps_over_the_vocabulary(tmp_path, gguf_bytes):
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(VALUES, TENSORS))
    header = read_gguf_header(path)
    assert header.values["llama.rope.freq_base"] == 10000.0
    assert header.values["tokenizer.ggml.add_bos_token"] is True
    assert header.values["tokenizer.ggml.tokens"] == ArrayShape(length=600, type=8)
    assert header.values["tokenizer.ggml.scores"] == (0.5,) * 600
    sizes = {tensor.name: tensor.size_bytes for tensor in header.tensors}
    assert sizes == {
        "token_embd.weight": 64 * 600 // 32 * 34,
        "blk.0.attn_q.weight": 64 * 64 * 4,
        "output.weight": 64 * 600 // 32 * 18,
    }


def test_long_number_arrays_are_stepped_over(tmp_path, gguf_bytes):
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes({**VALUES, "tokenizer.ggml.token_type": [1] * 5000}, TENSORS))
    assert read_gguf_header(path).values["tokenizer.ggml.token_type"] == ArrayShape(length=5000, type=4)


def test_real_header_is_read_in_a_fraction_of_a_second(demo_model):
    began = time.process_time()
    header = read_gguf_header(demo_model)
    assert time.process_time() - began < 2.0
    assert sum(tensor.weights for tensor in header.tensors) == 134_515_008
    model = read_model(demo_model)
    assert (model.layers, model.heads, model.kv_heads, model.vocabulary) == (30, 9, 3, 49152)
    assert model.quantization == "Q4_1"
    assert model.chat_template is True


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"GGML" + data[4:], "not a GGUF"),
        (lambda data: b"", "not a GGUF"),
        (lambda data: data[:20], "not a GGUF"),
        (lambda data: data[:4] + struct.pack("<I", 9) + data[8:], "version 9"),
        (lambda data: data[:8] + struct.pack("<Q", 1 << 40) + data[16:], "too many"),
        (lambda data: data[:16] + struct.pack("<Q", 1 << 40) + data[24:], "too many"),
        (lambda data: data[:24] + struct.pack("<Q", 1 << 60) + data[32:], "length beyond"),
        (lambda data: data[:400], "cut short"),
        (lambda data: data[:-1], "cut short"),
        (lambda data: data.replace(b"add_bos_token\x07\0\0\0", b"add_bos_token\x63\0\0\0"), "value type 99"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(tmp_path, gguf_bytes, damage, reason, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    path = tmp_path / "m.gguf"
    path.write_bytes(damage(gguf_bytes(VALUES, TENSORS)))
    with pytest.raises(WeightsError, match=reason):
        read_gguf_header(path)


@pytest.mark.parametrize(
    ("values", "tensors", "reason"),
    [
        ({"general.alignment": 3}, [], "alignment"),
        ({"general.alignment": 1 << 30}, [], "alignment"),
        ({}, [("a", (64,), 0), ("a", (64,), 0)], "twice"),
        ({}, [("a", (33,), 8)], "shape"),
        ({}, [("a", (0,), 0)], "shape"),
    ],
)
def test_impossible_claims_are_refused(tmp_path, gguf_bytes, *, values, tensors, reason, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes({**VALUES, **values}, tensors))
    with pytest.raises(WeightsError, match=reason):
        read_gguf_header(path)


def test_unreadable_path_and_folder_are_clear_errors(tmp_path):
    for path in (tmp_path / "absent.gguf", tmp_path):
        with pytest.raises(WeightsError):
            read_gguf_header(path)


def test_split_weights_are_summed_and_a_missing_part_is_named(tmp_path, gguf_bytes):
    for number in (1, 2):
        values = {**VALUES, "split.count": 2, "split.no": number - 1} if number == 1 else {"split.count": 2}
        data = gguf_bytes(values, [(f"blk.{number}.w", (64, 64), 0)])
        (tmp_path / f"m-{number:05d}-of-00002.gguf").write_bytes(data)
    first = tmp_path / "m-00001-of-00002.gguf"
    assert read_model(first).weight_bytes == 2 * 64 * 64 * 4
    assert read_model(tmp_path).weight_bytes == 2 * 64 * 64 * 4
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(WeightsError, match="00002-of-00002"):
        read_model(first)


def _mutate(data: bytes, rng: random.Random) -> bytes:
    """One to six changes of the kinds a broken download, a bad disk or an attacker makes."""
    out = bytearray(data)
    header = min(len(out) - 1, 12_000)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(header)
        kind = rng.randrange(6)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + 8] = struct.pack(
                "<Q", rng.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, rng.getrandbits(64)])
            )
        elif kind == 2:
            del out[at : at + rng.randint(1, 64)]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.randint(1, 64))
        elif kind == 4:
            del out[rng.randrange(len(out)) :]
        else:
            out[at : at + 4] = struct.pack("<I", rng.randrange(16))
        if len(out) < 2:
            break
        header = min(len(out) - 1, 12_000)
    return bytes(out)


def _refuses_or_reads(path: Path) -> bool:
    """Whether ``path`` was refused; anything but our own error propagates, slowness and hunger are asserted against."""
    began = time.process_time()
    tracemalloc.start()
    try:
        read_model(path)
        refused = False
    except WeightsError as error:
        refused = bool(str(error))
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert time.process_time() - began < 2.0 * 4  # tracing makes Python code several times slower
    assert peak < 256 << 20
    return refused


def _fuzz(count: int, tmp_path: Path, gguf_bytes, seed: int) -> None:
    rng = random.Random(seed)
    original = gguf_bytes(VALUES, TENSORS)
    path = tmp_path / "m.gguf"
    refused = 0
    for _ in range(count):
        path.write_bytes(_mutate(original, rng))
        refused += _refuses_or_reads(path)
    assert refused > count // 2  # the mutations do bite


def test_mutated_headers_never_crash_hang_or_swell(tmp_path, gguf_bytes):
    _fuzz(100, tmp_path, gguf_bytes, 1)


@pytest.mark.long
def test_two_thousand_mutated_headers(tmp_path, gguf_bytes):
    _fuzz(1000, tmp_path, gguf_bytes, 2)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=300))
def test_any_bytes_after_the_magic_are_refused(tmp_path, tail):
    path = tmp_path / "any.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + tail)
    try:
        header = read_gguf_header(path)
    except WeightsError:
        return
    assert header.tensors == ()


def test_a_header_full_of_long_strings_stops_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    path = tmp_path / "huge.gguf"
    entry = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 200)
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry)
        for _ in range(200):
            file.write(struct.pack("<Q", 1 << 20))
            file.seek(1 << 20, 1)  # a sparse file: 200 MB of claims, no disk
        file.truncate()
    with pytest.raises(WeightsError, match="header larger than"):
        read_gguf_header(path)
