"""The safetensors header reader: the format's own rules, our limits, and mutated files."""

from __future__ import annotations

import json
import random
import struct
import time
import tracemalloc

import pytest

from llmopt.errors import WeightsError
from llmopt.models.safetensors_header import read_json, read_safetensors_header, weight_files

TENSORS = {
    "model.embed_tokens.weight": ("BF16", (64, 8), 64 * 8 * 2),
    "model.layers.0.mlp.weight": ("F32", (8, 8), 256),
    "model.layers.0.mlp.packed": ("F4", (8, 8), 32),
    "model.norm.weight": ("F16", (8,), 16),
}


def _write(path, header: object, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_reads_names_shapes_and_sizes(tmp_path, safetensors_bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(TENSORS))
    found = {tensor.name: (tensor.dtype, tensor.shape, tensor.size_bytes) for tensor in read_safetensors_header(path)}
    assert found == TENSORS


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"{", b""),
        (b"[]", b""),
        (b"[" * 100_000, b""),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {}}', b"\0" * 4),
        ({"a": 3}, b""),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4),
        ({"a": {"dtype": "XX", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"\0" * 4),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 5),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 3),
        ({"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}, b"\0" * 4),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, b"\0" * 4),
    ],
)
def test_contradictions_are_refused(tmp_path, header, data):
    path = tmp_path / "model.safetensors"
    _write(path, header, data)
    with pytest.raises(WeightsError):
        read_safetensors_header(path)


def test_a_claimed_giant_header_is_refused_unread(tmp_path):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 30))
        file.truncate(2 << 30)  # sparse
    with pytest.raises(WeightsError):
        read_safetensors_header(path)


def test_the_index_decides_which_files_count(tmp_path, safetensors_bytes):
    for name in ("model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"):
        (tmp_path / name).write_bytes(safetensors_bytes({name: ("F16", (2,), 4)}))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert [path.name for path in weight_files(tmp_path)] == ["model-1.safetensors", "model-2.safetensors"]
    index.write_text(json.dumps({"weight_map": {"a": "../secret"}}))
    with pytest.raises(WeightsError):
        weight_files(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "model-3.safetensors"}}))
    with pytest.raises(WeightsError, match="model-3"):
        weight_files(tmp_path)


def test_json_beyond_the_limit_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": "' + "x" * 2000 + '"}')
    assert read_json(path)["a"]
    with pytest.raises(WeightsError):
        read_json(path, limit_bytes=1000)


def _fuzz(count: int, path, original: bytes, seed: int) -> None:
    rng = random.Random(seed)
    refused = 0
    for _ in range(count):
        data = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(min(len(data), 500))
            choice = rng.randrange(4)
            if choice == 0:
                data[at] = rng.randrange(256)
            elif choice == 1:
                data[0:8] = struct.pack("<Q", rng.choice([0, 1, len(data), 2**32, 2**63, rng.getrandbits(64)]))
            elif choice == 2:
                del data[at : at + rng.randint(1, 40)]
            else:
                data[at:at] = rng.choice([b"[[[[", b'{"', b"9" * 40, b"-1", b"null", b"\xff\xfe"])
            if len(data) < 10:
                break
        path.write_bytes(data)
        began = time.process_time()
        tracemalloc.start()
        try:
            read_safetensors_header(path)
        except WeightsError:
            refused += 1
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 256 << 20
        assert time.process_time() - began < 2.0
    assert refused > count // 2


def test_mutated_headers_never_crash_hang_or_swell(tmp_path, safetensors_bytes):
    _fuzz(100, tmp_path / "m.safetensors", safetensors_bytes(TENSORS), 1)


@pytest.mark.long
def test_a_thousand_mutated_headers(tmp_path, safetensors_bytes):
    _fuzz(1000, tmp_path / "m.safetensors", safetensors_bytes(TENSORS), 2)


@pytest.mark.long
def test_the_hungriest_header_within_the_limit_stays_below_256_mb(tmp_path):
    path = tmp_path / "m.safetensors"
    _write(path, b'{"a": [' + b"{}," * 2_600_000 + b"{}]}")
    tracemalloc.start()
    with pytest.raises(WeightsError):
        read_safetensors_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 256 << 20
