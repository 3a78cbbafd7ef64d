"""Raw samples beside the database: one compressed JSON-lines file a pass, complete under its name or absent."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from llmopt.errors import StorageError
from llmopt.paths import ensure
from llmopt.store.connection import readable_errors
from llmopt.store.encoding import to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["read_samples", "write_samples"]

_SUFFIX = ".jsonl.gz"


def write_samples(folder: Path, name: str, rows: Iterable[Any]) -> Path:
    """Write ``folder/name.jsonl.gz`` from records or mappings; raises StorageError, leaving no part under that name."""
    target = folder / f"{name}{_SUFFIX}"
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    with readable_errors(target):
        ensure(folder)
        try:
            with part.open("wb") as file:
                # no name and no time inside: the same samples give the same bytes
                with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
                    for row in rows:
                        packed.write((to_text(_as_mapping(row)) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(folder)
    return target


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a samples file, one at a time; raises StorageError for a missing or damaged file."""
    with readable_errors(path):
        try:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)
        except (EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
            raise StorageError("store.samples_damaged", path=str(path), reason=str(error)) from error


def _as_mapping(row: Any) -> Any:
    if is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in fields(row)}
    return row


def _sync_folder(folder: Path) -> None:
    """Make the rename durable; systems that cannot open a folder order it themselves."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
