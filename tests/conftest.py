"""Fixtures several test folders share. Weights are fetched once into the user's cache, never into the clone."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub.constants  # noqa: F401 - it keeps the environment of its first import, which no test may change
import pytest
from hypothesis import HealthCheck, settings

from llmopt.models.catalogue import find_model
from llmopt.models.gguf import BLOCKS
from llmopt.models.weights import ensure_weights
from llmopt.paths import Workspace
from tests.waiting import until

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def _weights(name: str) -> Path:
    workspace = Workspace.here()
    return ensure_weights(find_model(name, workspace), workspace=workspace)


@pytest.fixture(scope="session", autouse=True)
def _own_measuring_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Test runs of several checkouts on one machine do not keep each other waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMOPT_LOCK_FILE", str(tmp_path_factory.mktemp("lock") / "measuring.lock"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A run in the background of a shell inherits signals that are ignored, and hands that on to its children."""
    fresh = {signal.SIGINT: signal.default_int_handler, signal.SIGQUIT: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in fresh.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _environment_put_back() -> Iterator[None]:
    """What the code under test exports (``.env`` reaches the engines so) ends with the test."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """``wait_for(condition)``: return once it holds, fail after a while."""

    def wait(condition: Callable[[], bool], patience_s: float = 90.0) -> None:
        assert until(condition, patience_s), "it never came true"

    return wait


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The smallest real model (SmolLM2-135M, a GGUF file of 98 MB)."""
    return _weights("smollm2-135m")


@pytest.fixture(scope="session")
def demo_model_05b() -> Path:
    """The default demo model (Qwen2.5-Coder-0.5B, a GGUF file of 491 MB)."""
    return _weights("qwen2.5-coder-0.5b")


def _gguf_value(value: Any) -> bytes:
    """Type number and bytes of one value; lists become arrays of their first element's kind."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        data = value.encode()
        return struct.pack("<IQ", 8, len(data)) + data
    parts = [_gguf_value(item) for item in value]
    kind = parts[0][:4] if parts else struct.pack("<I", 4)
    return struct.pack("<I", 9) + kind + struct.pack("<Q", len(parts)) + b"".join(part[4:] for part in parts)


def _gguf_bytes(
    values: Mapping[str, Any], tensors: Sequence[tuple[str, tuple[int, ...], int]] = (), pad: int = 0
) -> bytes:
    """A whole GGUF file: ``tensors`` are (name, shape, type number), their data zeros, ``pad`` extra bytes at the end."""
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)))
    for key, value in values.items():
        out += struct.pack("<Q", len(key.encode())) + key.encode() + _gguf_value(value)
    offset = 0
    for name, shape, kind in tensors:
        _, block, block_bytes = BLOCKS[kind]
        out += struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        out += struct.pack("<IQ", kind, offset)
        offset += -(-(math.prod(shape) // block * block_bytes) // 32) * 32
    out += b"\0" * (-len(out) % 32)
    return bytes(out) + b"\0" * (offset + pad)


@pytest.fixture(scope="session")
def gguf_bytes() -> Callable[..., bytes]:
    """Writes GGUF files: ``gguf_bytes(values, [(name, shape, type), …])``."""
    return _gguf_bytes


def _safetensors_bytes(tensors: Mapping[str, tuple[str, Sequence[int], int]]) -> bytes:
    """A whole safetensors file: name → (dtype, shape, bytes of data); the data are zeros."""
    header: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * at


@pytest.fixture(scope="session")
def safetensors_bytes() -> Callable[..., bytes]:
    """Writes safetensors files: ``safetensors_bytes({name: (dtype, shape, bytes)})``."""
    return _safetensors_bytes
