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
        from llmopt.cli.status_details import details

        facts |= details(workspace, hardware)
        facts["error_counts"] = _error_counts(workspace) if readable else []
    output = Output(as_json=as_json)
    output.data(facts)
    code = 0 if readable else EXIT_STORAGE
    if as_json:
        return code
    for name, rows in facts.items():
        output.say(t(f"status.{name}"))
        for line in _lines(name, rows):
            output.tell(line, 2)
    return code


def _lines(section: str, rows: Any) -> list[str]:
    """A section as lines a person reads."""
    if section == "memory":
        return [_memory_line(row) for row in rows]
    if section == "facts":
        from llmopt.cli.status_details import fact_line

        return [fact_line(row) for row in rows]
    if isinstance(rows, dict):
        named = {t(f"status.name_{name}") if _known(name) else name: value for name, value in rows.items()}
        return [f"{name}: {_value(value)}" for name, value in named.items()] or [t("status.none")]
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
    if isinstance(value, dict) and value.keys() == {"value", "origin"}:
        return f"{_value(value['value'])} ({value['origin']})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(inner)}" for name, inner in value.items()) or "–"
    return str(value)


def _hardware(hardware: Hardware) -> dict[str, Any]:
    cpu = hardware.cpu
    return {
        "cpu": cpu.model,
        "cores": t("status.cores", physical=cpu.physical_cores, usable=f"{cpu.usable_cores:g}"),
        "vectors": [name for name in cpu.features if name.startswith(("avx", "amx", "neon", "sve", "asimd"))],
        "gpus": [f"{device.name} ({size(device.total_bytes)})" for device in hardware.devices] or t("status.none"),
        "disk_free": size(hardware.disk_free_bytes),
    }


def _memory(hardware: Hardware, memory: MemoryStats) -> list[dict[str, Any]]:
    """RAM, swap and every device: used, free, and how near its end it is."""
    host = memory.host
    total, free = hardware.memory.usable_bytes, host.available_bytes
    swap = (host.swap_total_bytes, host.swap_free_bytes)
    rows = [
        {"name": "RAM", "used_bytes": max(0, total - free), "free_bytes": free, "total_bytes": total},
        {"name": "swap", "used_bytes": swap[0] - swap[1], "free_bytes": swap[1], "total_bytes": swap[0]},
    ]
    levels = [memory.host_level.name.lower(), None]
    for each in memory.devices:
        now = each.memory
        sizes = {"used_bytes": now.used_bytes, "free_bytes": now.free_bytes, "total_bytes": now.total_bytes}
        rows.append({"name": f"{each.device.kind.value}:{each.device.index} {each.device.name}", **sizes})
        levels.append(each.level.name.lower())
    return [{**row, "level": level} for row, level in zip(rows, levels, strict=True)]


def _memory_line(row: dict[str, Any]) -> str:
    sizes = {name: size(row[f"{name}_bytes"]) for name in ("used", "free", "total")}
    line = f"{row['name']}: {t('status.used_free', **sizes)}"
    return line if row["level"] is None else f"{line} · {t('status.name_level')}: {t('status.level_' + row['level'])}"


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
