"""Weights from a hub (or its mirror): the hub's own client does proxies, tokens, resume and its shared cache."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from llmopt.errors import StorageError, WeightsError
from llmopt.models.entry import HubFiles, ModelEntry
from llmopt.models.progress import Meter, ProgressCallback

__all__ = ["HubUnavailable", "cached_file", "fetch_gguf", "fetch_snapshot", "space_for"]

CONNECT_S = 3.0
"""Long enough for a far mirror's handshake, short enough that a machine without a hub falls back in seconds."""
_KEEP_FREE_BYTES = 256 << 20
_SNAPSHOT_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "tokenizer*")
_unreachable: dict[str, str] = {}
"""Endpoints that did not answer in this process, with the reason: asking each model again would cost seconds each."""


class HubUnavailable(Exception):
    """The hub cannot give this file now; ``reason`` is one line without secrets."""

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(endpoint, reason)
        self.endpoint = endpoint
        self.reason = reason


def fetch_gguf(source: HubFiles, progress: ProgressCallback | None) -> Path:
    """The first file of ``source`` in the hub's cache, all of them fetched; raises HubUnavailable."""
    paths = [_fetch_file(source, name, progress) for name in source.files]
    return paths[0]


def cached_file(source: HubFiles) -> Path | None:
    """The first file of ``source`` in the hub's cache; None where it was never fetched."""
    import huggingface_hub  # noqa: PLC0415 - not needed where the weights are here

    found = huggingface_hub.try_to_load_from_cache(source.repo, source.files[0], revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def _fetch_file(source: HubFiles, name: str, progress: ProgressCallback | None) -> Path:
    import huggingface_hub  # noqa: PLC0415 - not needed where the weights are here

    cached = huggingface_hub.try_to_load_from_cache(source.repo, name, revision=source.revision)
    if isinstance(cached, str):
        return Path(cached)
    size, etag = _ask(source.repo, name, source.revision)
    if source.sha256 and etag and re.fullmatch(r"[0-9a-f]{64}", etag) and etag != source.sha256:
        raise HubUnavailable(_endpoint(), f"{source.repo}/{name}: sha256 {etag} ≠ {source.sha256}")
    space_for(size or 0, Path(huggingface_hub.constants.HF_HUB_CACHE))
    meter = Meter(progress, phase="hub", what=name, total_bytes=size)
    return Path(
        _guarded(
            huggingface_hub.hf_hub_download,
            source.repo,
            name,
            revision=source.revision,
            endpoint=_endpoint(),
            etag_timeout=CONNECT_S,
            tqdm_class=_reporting_bar(meter),
        )
    )


def fetch_snapshot(entry: ModelEntry, progress: ProgressCallback | None) -> Path:
    """A folder with config.json, tokenizer and safetensors of ``entry.path``; raises HubUnavailable or WeightsError.

    Python files are fetched only for an entry that consented to them, pickled weights only where allowed.
    """
    import huggingface_hub  # noqa: PLC0415 - not needed where the weights are here

    try:
        _ask(entry.path, "config.json", entry.revision)
    except HubUnavailable as error:
        return _cached_snapshot(entry, error.reason)
    meter = Meter(progress, phase="hub", what=entry.path, total_bytes=entry.facts.weight_bytes)
    folder = _guarded(
        huggingface_hub.snapshot_download,
        entry.path,
        revision=entry.revision,
        endpoint=_endpoint(),
        allow_patterns=_patterns(entry),
        etag_timeout=CONNECT_S,
        tqdm_class=_reporting_bar(meter),
    )
    if not any(Path(folder).glob("*.safetensors")) and not entry.allow_pickle:
        raise WeightsError("weights.no_safetensors", name=entry.path)
    return Path(folder)


def _patterns(entry: ModelEntry) -> list[str]:
    code = ["*.py"] if entry.trust_remote_code else []
    pickles = ["*.bin"] if entry.allow_pickle else []
    return [*_SNAPSHOT_FILES, *code, *pickles]


def _cached_snapshot(entry: ModelEntry, reason: str) -> Path:
    """An earlier complete download of the hub's client; raises HubUnavailable for ``reason`` where there is none."""
    import huggingface_hub  # noqa: PLC0415 - not needed where the weights are here

    try:
        found = huggingface_hub.snapshot_download(
            entry.path, revision=entry.revision, allow_patterns=_patterns(entry), local_files_only=True
        )
    except (OSError, ValueError, huggingface_hub.errors.HFValidationError) as error:
        raise HubUnavailable(_endpoint(), reason) from error
    folder = Path(found)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise HubUnavailable(_endpoint(), reason)
    return folder


def space_for(size_bytes: int, folder: Path) -> None:
    """Raise StorageError where ``folder``'s disk has less than ``size_bytes`` and a reserve free."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    needed = size_bytes + _KEEP_FREE_BYTES
    if free < needed:
        raise StorageError("weights.no_space", folder=folder, needed_mb=needed >> 20, free_mb=free >> 20)


def _ask(repo: str, name: str, revision: str | None) -> tuple[int | None, str | None]:
    """Size and etag of one file, which also shows within seconds whether the hub answers at all."""
    import huggingface_hub  # noqa: PLC0415 - not needed where the weights are here

    endpoint = _endpoint()
    if endpoint in _unreachable:
        raise HubUnavailable(endpoint, _unreachable[endpoint])
    url = huggingface_hub.hf_hub_url(repo, name, revision=revision, endpoint=endpoint)
    found = _guarded(huggingface_hub.get_hf_file_metadata, url, timeout=CONNECT_S, endpoint=endpoint)
    return found.size, found.etag


def _guarded(call: Any, *args: Any, **kwargs: Any) -> Any:
    """``call`` with whatever the hub's client raises turned into HubUnavailable; a silent hub is remembered."""
    import huggingface_hub  # noqa: PLC0415 - not needed where the weights are here

    try:
        return call(*args, **kwargs)
    except huggingface_hub.errors.HfHubHTTPError as error:
        raise HubUnavailable(_endpoint(), _one_line(error)) from error
    except Exception as error:
        # the boundary to the hub's client: its HTTP library is its own affair and changes between versions
        _unreachable[_endpoint()] = _one_line(error)
        raise HubUnavailable(_endpoint(), _one_line(error)) from error


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _one_line(error: BaseException) -> str:
    """The error's kind and first line, credentials in addresses masked."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return re.sub(r"//[^/@\s]*@", "//***@", f"{type(error).__name__}: {first}"[:300])


def _reporting_bar(meter: Meter) -> Any:
    """A silent progress bar class of the kind the hub's client expects, which feeds ``meter``."""
    from tqdm.auto import tqdm  # noqa: PLC0415 - comes with the hub's client, needed only while it downloads

    class ReportingBar(tqdm):  # type: ignore[misc, type-arg, unused-ignore]  # untyped base class
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.counts_bytes = kwargs.get("unit") == "B"
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})
            if self.counts_bytes and kwargs.get("initial"):
                meter.add(int(kwargs["initial"]))

        def update(self, n: float | None = 1) -> bool | None:
            if self.counts_bytes and n:
                meter.add(int(n))
            return None

    return ReportingBar
