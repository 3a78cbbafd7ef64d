"""``llmopt init``: what this machine is, where to start on it and why; ``--force`` also converts an old set-up."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmopt.cli.options import Output, debug_option, json_option, option
from llmopt.cli.tables import table
from llmopt.config.settings import SPECS, save_settings
from llmopt.errors import LlmoptError, SettingsError, StorageError
from llmopt.messages import LANGUAGES, t
from llmopt.paths import Workspace
from llmopt.report.words import size

if TYPE_CHECKING:
    from llmopt.config.models import ModelConfigManager
    from llmopt.config.v1 import Conversion
    from llmopt.hardware.defaults import StartingDefault
    from llmopt.predict.machine import MachineSpeed
    from llmopt.records import Hardware

__all__ = ["OLD_FILE", "command"]

OLD_FILE = "llm_config.json"
STREAMS = next(spec.default for spec in SPECS if spec.name == "streams")


@dataclass(kw_only=True)
class Written:
    """What was put on disk."""

    settings: Path
    models: Path | None = None
    backups: list[Path] = field(default_factory=list)


@click.command("init", help=t("cli.init.long"), short_help=t("cli.init.short"))
@option("--auto-detect", key="init.auto_detect", is_flag=True)
@option("--no-measure", key="init.no_measure", is_flag=True)
@option("--force", key="init.force", is_flag=True)
@option("--lang", key="opt.lang", type=click.Choice(LANGUAGES), default=None)
@json_option
@debug_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    auto_detect: bool,
    no_measure: bool,
    force: bool,
    lang: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Probe, measure (where asked to detect), choose, say why, write."""
    del debug
    from llmopt.engines.registry import get_engine
    from llmopt.hardware.defaults import starting_defaults
    from llmopt.hardware.probe import probe

    workspace, output = Workspace.here(), Output(as_json=as_json)
    old = workspace.root / OLD_FILE
    if workspace.settings_file.exists() and not force:
        raise SettingsError("init.exists", path=workspace.settings_file)
    manager, converted = _convert(workspace, old) if force else (None, None)
    hardware = probe()
    rows = starting_defaults(hardware)
    engine = next((str(row.value) for row in rows if row.name == "engine"), "vllm" if hardware.devices else "llamacpp")
    installed = get_engine(engine).installation().available
    present, broken = _present(workspace.settings_file)
    values: dict[str, Any] = {"streams": STREAMS, **(dict(converted.settings) if converted else {}), **present}
    if installed and (converted is None or "engine" not in converted.settings):
        values["engine"] = engine
    chosen = lang or ctx.find_root().params.get("lang")
    if chosen:
        values["lang"] = chosen
    written = _write(workspace, values, manager, converted, old if old.exists() else None)
    _say_found(output, hardware, rows, None if installed else engine)
    speed = _measured(output, hardware) if auto_detect and not no_measure else None
    if broken:
        output.tell(t("init.broken_settings", path=workspace.settings_file))
    _say_written(output, written, converted)
    if old.exists() and not force:
        output.tell(t("init.old_found", path=OLD_FILE))
    output.tell(t("init.next"))
    facts = _facts(hardware, rows, values, written, converted)
    output.data({**facts, "measured": asdict(speed) if speed else None})


def _measured(output: Output, hardware: Hardware) -> MachineSpeed | None:
    """This machine's bandwidth and arithmetic, measured and kept; a machine where that fails is set up all the same."""
    from llmopt.predict.machine import measure_machine, save_speed

    output.tell(t("init.measuring"))
    try:
        speed = measure_machine(max(1, int(hardware.cpu.usable_cores)))
        path = save_speed(speed, hardware=hardware.fingerprint)
    except LlmoptError as error:
        output.say(str(error))
        return None
    output.tell(
        t(
            "init.measured",
            one=f"{speed.bandwidth_one / 1e9:.1f}",
            all=f"{speed.bandwidth_all / 1e9:.1f}",
            threads=speed.threads,
            flops_one=f"{speed.flops_one / 1e9:.0f}",
            flops_all=f"{speed.flops_all / 1e9:.0f}",
            path=path,
        )
    )
    return speed


def _present(path: Path) -> tuple[dict[str, Any], bool]:
    """What the present settings file says, without what ``init`` itself put there; and whether it is broken."""
    if not path.exists():
        return {}, False
    try:
        loaded = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}, True
    if not isinstance(loaded, dict):
        return {}, True
    specs = {spec.name: spec for spec in SPECS}
    values: dict[str, Any] = {}
    broken = False
    for name, value in loaded.items():
        try:
            values[name] = specs[name].check(value, str(path))
        except (KeyError, LlmoptError):
            broken = True
    values.pop("engine", None)  # found anew
    if values.get("streams") == STREAMS:
        del values["streams"]
    return values, broken


def _convert(workspace: Workspace, old: Path) -> tuple[ModelConfigManager | None, Conversion | None]:
    """The old file in today's words, beside what today's files say; nothing is written yet."""
    if not old.exists():
        return None, None
    from llmopt.config.models import ModelConfigManager
    from llmopt.config.v1 import convert, merge, parse_v1
    from llmopt.models.catalogue import built_in_models
    from llmopt.workload.datasets import dataset_names

    try:
        data = old.read_bytes()
    except OSError as error:
        raise SettingsError("init.old_unreadable", path=old, why=error.strerror or str(error)) from None
    document = parse_v1(data, str(old))
    found = convert(document, datasets=dataset_names(), known_models=tuple(built_in_models()), path=str(old))
    manager = ModelConfigManager(workspace.models_file)
    there = {name: manager.get_config(name) for name in manager.list_configs()}
    return manager, merge(found, _present(workspace.settings_file)[0], there)


