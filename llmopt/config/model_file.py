"""The file config/models.json on disk: read with limits and places of errors, written atomically."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmopt.errors import SettingsError, StorageError, json_problem
from llmopt.messages import t
from llmopt.paths import write_whole

__all__ = ["Problem", "atomic_json", "read_model_file", "unknown_key"]

_MAX_BYTES = 4 << 20
_TOP_LEVEL = ("schema_version", "models")
_WORDED = {
    "name",
    "path",
    "revision",
    "sha256",
    "gguf_file",
    "gguf_pair",
    "one_width",
    "string",
    "bool",
    "bool_parsing",
    "int_parsing",
    "float_parsing",
    "dataclass",
    "missing",
}
"""Expectations with a sentence of their own in the message catalogue; others are lists or ranges, shown as they are."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A field whose value cannot be used; ``expected`` is a worded rule or a list of what may be written."""

    field: str
    value: Any
    expected: str

    def error(self, model: str) -> SettingsError:
        """The error for this field of the entry ``model``."""
        expected = t(f"models.expected.{self.expected}") if self.expected in _WORDED else self.expected
        shown = repr(self.value)
        shown = shown if len(shown) <= 80 else shown[:79] + "…"  # noqa: PLR2004 - about one terminal line
        return SettingsError("models.bad_field", model=model[:80], field=self.field, value=shown, expected=expected)


def read_model_file(path: Path, schema_version: int) -> tuple[dict[str, dict[str, Any]], str]:
    """The entries of ``path`` by name, and its text (to find places in); raises SettingsError for anything else."""
    text, loaded = _read_json(path)
    if not isinstance(loaded, dict) or not isinstance(loaded.get("models", {}), dict):
        raise SettingsError("models.file_shape", path=path)
    for key in loaded:
        if key not in _TOP_LEVEL:
            raise unknown_key(path, text, "", key, _TOP_LEVEL)
    version = loaded.get("schema_version", schema_version)
    if type(version) is not int or version < 1:
        raise SettingsError("models.file_shape", path=path)
    if version > schema_version:
        raise SettingsError("models.file_newer", path=path, found=version, known=schema_version)
    entries: dict[str, dict[str, Any]] = loaded.get("models", {})
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise Problem(field=name, value=entry, expected="dataclass").error(name)
    return entries, text


def _read_json(path: Path) -> tuple[str, Any]:
    """The text of ``path`` and what it says, with every way a file can be wrong turned into a SettingsError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise SettingsError("models.file_too_large", path=path, limit_mb=_MAX_BYTES >> 20)
        text = data.decode("utf-8-sig")
        return text, json.loads(text, object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError:
        raise SettingsError("models.file_not_utf8", path=path) from None
    except json.JSONDecodeError as error:
        raise _not_json(path, error.lineno, error.colno, json_problem(error)) from None
    except (RecursionError, ValueError) as error:
        why = t("json.deep") if isinstance(error, RecursionError) else str(error)[:80]
        raise _not_json(path, 1, 1, why) from None
    except OSError as error:
        raise SettingsError("models.file_unreadable", path=path, why=error.strerror or str(error)) from None


def _not_json(path: Path, line: int, column: int, why: str) -> SettingsError:
    return SettingsError("models.file_not_json", path=path, line=line, column=column, why=why)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'"{key[:40]}" twice')
        found[key] = value
    return found


def unknown_key(path: Path, text: str, part: str, key: str, allowed: Iterable[str]) -> SettingsError:
    """The error for a key nobody knows, with its place and the nearest known one."""
    found = re.search(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", text)
    offset = found.start() if found else 0
    near = difflib.get_close_matches(key, list(allowed), n=2)
    return SettingsError(
        "models.unknown_field",
        path=path,
        line=text.count("\n", 0, offset) + 1,
        column=offset - (text.rfind("\n", 0, offset) + 1) + 1,
        name=(f"{part}." if part else "") + key[:80],
        near=", ".join(near) or ", ".join(allowed),
    )


def atomic_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write ``data`` so that ``path`` is at every moment either the old or the new file; raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(data, ensure_ascii=False, indent=2) + "\n")
    except OSError as error:
        raise StorageError("models.file_unwritable", path=path, why=error.strerror or str(error)) from error
