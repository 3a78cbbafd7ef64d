"""Weights in the form an engine takes: fetched, or converted where only the other form can be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from llmopt.engines.locate import converter
from llmopt.errors import WeightsError
from llmopt.models.catalogue import find_model
from llmopt.models.consent import check_consent
from llmopt.models.conversion import convert, converted, source_digest
from llmopt.models.draft import with_draft
from llmopt.models.entry import ModelEntry
from llmopt.models.metadata import read_model
from llmopt.models.progress import Progress, ProgressCallback
from llmopt.models.weights import WeightsFormat, ensure_weights, kept_gguf
from llmopt.paths import Workspace
from llmopt.records import ModelInfo

__all__ = ["bring_weights", "fetching_data"]


def bring_weights(
    entry: ModelEntry, form: WeightsFormat | None, *, workspace: Workspace, progress: ProgressCallback | None = None
) -> ModelInfo:
    """The model with its weights here in ``form``. Raises WeightsError or StorageError as fetching does, and
    SettingsError where code beside the weights is not the code that was consented to.

    Safetensors come from the hub; where it has none to give, from the GGUF file of the same entry.
    """
    path = _safetensors(entry, workspace, progress) if form == "safetensors" else None
    if path is None:
        path = ensure_weights(entry, workspace=workspace, progress=progress, wanted=form)
    check_consent(entry, path, workspace)
    known = entry.gguf.sha256 if entry.gguf and path.is_file() else source_digest(path)  # fetching has checked it
    facts = read_model(path, entry.name, allow_pickle=entry.allow_pickle)
    facts = replace(facts, trust_remote_code=entry.trust_remote_code, sha256=known)
    if entry.draft is None:
        return facts
    small = replace(find_model(entry.draft, workspace), draft=None)
    return with_draft(facts, bring_weights(small, form, workspace=workspace, progress=progress))


def _safetensors(entry: ModelEntry, workspace: Workspace, progress: ProgressCallback | None) -> Path | None:
    """The folder made of the entry's GGUF file, or None where the entry has safetensors of its own to fetch."""
    sha256 = entry.gguf.sha256 if entry.gguf else None
    if entry.local:
        gguf = ensure_weights(entry, workspace=workspace, progress=progress)
        return _converted(entry, gguf, sha256, progress) if gguf.is_file() else None
    if entry.gguf is None:
        return None
    kept = kept_gguf(entry, progress)
    found = converted(kept, sha256) if kept is not None else None
    if found is not None:
        return found
    try:
        return ensure_weights(entry, workspace=workspace, progress=progress, wanted="safetensors")
    except WeightsError as unreachable:
        try:
            gguf = ensure_weights(entry, workspace=workspace, progress=progress, wanted="gguf")
        except WeightsError:
            raise unreachable from None
        return _converted(entry, gguf, sha256, progress)


def _converted(entry: ModelEntry, gguf: Path, sha256: str | None, progress: ProgressCallback | None) -> Path:
    found = converted(gguf, sha256)
    if found is not None:
        return found
    python = converter()
    if python is None:
        raise WeightsError("weights.no_converter", name=entry.name)
    return convert(gguf, python=python, sha256=sha256, progress=progress, name=entry.name)


def fetching_data(progress: Progress) -> dict[str, Any]:
    """What listeners are told of a download or conversion."""
    return {
        "phase": progress.phase,
        "what": progress.what,
        "done_bytes": progress.done_bytes,
        "total_bytes": progress.total_bytes,
        "left_s": progress.eta_s,
    }
