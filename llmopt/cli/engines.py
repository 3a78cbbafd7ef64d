"""``llmopt engines``: what can serve a model here, an environment for those that need one, and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from llmopt.cli.options import Output, debug_option, json_option, lang_option, option
from llmopt.cli.tables import table
from llmopt.messages import t
from llmopt.paths import Workspace

__all__ = ["command"]


@click.group("engines", help=t("cli.engines.long"), short_help=t("cli.engines.short"), invoke_without_command=True)
@json_option
@debug_option
@lang_option
@click.pass_context
def command(ctx: click.Context, as_json: bool, debug: bool) -> None:
    """List the engines, or run a command of this group."""
    del debug
    if ctx.invoked_subcommand is not None:
        return
    output = Output(as_json=as_json)
    rows = _rows()
    output.data(rows)
    if as_json:
        return
    columns = ("engine", "installed", "version", "minimum", "note")
    shown = [[str(row[column]) for column in columns] for row in rows]
    output.say(table([t(f"list.column_{column}") for column in columns], shown))


def _rows() -> list[dict[str, Any]]:
    from llmopt.engines.registry import engine_names, get_engine
    from llmopt.engines.safety import MINIMUM_SAFE
    from llmopt.errors import LlmoptError

    rows = []
    for name in engine_names():
        least = MINIMUM_SAFE.get(name)
        row: dict[str, Any] = {"engine": name, "minimum": least.version if least else "–"}
        try:
            found = get_engine(name).installation()
        except LlmoptError as error:
            row |= {"available": False, "installed": t("list.no"), "version": "–", "command": [], "note": error.what}
        else:
            state = t("list.yes") if found.available else t("list.no")
            note = t(found.why_not) if found.why_not else " ".join(found.command[:1]) or found.build
            row |= {"available": found.available, "installed": state, "version": found.version or "–"}
            row |= {"command": list(found.command), "note": note}
        rows.append(row)
    return rows


@command.command("install", help=t("cli.engines_install.long"), short_help=t("cli.engines_install.short"))
@click.argument("engine")
@option("--path", key="engines_install.path", type=click.Path(path_type=Path), default=None)
@json_option
@debug_option
@lang_option
def install_command(engine: str, path: Path | None, as_json: bool, debug: bool) -> None:
    """Make an environment for one engine; with ``--path`` the settings remember where it is."""
    del debug
    from llmopt.config.settings import change_settings
    from llmopt.engines.environments import install, recipe_for
    from llmopt.hardware.probe import probe

    output = Output(as_json=as_json)
    recipe = recipe_for(engine, probe())
    output.tell(t("environments.plan", name=recipe.name, packages=" ".join(recipe.packages), gb=recipe.disk_gb))
    told: list[tuple[str, str]] = []

    def tell(step: Any) -> None:
        if told[-1:] == [(step.name, step.what)]:
            return
        told.append((step.name, step.what))
        if as_json:
            output.line({"step": step.name, "what": step.what, "packages": step.packages, "seconds": step.seconds})
        else:
            output.say(t(f"environments.step_{step.name}", what=step.what, seconds=round(step.seconds)))

    python = install(recipe, folder=path, progress=tell)
    if path is not None:
        change_settings(Workspace.here(), **{f"{engine}_command": str(python)})
    if as_json:
        output.line({"step": "done", "engine": engine, "recipe": recipe.name, "python": str(python)})
    else:
        output.tell(t("environments.installed", name=recipe.name, version=recipe.version, python=python))


@command.command("doctor", help=t("cli.engines_doctor.long"), short_help=t("cli.engines_doctor.short"))
@click.argument("engines", nargs=-1, metavar="[ENGINE]...")
@option("--quick", key="engines_doctor.quick", is_flag=True)
@json_option
@debug_option
@lang_option
def doctor_command(engines: tuple[str, ...], quick: bool, as_json: bool, debug: bool) -> int:
    """Look at the engines named (all of them otherwise); 5 where one has an error, or a named one is missing."""
    del debug
    from llmopt.engines.doctor import examine
    from llmopt.engines.registry import engine_names
    from llmopt.hardware.probe import probe

    output, hardware = Output(as_json=as_json), probe()
    rows, failed = [], False
    for name in engines or tuple(one for one in engine_names() if one not in ("fake", "openai")):
        findings = examine(name, hardware, probe=not quick)
        failed |= any(one.level == "error" or (engines and one.key == "missing") for one in findings)
        rows.append((name, findings))
    output.data(
        [
            {
                "engine": name,
                "findings": [
                    {"level": one.level, "id": one.key, "text": one.text, "next": one.next_step, "detail": one.detail}
                    for one in findings
                ],
            }
            for name, findings in rows
        ]
    )
    if not as_json:
        for name, findings in rows:
            output.say(name)
            for one in findings:
                output.tell(f"{t(f'doctor.level_{one.level}')}: {one.text} {one.next_step}".rstrip(), 2)
                if one.detail:
                    output.tell(one.detail, 4)
    return 5 if failed else 0
