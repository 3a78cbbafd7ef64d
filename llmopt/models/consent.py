"""Consent to run a repository's own code: given in the model's settings, for one repository at one revision.

``trust_remote_code`` without a ``revision`` is consent to the code as it is at the first use: its commit and a sum of
its Python files are kept, and code that changed since is refused until the user names the revision he has looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from llmopt.errors import SettingsError, StorageError
from llmopt.logs import get_logger
from llmopt.messages import t
from llmopt.models.entry import ModelEntry
from llmopt.paths import Workspace

__all__ = ["Code", "check_consent", "code_of"]

_LARGEST = 16 << 20
_MOST_FILES = 2000


@dataclass(frozen=True, kw_only=True)
class Code:
    """The Python files that come with a model: where they stand, and one sum over names and contents."""

    commit: str
    files: tuple[str, ...]
    sha256: str


def code_of(folder: Path) -> Code:
    """What an engine could be made to run from ``folder``; no files where there is no code.

    Raises SettingsError for more code than anybody could have looked at.
    """
    paths = sorted(path for path in folder.rglob("*.py") if path.is_file())
    if len(paths) > _MOST_FILES or sum(path.stat().st_size for path in paths) > _LARGEST:
        raise SettingsError("models.code_too_large", folder=folder)
    total = hashlib.sha256()
    for path in paths:
        total.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    names = tuple(str(path.relative_to(folder)) for path in paths)
    return Code(commit=folder.name, files=names, sha256=total.hexdigest())


def check_consent(entry: ModelEntry, folder: Path, workspace: Workspace) -> Code | None:
    """The code that will run, None where there is none or the entry does not consent to any.

    Raises SettingsError where the code is not the one that was consented to.
    """
    if not entry.trust_remote_code or not folder.is_dir():
        return None
    code = code_of(folder)
    if not code.files:
        return None
    file = workspace.root / "config" / "consents.json"
    known = _read(file)
    key = f"{entry.path}@{entry.revision or ''}"
    before = known.get(key)
    if before is None:
        _write(file, {**known, key: {"commit": code.commit, "sha256": code.sha256, "files": list(code.files)}})
    elif before.get("sha256") != code.sha256:
        raise SettingsError(
            "models.code_changed",
            name=entry.name,
            repository=entry.path,
            was=before.get("commit", "?"),
            now=code.commit,
            folder=folder,
            file=file,
        )
    values = {"repository": entry.path, "commit": code.commit, "files": ", ".join(code.files)}
    get_logger("llmopt.models").warning("%s", t("models.code_runs", **values))
    return code


def _read(file: Path) -> dict[str, dict[str, str]]:
    """What was consented to; a file that cannot be read as such is no consent to anything else: it is refused."""
    if not file.exists():
        return {}
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or not all(isinstance(each, dict) for each in known.values()):
            raise ValueError("expected an object of objects")  # noqa: TRY301 - one message for every way to be wrong
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError("models.consents_damaged", file=file, reason=str(error)) from error
    return known


def _write(file: Path, known: dict[str, object]) -> None:
    draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise StorageError("store.unusable", path=str(file), reason=error.strerror or str(error)) from error
