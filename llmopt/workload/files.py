"""Rows of a user's data file, one at a time: JSON Lines, JSON, CSV, TSV and Parquet, whatever their encoding."""

from __future__ import annotations

import codecs
import csv
import importlib
import json
import re
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeAlias

from llmopt.errors import DataError, json_problem

__all__ = ["SUFFIXES", "Row", "detect_encoding", "read_rows"]

_BETWEEN = re.compile(r"[\s,]*")
_PROBE_BYTES = 8 << 20
_CHUNK_CHARS = 1 << 16
_LARGEST_FIELD = 64 << 20
_LARGEST_DOCUMENT = 512 << 20
"""JSON files whose rows lie inside an object are read whole, up to this many bytes."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Row(NamedTuple):
    """One record and where it stands: ``number`` counts from 1 in the way the user's editor or table does."""

    number: int
    values: Mapping[str, Any]


Rows: TypeAlias = Generator[Row, None, None]


def detect_encoding(path: Path) -> str:
    """The codec that reads the file: by its byte-order mark, else strict UTF-8, UTF-16 by its zeros, or CP949.

    Looks at the first 8 MiB; raises DataError where none fits.
    """
    with path.open("rb") as file:
        head = file.read(_PROBE_BYTES)
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    whole = len(head) < _PROBE_BYTES
    if b"\x00" not in head and _decodes(head, "utf-8", whole=whole):
        return "utf-8"
    if b"\x00" in head:
        zeros_first = head[0:4096:2].count(0) > head[1:4096:2].count(0)
        guess = "utf-16-be" if zeros_first else "utf-16-le"
        if _decodes(head, guess, whole=whole):
            return guess
    elif _decodes(head, "cp949", whole=whole):
        return "cp949"
    raise DataError("data.encoding", path=path)


def _decodes(data: bytes, encoding: str, *, whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(data, final=whole)
    except UnicodeDecodeError:
        return False
    return True


def read_rows(path: Path, *, encoding: str | None = None) -> Rows:
    """Every record of the file, streamed: memory does not grow with the file.

    Raises DataError with the line where something cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError("data.format", path=path, suffix=path.suffix or "-", known=" ".join(SUFFIXES))
    if not path.is_file():
        raise DataError("data.no_file", path=path)
    if path.stat().st_size == 0:
        raise DataError("data.empty", path=path)
    return _guarded(reader(path, encoding), path)


def _open(path: Path, encoding: str | None) -> TextIO:
    try:
        codec = codecs.lookup(encoding).name if encoding else detect_encoding(path)
    except LookupError:
        raise DataError("data.unknown_encoding", encoding=encoding) from None
    return path.open(encoding=codec, newline="")


def _lines(path: Path, encoding: str | None) -> Rows:
    with _open(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            text = line.strip()
            if text:
                yield Row(number, _record(_parse(text, path, number), path, number))


def _table(path: Path, encoding: str | None) -> Rows:
    csv.field_size_limit(_LARGEST_FIELD)
    with _open(path, encoding) as file:
        header = file.readline()
        delimiter = max("\t,;|", key=header.count)
        file.seek(0)
        reader = csv.DictReader(file, delimiter=delimiter, restkey="")
        names = [name.strip() for name in reader.fieldnames or () if name.strip()]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise DataError("data.repeated_column", path=path, column=repeated)
        for values in reader:
            if "" in values or None in values.values():
                raise DataError("data.ragged", path=path, line=reader.line_num, columns=len(reader.fieldnames or ()))
            yield Row(reader.line_num, {key.strip(): value for key, value in values.items()})


def _document(path: Path, encoding: str | None) -> Rows:
    with _open(path, encoding) as file:
        text = file.read(_CHUNK_CHARS)
        if text.lstrip().startswith("["):
            yield from _array(file, text.lstrip()[1:], path)
            return
        if path.stat().st_size > _LARGEST_DOCUMENT:
            raise DataError("data.document_too_large", path=path)
        records = _records_inside(_parse(text + file.read(), path, 1))
    if records is None:
        raise DataError("data.no_records", path=path)
    for number, value in enumerate(records, start=1):
        yield Row(number, _record(value, path, number))


def _array(file: TextIO, text: str, path: Path) -> Rows:
    """Records of a top-level array, decoded as they arrive in chunks."""
    decoder = json.JSONDecoder()
    number, at = 0, 0
    while True:
        at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # the pattern matches the empty string too
        if text.startswith("]", at):
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as problem:
            chunk = file.read(max(_CHUNK_CHARS, len(text) - at))
            if not chunk:
                raise DataError("data.json", path=path, line=number + 1, problem=json_problem(problem)) from None
            text, at = text[at:] + chunk, 0
            continue
        except (ValueError, RecursionError) as problem:  # thousands of digits, or nested without end
            raise DataError("data.json", path=path, line=number + 1, problem=str(problem)[:80]) from None
        number += 1
        yield Row(number, _record(value, path, number))
        at = end


def _records_inside(value: Any) -> list[Any] | None:
    """The rows of an object such as ``{"data": [...]}``: its only list of objects."""
    if not isinstance(value, dict):
        return None
    lists = [v for v in value.values() if isinstance(v, list) and v and all(isinstance(row, dict) for row in v)]
    return lists[0] if len(lists) == 1 else None


def _parquet(path: Path, encoding: str | None) -> Rows:
    del encoding
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise DataError("data.no_pyarrow", path=path) from None
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield Row(number, values)
    except (OSError, ValueError) as problem:  # what pyarrow's own errors derive from
        raise DataError("data.parquet", path=path, problem=str(problem).split("\n")[0]) from None


def _parse(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        line = number + problem.lineno - 1
        raise DataError("data.json", path=path, line=line, problem=json_problem(problem)) from None
    except (ValueError, RecursionError) as problem:  # thousands of digits, or nested without end
        raise DataError("data.json", path=path, line=number, problem=str(problem)[:80]) from None


def _record(value: Any, path: Path, number: int) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError("data.not_an_object", path=path, line=number)
    return value


def _guarded(rows: Rows, path: Path) -> Rows:
    try:
        yield from rows
    except UnicodeDecodeError as problem:
        raise DataError("data.undecodable", path=path, encoding=problem.encoding, problem=problem.reason) from None
    except csv.Error as problem:
        raise DataError("data.csv", path=path, problem=problem) from None


_READERS: Mapping[str, Callable[[Path, str | None], Rows]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _document,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