def _write(
    workspace: Workspace,
    values: dict[str, Any],
    manager: ModelConfigManager | None,
    converted: Conversion | None,
    old: Path | None,
) -> Written:
    """Back up first, then write; every file is replaced whole or not at all."""
    written = Written(settings=workspace.settings_file)
    adding = converted.models if converted else ()
    sources = [workspace.settings_file, *([old] if old and converted else [])]
    sources += [workspace.models_file] if adding else []
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    try:
        written.backups = [_backup(path, stamp) for path in sources if path.exists()]
        if manager is not None and adding:
            for config in adding:
                manager.add_config(config.name, config)
            written.models = manager.save_to_file()
        save_settings(workspace, values)
    except OSError as error:
        where = error.filename or workspace.settings_file
        raise StorageError("init.unwritable", path=where, why=error.strerror or str(error)) from error
    return written


def _backup(path: Path, stamp: str) -> Path:
    """A copy under a name that is free; with the mode of the original, which may hold a secret."""
    number = 0
    while True:
        target = path.with_name(f"{path.name}.bak-{stamp}" + (f"-{number}" if number else ""))
        if not target.exists():
            shutil.copy2(path, target)
            return target
        number += 1


def _say_found(output: Output, hardware: Hardware, rows: tuple[StartingDefault, ...], missing: str | None) -> None:
    output.tell(t("init.found"))
    for line in _hardware_lines(hardware):
        output.tell(line, 2)
    output.tell(t("init.defaults"))
    heads = [t(f"init.column_{name}") for name in ("name", "value", "reason")]
    output.say(table(heads, [[row.name, str(row.value), row.text] for row in rows]))
    if missing:
        output.tell(t("init.engine_missing", engine=missing))


def _hardware_lines(hardware: Hardware) -> list[str]:
    from llmopt.hardware.probe import describe_unread

    cpu = hardware.cpu
    vectors = [name for name in cpu.features if name.startswith(("avx", "amx", "neon", "sve", "asimd"))]
    cores: dict[str, Any] = {"cores": cpu.physical_cores, "usable": f"{cpu.usable_cores:g}"}
    lines = [t("init.cpu", model=cpu.model, vectors=f" · {', '.join(vectors)}" if vectors else "", **cores)]
    source = hardware.sources.get("memory.total", "-")
    lines.append(t("init.memory", size=size(hardware.memory.usable_bytes), source=source))
    lines += [t("init.gpu", name=device.name, size=size(device.total_bytes)) for device in hardware.devices]
    lines += [] if hardware.devices else [t("init.no_gpu")]
    lines.append(t("init.disk", size=size(hardware.disk_free_bytes)))
    return lines + [t("init.unread", name=name, why=describe_unread(why)) for name, why in hardware.unread.items()]


def _say_written(output: Output, written: Written, converted: Conversion | None) -> None:
    for path in written.backups:
        output.tell(t("init.backup", path=path))
    if converted is not None:
        counts: dict[str, Any] = dict.fromkeys(("carried", "changed", "dropped"), 0)
        for note in converted.notes:
            counts[note.outcome] += 1
        output.tell(t("init.converted", path=OLD_FILE, **counts))
        for note in converted.notes:
            place = f" → {note.target} = {note.became}" if note.target else ""
            output.tell(f"[{t(f'init.{note.outcome}')}] {note.field} = {note.value}{place}", 2)
            output.tell(note.text, 6)
    if written.models:
        count = len(converted.models) if converted else 0
        output.tell(t("init.models_written", path=written.models, count=count))
    output.tell(t("init.written", path=written.settings))


def _facts(
    hardware: Hardware,
    rows: tuple[StartingDefault, ...],
    values: dict[str, Any],
    written: Written,
    converted: Conversion | None,
) -> dict[str, Any]:
    from llmopt.hardware.probe import describe_unread

    cpu = hardware.cpu
    notes = converted.notes if converted else ()
    return {
        "hardware": {
            "cpu": cpu.model,
            "physical_cores": cpu.physical_cores,
            "usable_cores": cpu.usable_cores,
            "memory_bytes": hardware.memory.usable_bytes,
            "disk_free_bytes": hardware.disk_free_bytes,
            "gpus": [{"name": device.name, "bytes": device.total_bytes} for device in hardware.devices],
            "sources": dict(hardware.sources),
            "unread": {name: describe_unread(why) for name, why in hardware.unread.items()},
        },
        "defaults": [{"name": row.name, "value": row.value, "reason": row.text} for row in rows],
        "settings": values,
        "files": {
            "settings": str(written.settings),
            "models": str(written.models) if written.models else None,
            "backups": [str(path) for path in written.backups],
        },
        "converted": [
            {
                "field": n.field,
                "outcome": n.outcome,
                "value": n.value,
                "target": n.target or None,
                "became": n.became or None,
                "reason": n.text,
            }
            for n in notes
        ],
    }
