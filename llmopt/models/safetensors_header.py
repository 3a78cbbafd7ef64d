"""The header of a safetensors file, or of all parts of a split one: names, types and sizes, no tensor data.

The format: github.com/huggingface/safetensors (README, "Format"). Limits are narrower than the format's own, because
a header comes from a stranger; the largest real ones seen are below 2 MB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

from llmopt.models.header_errors import bad_header

__all__ = ["DTYPE_BITS", "SafeTensor", "read_json", "read_safetensors_header", "weight_files"]

DTYPE_BITS: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("F4",), 4),
        **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
        **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
        **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
        **dict.fromkeys(("I32", "U32", "F32"), 32),
        **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    }
)
_MAX_HEADER_BYTES = 8 << 20
"""Parsing takes up to 25 times this in memory, which must stay below 256 MB."""
_MAX_DIMENSIONS = 8
_LENGTH_BYTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SafeTensor:
    """One tensor as the header describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def elements(self) -> int:
        """How many stored elements it has (packed formats hold several weights in one)."""
        return prod(self.shape)


def read_json(path: Path, *, limit_bytes: int = _MAX_HEADER_BYTES) -> dict[str, Any]:
    """The JSON object in ``path``; raises WeightsError for anything else, and for a file beyond ``limit_bytes``."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise bad_header(path, "unreadable", reason=error.strerror or str(error)) from error
    if len(data) > limit_bytes:
        raise bad_header(path, "too_large", limit_mb=limit_bytes >> 20)
    return _parse(path, data)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a model folder: those its index names, else ``model.safetensors``, else all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise bad_header(index, "not_safetensors")
        names = sorted(set(weight_map.values()))
        for name in names:
            if Path(name).name != name or not (folder / name).is_file():  # never outside the folder
                raise bad_header(index, "missing_shard", name=name[:80])
        return tuple(folder / name for name in names)
    single = folder / "model.safetensors"
    return (single,) if single.is_file() else tuple(sorted(folder.glob("*.safetensors")))


def read_safetensors_header(path: Path) -> tuple[SafeTensor, ...]:
    """The tensors of one file; raises WeightsError where the header contradicts itself or the file's size."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES + 2 or length > size - _LENGTH_BYTES:
                raise bad_header(path, "not_safetensors")
            if length > _MAX_HEADER_BYTES:
                raise bad_header(path, "too_large", limit_mb=_MAX_HEADER_BYTES >> 20)
            data = file.read(length)
    except OSError as error:
        raise bad_header(path, "unreadable", reason=error.strerror or str(error)) from error
    entries = _parse(path, data)
    entries.pop("__metadata__", None)
    tensors, spans = [], []
    for name, entry in entries.items():
        tensor, span = _tensor(path, name, entry)
        tensors.append(tensor)
        spans.append(span)
    _check_spans(path, spans, size - _LENGTH_BYTES - length)
    return tuple(tensors)


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise bad_header(path, "not_json") from error
    if not isinstance(parsed, dict):
        raise bad_header(path, "not_json")
    return parsed


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _tensor(path: Path, name: str, entry: Any) -> tuple[SafeTensor, tuple[int, int]]:
    if not isinstance(entry, dict):
        raise bad_header(path, "field", name=name[:80])
    dtype, shape, span = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise bad_header(path, "tensor_type", type=str(dtype)[:20], name=name[:80])
    if not _counts(shape, most=_MAX_DIMENSIONS) or not _counts(span, most=2) or len(span) != 2:  # noqa: PLR2004 - begin, end
        raise bad_header(path, "shape", name=name[:80])
    begin, end = span
    if end < begin or (end - begin) * 8 != prod(shape) * DTYPE_BITS[dtype]:
        raise bad_header(path, "shape", name=name[:80])
    return SafeTensor(name=name, dtype=dtype, shape=tuple(shape), size_bytes=end - begin), (begin, end)


def _counts(value: Any, *, most: int) -> TypeGuard[list[int]]:
    """Whether ``value`` is a short list of sizes (``True`` is no size, though Python counts it as an integer)."""
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(item) is int and 0 <= item < 1 << 62 for item in value)
    )


def _check_spans(path: Path, spans: list[tuple[int, int]], data_bytes: int) -> None:
    """The format's own rule: tensors cover the data from its first to its last byte, without gap or overlap."""
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise bad_header(path, "overlap", name=f"{begin}")
        at = end
    if at != data_bytes:
        raise bad_header(path, "truncated")
