"""Benchmark files from the hub, kept in the workspace so that the next run needs no network."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llmopt.errors import WeightsError
from llmopt.paths import Workspace, ensure
from llmopt.workload.adapters.base import Adapter
from llmopt.workload.files import SUFFIXES

__all__ = ["choose_files", "fetch_split"]

_CONNECT_S = 3.0
_CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps every dataset as Parquet: CONFIG/SPLIT/0000.parquet."""


def fetch_split(adapter: Adapter, subset: str, split: str, *, workspace: Workspace) -> list[Path]:
    """The files of one split, downloaded where they are not here; raises WeightsError (network) saying what to do."""
    folder = workspace.data / "hub" / adapter.name / (subset or "default") / split
    kept = sorted(path for path in folder.glob("**/*") if path.suffix.lower() in SUFFIXES)
    if kept:
        return kept
    _knock(adapter)
    for revision in (None, _CONVERTED):
        names = choose_files(_listing(adapter, revision), subset, split)
        if names:
            ensure(folder)
            return [_download(adapter, name, revision, folder) for name in names]
    raise WeightsError("data.hub_files", repo=adapter.hub, subset=subset or "-", split=split, name=adapter.name)


def choose_files(names: Sequence[str], subset: str, split: str) -> list[str]:
    """The files of a repository that hold one split of one subset; text formats first, Parquet where it can be read."""
    parquet = importlib.util.find_spec("pyarrow") is not None
    readable = [n for n in names if Path(n).suffix.lower() in SUFFIXES and (parquet or not n.endswith(".parquet"))]
    of_split = [name for name in readable if split.casefold() in _words(name)]
    if subset:
        of_subset = [name for name in of_split if set(_words_of(subset)) <= set(_words(name))]
        # a repository with one configuration need not name it
        of_split = of_subset or ([] if any(len(Path(name).parts) > 1 for name in of_split) else of_split)
    text = [name for name in of_split if not name.endswith(".parquet")]
    return sorted(text or of_split)


def _words(name: str) -> list[str]:
    return _words_of(str(Path(name).with_suffix("")))


def _words_of(text: str) -> list[str]:
    return [word for word in re.split(r"[^0-9a-z]+", text.casefold()) if word]


def _listing(adapter: Adapter, revision: str | None) -> list[str]:
    hub = _client()
    names: list[str] = _guarded(adapter, hub.list_repo_files, adapter.hub, repo_type="dataset", revision=revision)
    return names


def _knock(adapter: Adapter) -> None:
    """Ask for one small file first: that fails within seconds where the listing would retry for half a minute."""
    hub = _client()
    url = hub.hf_hub_url(adapter.hub, "README.md", repo_type="dataset")
    try:
        hub.get_hf_file_metadata(url, timeout=_CONNECT_S)
    except hub.errors.HfHubHTTPError:
        return  # it answered; the listing will say what is wrong
    except Exception as problem:
        # the boundary to the hub's client: its HTTP library is its own affair and changes between versions
        raise _silent(adapter, problem) from problem


def _download(adapter: Adapter, name: str, revision: str | None, folder: Path) -> Path:
    hub = _client()
    return Path(
        _guarded(
            adapter,
            hub.hf_hub_download,
            adapter.hub,
            name,
            repo_type="dataset",
            revision=revision,
            local_dir=folder,
            etag_timeout=_CONNECT_S,
        )
    )


def _client() -> Any:
    import huggingface_hub  # noqa: PLC0415 - not needed where the files are here

    return huggingface_hub


def _guarded(adapter: Adapter, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return call(*args, **kwargs)
    except Exception as problem:
        # the same boundary
        raise _silent(adapter, problem) from problem


def _silent(adapter: Adapter, problem: Exception) -> WeightsError:
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    reason = re.sub(r"//[^/@\s]*@", "//***@", f"{type(problem).__name__}: {lines[0] if lines else ''}"[:300])
    return WeightsError("data.hub_silent", repo=adapter.hub, endpoint=endpoint, reason=reason, name=adapter.name)
