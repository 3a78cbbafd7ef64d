"""``llmopt status``: what this machine has and is doing; ``--detailed`` is what a bug report attaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llmopt.cli.options import Output, debug_option, json_option, lang_option, option
from llmopt.messages import t
from llmopt.paths import Workspace
from llmopt.report.words import size

if TYPE_CHECKING:
    from llmopt.hardware.stats import MemoryStats
    from llmopt.records import Hardware

__all__ = ["command"]

RECENT = 5
EXIT_STORAGE = 7


@click.command("status", help=t("cli.status.long"), short_help=t("cli.status.short"))
@option("--detailed", key="opt.detailed", is_flag=True)
@json_option
@debug_option
@lang_option
def command(detailed: bool, as_json: bool, debug: bool) -> int:
    """Show hardware, memory, engines, models, studies and errors."""
    del debug
    from llmopt.hardware.probe import probe
    from llmopt.hardware.stats import get_memory_stats
    from llmopt.store.health import health

    workspace = Workspace.here()
    hardware, memory = probe(), get_memory_stats()
    state = health(workspace.database, thorough=detailed)
    readable = state.state != "unusable"
    facts: dict[str, Any] = {
        "hardware": _hardware(hardware),
        "memory": _memory(hardware, memory),
        "engines": _engines(),
        "models": _models(workspace, hardware),
        "datasets": _datasets(),
        "database": {"state": state.text, **({"details": state.details} if state.details else {})},
        "studies": _studies(workspace) if readable else [],
        "errors": _errors(workspace) if readable else [],
    }
    if detailed:
        facts |= _details(workspace, hardware)
        facts["error_counts"] = _error_counts(workspace) if readable else []
    output = Output(as_json=as_json)
    output.data(facts)
    code = 0 if readable else EXIT_STORAGE
    if as_json:
        return code
    for name, rows in facts.items():
        output.say(t(f"status.{name}"))
        for line in _lines(rows):
            output.say(f"  {line}")
    return code


def _lines(rows: Any) -> list[str]:
    """Facts as lines a person reads."""
    if isinstance(rows, dict):
        return [
            f"{t(f'status.name_{name}') if _known(name) else name}: {_value(value)}" for name, value in rows.items()
        ]
    return [" · ".join(_value(value) for value in row.values()) for row in rows] or [t("status.none")]


def _known(name: str) -> bool:
    try:
        t(f"status.name_{name}")
    except KeyError:
        return False
    return True


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return t("list.yes") if value else t("list.no")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or "–"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items()) or "–"
    return str(value)


def _sentence(reason: str) -> str:
    """A reason in words; the probe gives a message key where it has one."""
    try:
        return t(reason)
    except (KeyError, FileNotFoundError):
        return reason


def _hardware(hardware: Hardware) -> dict[str, Any]:
    cpu = hardware.cpu
    return {
        "cpu": cpu.model,
        "cores": t("status.cores", physical=cpu.physical_cores, usable=f"{cpu.usable_cores:g}"),
        "vectors": [name for name in cpu.features if name.startswith(("avx", "amx", "neon", "sve", "asimd"))],
        "gpus": [f"{device.name} ({size(device.total_bytes)})" for device in hardware.devices] or t("status.none"),
        "disk_free": size(hardware.disk_free_bytes),
    }


def _memory(hardware: Hardware, memory: MemoryStats) -> dict[str, Any]:
    free, total = size(memory.host.available_bytes), size(hardware.memory.usable_bytes)
    rows = {"ram": t("status.free_of", free=free, total=total)}
    for each in memory.devices:
        free, total = size(each.memory.free_bytes), size(each.memory.total_bytes)
        rows[each.device.name] = t("status.free_of", free=free, total=total)
    rows["level"] = t(f"status.level_{memory.level.name.lower()}")
    return rows


def _engines() -> list[dict[str, Any]]:
    from llmopt.engines.registry import engine_names, get_engine

    found = [get_engine(name).installation() for name in engine_names()]
    return [{"engine": one.engine, "version": one.version, "build": one.build} for one in found if one.available]


def _models(workspace: Workspace, hardware: Hardware) -> dict[str, Any]:
    from llmopt.models.catalogue import find_model, model_names
    from llmopt.models.fit_table import fit_table

    rows = fit_table([find_model(name, workspace) for name in model_names(workspace)], hardware)
    fitting = [row.name for row in rows if row.fits]
    return {"fitting": t("status.fitting", count=len(fitting), total=len(rows)), "examples": fitting[:RECENT]}


def _datasets() -> dict[str, Any]:
    from llmopt.workload.datasets import dataset_names

    return {"names": list(dataset_names())}


def _studies(workspace: Workspace) -> list[dict[str, Any]]:
    if not workspace.database.exists():
        return []
    from llmopt.store.database import Store

    with Store.open(workspace.database, read_only=True) as store:
        return [
            {"study": row.name, "state": t(f"list.state_{row.state}"), "trials": row.trials}
            for row in store.studies(limit=RECENT)
        ]


def _errors(workspace: Workspace) -> list[dict[str, Any]]:
    from llmopt.store.troubles import recent_troubles

    return [
        {"id": row.id, "engine": row.engine or "–", "where": row.where or "–"}
        for row in recent_troubles(workspace.database, limit=RECENT)
    ]


def _error_counts(workspace: Workspace) -> list[dict[str, Any]]:
    from llmopt.store.troubles import trouble_counts

    return [{"id": row.id, "count": t("status.times", count=row.count)} for row in trouble_counts(workspace.database)]


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


def _details(workspace: Workspace, hardware: Hardware) -> dict[str, Any]:
    """What a bug report needs beyond the overview; everything masked at the sink."""
    import platform
    from importlib import metadata

    from llmopt import __version__
    from llmopt.config.settings import load_settings
    from llmopt.logs import mask
    from llmopt.runtime.guardian import containment_level

    view = load_settings(workspace)
    packages = {}
    for name in ("optuna", "numpy", "scipy", "xllamacpp", "scikit-optimize", "torch", "vllm"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    clash = {"scikit-optimize": t("status.clash_skopt")} if "scikit-optimize" in packages else {}
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
        "settings": {name: mask(f"{value} ({view.origin(name)})") for name, value in view.values.items()},
        "engine_variables": {name: mask(value) for name, value in view.engine_env.items()},
        "sources": dict(hardware.sources),
        "unread": {name: _sentence(reason) for name, reason in hardware.unread.items()},
        "folders": {"workspace": str(workspace.root), "database": str(workspace.database), "logs": str(workspace.logs)},
    }
