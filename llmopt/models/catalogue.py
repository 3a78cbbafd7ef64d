"""Models by name: the built-in catalogue, overlaid by the workspace's config/models.json, or any path or hub id."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from llmopt.config.models import ModelConfig, ModelConfigManager
from llmopt.errors import UsageError
from llmopt.models.entry import HubFiles, ModelEntry, PackagePart
from llmopt.paths import Workspace
from llmopt.records import ModelInfo

__all__ = ["DEFAULT_MODEL", "all_models", "built_in_models", "find_model", "model_names", "served_model"]

DEFAULT_MODEL = "qwen2.5-coder-0.5b"
"""What runs where no model is named."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def find_model(name_or_path: str, workspace: Workspace) -> ModelEntry:
    """The entry of a catalogue name, of a file or folder, or of a hub id; raises UsageError with the nearest names."""
    known = all_models(workspace)
    entry = known.get(name_or_path) or known.get(name_or_path.lower())
    if entry is not None:
        return entry
    path = _existing_path(name_or_path, workspace)
    if path is not None:
        return _path_entry(path)
    by_hub_id = next((e for e in known.values() if e.path.lower() == name_or_path.lower()), None)
    if by_hub_id is not None:
        return by_hub_id
    if _HUB_ID.fullmatch(name_or_path) and not name_or_path.endswith((".gguf", ".safetensors")):
        facts = ModelInfo(name=name_or_path, path=name_or_path, format="hub")
        return ModelEntry(name=name_or_path, path=name_or_path, facts=facts, origin="hub")
    if name_or_path.startswith((".", "/", "~")) or name_or_path.endswith((".gguf", ".safetensors")):
        raise UsageError("models.no_file", path=name_or_path)
    near = _near(name_or_path.lower(), tuple(known))
    if near:
        raise UsageError("models.unknown_near", name=name_or_path, near=", ".join(near))
    raise UsageError("models.unknown", name=name_or_path)


def served_model(name: str, workspace: Workspace) -> ModelEntry:
    """The entry of a model that somebody else serves: under any name, for nothing of it needs to be here."""
    facts = ModelInfo(name=name, path=name, format="hub")
    return all_models(workspace).get(name) or ModelEntry(name=name, path=name, facts=facts, origin="hub")


def _near(wanted: str, known: tuple[str, ...]) -> list[str]:
    """Names that begin alike or contain what was typed, then those spelt alike; at most four."""
    containing = [name for name in known if len(wanted) > 1 and (wanted in name or name in wanted)]
    return list(dict.fromkeys([*containing, *difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)]))[:4]


def model_names(workspace: Workspace) -> tuple[str, ...]:
    """All names ``find_model`` knows: the built-in ones in catalogue order, then the user's own."""
    return tuple(all_models(workspace))


@cache
def built_in_models() -> Mapping[str, ModelEntry]:
    """The catalogue that comes with the package; every fact in it has its source, the others are None."""
    data = json.loads(Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8"))
    return {name: _built_in(name, raw) for name, raw in data["models"].items()}


def all_models(workspace: Workspace) -> dict[str, ModelEntry]:
    """The built-in entries, each replaced by the user's of the same name, then the user's others."""
    known = dict(built_in_models())
    if workspace.models_file.is_file():
        manager = ModelConfigManager(workspace.models_file)
        for name in manager.list_configs():
            known[name] = _user_entry(manager.get_config(name), known.get(name), workspace)
    return known


def _user_entry(config: ModelConfig, base: ModelEntry | None, workspace: Workspace) -> ModelEntry:
    """An entry of the user's; where it names the same weights as the built-in one, that one's facts still hold."""
    path = _existing_path(config.model_path, workspace)
    if path is not None or not _HUB_ID.fullmatch(config.model_path):
        found = _path_entry(path or workspace.root / config.model_path)
        found = replace(found, name=config.name, facts=replace(found.facts, name=config.name))
    elif base is not None and base.path == config.model_path:
        found = base
    else:
        facts = ModelInfo(name=config.name, path=config.model_path, format="hub")
        found = ModelEntry(name=config.name, path=config.model_path, facts=facts, origin="user")
    gguf = found.gguf
    if config.gguf_repo is not None and config.gguf_file is not None:
        gguf = HubFiles(repo=config.gguf_repo, files=(config.gguf_file,), sha256=config.sha256)
    return replace(
        found,
        origin="user",
        facts=replace(found.facts, trust_remote_code=config.trust_remote_code),
        gguf=gguf,
        packages=found.packages if gguf is found.gguf else (),
        description={"ko": config.description, "en": config.description} if config.description else found.description,
        model_type=config.model_type,
        device=config.device,
        dtype=config.dtype,
        quantization=asdict(config.quantization) if config.quantization else {},
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        allow_pickle=config.allow_pickle,
        draft=config.draft_model,
        inference=config.inference,
    )


def _built_in(name: str, raw: Mapping[str, Any]) -> ModelEntry:
    gguf = raw.get("gguf")
    facts: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in raw.get("facts", {}).items()
    }
    return ModelEntry(
        name=name,
        path=raw["hub"],
        facts=ModelInfo(name=name, path=raw["hub"], format="hub", **facts),
        origin="built-in",
        gguf=HubFiles(**{**gguf, "files": tuple(gguf["files"])}) if gguf else None,
        packages=tuple(PackagePart(**part) for part in raw.get("packages", ())),
        description=raw.get("description", {}),
        sources=raw.get("sources", {}),
    )


def _existing_path(text: str, workspace: Workspace) -> Path | None:
    """``text`` as a path (relative to the workspace) where there is something, else None."""
    if not text.strip():
        return None
    try:
        path = workspace.root / Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL inside, an unknown ~user
        return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name no file system would take: what needs the file will say that it is not there
        return False


def _path_entry(path: Path) -> ModelEntry:
    gguf = path.suffix == ".gguf" or _is_file(path)
    name = path.stem if gguf else path.name
    format_: Literal["gguf", "safetensors"] = "gguf" if gguf else "safetensors"
    return ModelEntry(
        name=name, path=str(path), facts=ModelInfo(name=name, path=str(path), format=format_), origin="path"
    )
