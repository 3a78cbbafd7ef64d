"""A GGUF file's header, read without its vocabulary: arrays are stepped over, and every claim of the file is checked.

The format: github.com/ggml-org/ggml, docs/gguf.md. A header comes from a stranger, so each length, count, type and
offset has a limit; a file that breaks one is refused before memory or time is spent on it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NoReturn, TypeAlias

from llmopt.models.header_errors import bad_header

__all__ = ["BLOCKS", "ArrayShape", "GgufHeader", "GgufTensor", "GgufValue", "read_gguf_header"]

BLOCKS: Mapping[int, tuple[str, int, int]] = MappingProxyType(
    {
        # tensor type → name, weights in a block, bytes of a block (ggml's type table)
        0: ("F32", 1, 4),
        1: ("F16", 1, 2),
        2: ("Q4_0", 32, 18),
        3: ("Q4_1", 32, 20),
        6: ("Q5_0", 32, 22),
        7: ("Q5_1", 32, 24),
        8: ("Q8_0", 32, 34),
        9: ("Q8_1", 32, 36),
        10: ("Q2_K", 256, 84),
        11: ("Q3_K", 256, 110),
        12: ("Q4_K", 256, 144),
        13: ("Q5_K", 256, 176),
        14: ("Q6_K", 256, 210),
        15: ("Q8_K", 256, 292),
        16: ("IQ2_XXS", 256, 66),
        17: ("IQ2_XS", 256, 74),
        18: ("IQ3_XXS", 256, 98),
        19: ("IQ1_S", 256, 50),
        20: ("IQ4_NL", 32, 18),
        21: ("IQ3_S", 256, 110),
        22: ("IQ2_S", 256, 82),
        23: ("IQ4_XS", 256, 136),
        24: ("I8", 1, 1),
        25: ("I16", 1, 2),
        26: ("I32", 1, 4),
        27: ("I64", 1, 8),
        28: ("F64", 1, 8),
        29: ("IQ1_M", 256, 56),
        30: ("BF16", 1, 2),
        34: ("TQ1_0", 256, 54),
        35: ("TQ2_0", 256, 66),
        39: ("MXFP4", 32, 17),
        40: ("NVFP4", 64, 36),
        41: ("Q1_0", 128, 18),
    }
)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

_MAX_HEADER_BYTES = 96 << 20
_MAX_VALUES = 1 << 16
_MAX_TENSORS = 1 << 16
_MAX_KEY_BYTES = 1 << 10
_MAX_STRING_BYTES = 1 << 20
_MAX_ARRAY_STRINGS = 1 << 21
"""Four times the largest vocabulary and merge list seen; more would cost seconds to step over."""
_MAX_ARRAY_NUMBERS = 1 << 24
_KEEP_NUMBERS = 4096
"""Arrays of numbers up to this long are kept (one value a layer); longer ones belong to the tokenizer."""
_FIXED_BYTES = 24
"""Magic number, version and the two counts."""
_MIN_ALIGNMENT, _MAX_ALIGNMENT = 8, 1 << 20
_MAX_DIMENSIONS = 4
_READ_AHEAD = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayShape:
    """An array that was stepped over: how many elements of which type it has."""

    length: int
    type: int


GgufValue: TypeAlias = float | str | tuple[float, ...] | ArrayShape
"""Numbers keep their Python kind (``int``, ``bool`` …), which the alias need not repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufTensor:
    """One tensor: its shape (innermost first, as GGUF writes it) and where its bytes lie in the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    weights: int
    offset: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says before its tensor data begins."""

    version: int
    values: Mapping[str, GgufValue]
    tensors: tuple[GgufTensor, ...]
    data_offset: int
    file_bytes: int


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of ``path``; raises WeightsError naming what is wrong with the file (also when it is cut short)."""
    try:
        with path.open("rb") as file:
            return _Reader(path, file).header()
    except OSError as error:
        raise bad_header(path, "unreadable", reason=error.strerror or str(error)) from error


class _Reader:
    """A cursor over the header that reads ahead in steps and never past its limits."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.file_bytes = os.fstat(file.fileno()).st_size
        self.buffer = bytearray()
        self.at = 0

    def header(self) -> GgufHeader:
        """Read from the magic number to the end of the tensor table."""
        if self.file_bytes < _FIXED_BYTES or self.bytes(4) != b"GGUF":
            self.refuse("not_gguf")
        version = self.number("I")
        if version not in {2, 3}:
            self.refuse("gguf_version", version=version)
        tensor_count, value_count = self.number("Q"), self.number("Q")
        if tensor_count > _MAX_TENSORS or value_count > _MAX_VALUES:
            self.refuse("too_many", count=max(tensor_count, value_count))
        values = self.values(int(value_count))
        alignment = values.get("general.alignment", 32)
        if (
            not isinstance(alignment, int)
            or not _MIN_ALIGNMENT <= alignment <= _MAX_ALIGNMENT
            or alignment & (alignment - 1)
        ):
            self.refuse("alignment")
        table = [self.tensor() for _ in range(int(tensor_count))]
        start = -(-self.at // alignment) * alignment
        return GgufHeader(
            version=int(version),
            values=values,
            tensors=self.placed(table, start, alignment),
            data_offset=start,
            file_bytes=self.file_bytes,
        )

    def values(self, count: int) -> dict[str, GgufValue]:
        found: dict[str, GgufValue] = {}
        for _ in range(count):
            key = self.text(_MAX_KEY_BYTES)
            if key in found:
                self.refuse("duplicate", name=key[:80])
            found[key] = self.value(int(self.number("I")))
        return found

    def value(self, kind: int) -> GgufValue:
        if kind == _STRING:
            return self.text(_MAX_STRING_BYTES)
        if kind == _ARRAY:
            return self.array(int(self.number("I")), int(self.number("Q")))
        return self.number(self.format(kind))

    def array(self, kind: int, length: int) -> GgufValue:
        if kind == _STRING:
            self.step_over_strings(length)
            return ArrayShape(length=length, type=kind)
        width = struct.calcsize("<" + self.format(kind))
        if length > _MAX_ARRAY_NUMBERS:
            self.refuse("too_long", length=length)
        if length > _KEEP_NUMBERS:
            self.skip(length * width)
            return ArrayShape(length=length, type=kind)
        return struct.unpack(f"<{length}{self.format(kind)}", self.bytes(length * width))

    def format(self, kind: int) -> str:
        if kind not in _SCALARS:  # an array inside an array is of a kind that is not here either
            self.refuse("value_type", type=kind)
        return _SCALARS[kind]

    def step_over_strings(self, count: int) -> None:
        """Pass ``count`` strings; the loop every large vocabulary goes through, so it stays on local names."""
        if count > _MAX_ARRAY_STRINGS:
            self.refuse("too_long", length=count)
        length_at = struct.Struct("<Q").unpack_from
        buffer, at = self.buffer, self.at
        for _ in range(count):
            if at + 8 > len(buffer):
                self.need(at + 8)
            length = length_at(buffer, at)[0]
            if length > _MAX_STRING_BYTES:
                self.refuse("too_long", length=length)
            at += 8 + length
        self.need(at)
        self.at = at

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text(_MAX_KEY_BYTES)
        dimensions = int(self.number("I"))
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            self.refuse("shape", name=name[:80])
        shape = struct.unpack(f"<{dimensions}Q", self.bytes(8 * dimensions))
        return name, shape, int(self.number("I")), int(self.number("Q"))

    def placed(
        self, table: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
    ) -> tuple[GgufTensor, ...]:
        """The tensors with sizes, each checked to lie inside the file and not upon another."""
        tensors = [self.sized(*row, start=start, alignment=alignment) for row in table]
        if len({tensor.name for tensor in tensors}) != len(tensors):
            self.refuse("duplicate", name="tensor")
        end = start
        for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
            if tensor.offset < end:
                self.refuse("overlap", name=tensor.name[:80])
            end = tensor.offset + tensor.size_bytes
        if end > self.file_bytes:
            self.refuse("truncated")
        return tuple(tensors)

    def sized(
        self, name: str, shape: tuple[int, ...], kind: int, offset: int, *, start: int, alignment: int
    ) -> GgufTensor:
        if kind not in BLOCKS:
            self.refuse("tensor_type", type=kind, name=name[:80])
        type_name, block, block_bytes = BLOCKS[kind]
        weights = 1
        for size in shape:
            weights *= size
        # Python's integers do not overflow, but a claim beyond the file is refused before it is used
        if not 0 < weights <= self.file_bytes * 256 or shape[0] % block:
            self.refuse("shape", name=name[:80])
        if offset % alignment:
            self.refuse("alignment")
        size_bytes = weights // block * block_bytes
        return GgufTensor(
            name=name, shape=shape, type=type_name, weights=weights, offset=start + offset, size_bytes=size_bytes
        )

    def number(self, code: str) -> float:
        width = struct.calcsize("<" + code)
        value: float = struct.unpack("<" + code, self.bytes(width))[0]
        return value

    def text(self, limit: int) -> str:
        length = int(self.number("Q"))
        if length > limit:
            self.refuse("too_long", length=length)
        return self.bytes(length).decode("utf-8", errors="replace")

    def bytes(self, count: int) -> bytes:
        self.need(self.at + count)
        taken = bytes(self.buffer[self.at : self.at + count])
        self.at += count
        return taken

    def skip(self, count: int) -> None:
        self.need(self.at + count)
        self.at += count

    def need(self, end: int) -> None:
        """Have the first ``end`` bytes of the file in the buffer."""
        if end <= len(self.buffer):
            return
        if end > self.file_bytes:
            self.refuse("truncated")
        if end > _MAX_HEADER_BYTES:
            self.refuse("too_large", limit_mb=_MAX_HEADER_BYTES >> 20)
        wanted = min(max(end, 2 * len(self.buffer), _READ_AHEAD), _MAX_HEADER_BYTES) - len(self.buffer)
        self.buffer += self.file.read(wanted)
        if end > len(self.buffer):
            self.refuse("truncated")

    def refuse(self, code: str, **values: str | float) -> NoReturn:
        raise bad_header(self.path, code, **values)
