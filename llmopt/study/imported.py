"""Results of other tools as sides of a comparison: beside ours in one table, labelled as theirs, never judged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmopt import __version__
from llmopt.errors import DataError, UsageError
from llmopt.hardware.probe import probe
from llmopt.measure.importers import import_results
from llmopt.paths import Workspace
from llmopt.report.writing import write_report
from llmopt.study.contenders import load_result
from llmopt.study.result import SCHEMA_VERSION
from llmopt.study.run import study_folder

__all__ = ["Named", "named_sides", "table_of_imports"]

SUFFIXES = frozenset({".json", ".jsonl"})
OTHER_SCHEMA = "benchmark.other_schema"


@dataclass(frozen=True, kw_only=True)
class Named:
    """What was named for a comparison: things to measure, and other tools' results."""

    models: tuple[str, ...]
    imported: tuple[Mapping[str, Any], ...]


def named_sides(texts: Sequence[str], workspace: Workspace) -> Named:
    """Tell files of other tools from models and results of ours; raises DataError for a file that is none of them."""
    models: list[str] = []
    imported: list[Mapping[str, Any]] = []
    for text in texts:
        path = _foreign(text, workspace)
        if path is None:
            models.append(text)
        else:
            imported += _sides(path)
    return Named(models=tuple(models), imported=tuple(_told_apart(imported)))


def table_of_imports(name: str, imported: Sequence[Mapping[str, Any]], workspace: Workspace) -> dict[str, Any]:
    """The result of a comparison in which nothing is measured here: a table, and no claim; written like any other.

    Raises UsageError where the name is taken.
    """
    began_s = time.monotonic()
    folder = study_folder(workspace, name)
    if (folder / "result.json").exists():
        raise UsageError("store.study_differs", name=name)
    hardware = probe()
    result = {
        "schema_version": SCHEMA_VERSION,
        "kind": "compare",
        "study": name,
        "created": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "elapsed_s": round(time.monotonic() - began_s, 1),
        "request": {"kind": "compare", "models": [one["file"] for one in imported]},
        "sides": [],
        "imported": list(imported),
        "comparisons": [],
        "verdict": {"kind": "undecided", "objective": "speed", "effect": None, "interval": None, "others": {}},
        "baseline": None,
        "best": None,
        "command": None,
        "same_machine": True,
        "gate": None,
        "hardware": asdict(hardware) | {"fingerprint": hardware.fingerprint},
        "versions": {"llmopt": __version__},
    }
    write_report(folder, result)
    return result


def _foreign(text: str, workspace: Workspace) -> Path | None:
    """The file that ``text`` names where it is a result and not one of ours."""
    path = next((p for p in (Path(text), workspace.root / text) if p.suffix in SUFFIXES and p.is_file()), None)
    if path is None:
        return None
    try:
        load_result(path)
    except DataError as error:
        if error.key == OTHER_SCHEMA:  # one of ours, of another version
            raise
        return path
    return None


def _sides(path: Path) -> list[Mapping[str, Any]]:
    """One side for each run of a file."""
    return [
        {
            "label": " ".join(part for part in (run.tool, run.version, f"({run.load})") if part),
            "tool": run.tool,
            "version": run.version,
            "model": run.model,
            "load": run.load,
            "file": str(path),
            "figures": {name: asdict(estimate) for name, estimate in run.estimates.items()},
            "differences": list(run.differences),
        }
        for run in import_results(path)
    ]


def _told_apart(sides: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    seen: dict[str, int] = {}
    found = []
    for one in sides:
        label = str(one["label"])
        seen[label] = seen.get(label, 0) + 1
        found.append(one if seen[label] == 1 else {**one, "label": f"{label} #{seen[label]}"})
    return found
