"""The part of ``llmopt status --detailed`` that a bug report needs beyond the overview; everything masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmopt.logs import mask, mask_values
from llmopt.messages import t
from llmopt.report.words import size

if TYPE_CHECKING:
    from llmopt.config.settings import SettingsView
    from llmopt.paths import Workspace
    from llmopt.records import Hardware

__all__ = ["details", "fact_line"]


def _engine_safety() -> list[dict[str, Any]]:
    """Each installed engine against the oldest version without a known hole."""
    from llmopt.engines.registry import engine_names, get_engine
    from llmopt.engines.safety import safety

    rows = []
    for found in filter(None, (safety(get_engine(name).installation()) for name in engine_names())):
        key = {True: "safe", False: "unsafe", None: "unknown"}[found.safe]
        why = t(f"status.engine_{key}", minimum=found.minimum, advisories=", ".join(found.advisories))
        rows.append({"engine": found.engine, "version": found.version, "verdict": why})
    return rows


def details(workspace: Workspace, hardware: Hardware) -> dict[str, Any]:
    """What a bug report needs beyond the overview; everything masked at the sink."""
    import platform
    from importlib import metadata

    from llmopt import __version__
    from llmopt.config.settings import load_settings
    from llmopt.runtime.guardian import containment_level

    view = load_settings(workspace)
    packages = {}
    for name in ("optuna", "numpy", "scipy", "xllamacpp", "scikit-optimize", "torch", "vllm"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    clash = {"scikit-optimize": t("status.clash_skopt")} if "scikit-optimize" in packages else {}
    clash |= _engine_clashes(hardware)
    return {
        "versions": {
            "llmopt": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            **packages,
        },
        "clashes": clash,
        "engine_safety": _engine_safety(),
        "containment": {"level": t(f"guardian.level_{containment_level()}")},
        "settings": {name: _setting(view, name) for name in view.values},
        "engine_variables": {name: mask(value) for name, value in view.engine_env.items()},
        "facts": _facts(hardware),
        "folders": {"workspace": str(workspace.root), "database": str(workspace.database), "logs": str(workspace.logs)},
    }


def _engine_clashes(hardware: Hardware) -> dict[str, str]:
    """What does not go together in the engines' own environments: builds of torch, CUDA, driver and CPU."""
    from llmopt.engines.doctor import examine
    from llmopt.engines.registry import engine_names

    return {
        f"{name}: {one.key}": f"{one.text} {one.next_step}"
        for name in engine_names()
        for one in examine(name, hardware)
        if one.level in ("warning", "error") and one.key != "known_hole"  # that one has its own section
    }


def _setting(view: SettingsView, name: str) -> dict[str, Any]:
    value = view[name]
    return {"value": mask(value) if isinstance(value, str) else value, "origin": view.origin(name)}


def _facts(hardware: Hardware) -> list[dict[str, Any]]:
    from llmopt.hardware.facts import machine_facts
    from llmopt.hardware.probe import describe_unread

    return [
        {
            "fact": fact.name,
            "value": mask_values(fact.value),
            "kind": fact.kind,
            "source": fact.source or None,
            "why": describe_unread(fact.why) if fact.why else None,
        }
        for fact in machine_facts(hardware)
    ]


def fact_line(row: dict[str, Any]) -> str:
    """``name: value (source)``, or why there is no value."""
    name = row["fact"]
    key, _, number = name.partition(".") if name.startswith("device.") else (name.replace(".", "_"), "", "")
    shown = name if row["kind"] == "variable" and name != "batch.job" else t(f"status.fact_{key}", number=number)
    value = _fact_value(row)
    if row["why"]:
        return f"{shown}: {value} — {row['why']}" if row["value"] else f"{shown}: {row['why']}"
    return f"{shown}: {value} ({row['source']})"


def _fact_value(row: dict[str, Any]) -> str:
    value, kind = row["value"], row["kind"]
    if value is None or value == ():
        words = {"limit_bytes": "status.no_limit", "limit_count": "status.no_limit", "variable": "status.not_set"}
        return t(words.get(kind, "status.none"))
    if kind in ("bytes", "limit_bytes"):
        return size(value)
    if kind in ("count", "limit_count"):
        return f"{value:g}"
    return ", ".join(value) if kind == "list" else str(value)
