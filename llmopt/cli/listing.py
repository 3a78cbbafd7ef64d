"""``llmopt list``: what there is — results, models, datasets, errors, engines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from llmopt.cli.options import Output, debug_option, json_option, lang_option, option
from llmopt.cli.tables import table
from llmopt.messages import t
from llmopt.paths import Workspace
from llmopt.report.words import size

__all__ = ["command"]

Rows = tuple[list[dict[str, Any]], tuple[str, ...]]
"""Plain rows for ``--json``, and the names of the columns a person sees."""


def _results(workspace: Workspace) -> Rows:
    if not workspace.database.exists():
        return [], ()
    from llmopt.store.database import Store

    with Store.open(workspace.database, read_only=True) as store:
        rows = [
            {
                "study": study.name,
                "state": t(f"list.state_{study.state}"),
                "trials": study.trials,
                "verdict": t(f"report.kind_{study.summary['verdict']}") if study.summary else "–",
                "when": datetime.fromtimestamp(study.updated_s, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M"),
                "folder": str(workspace.results / study.name),
                "summary": study.summary,
            }
            for study in store.studies()
        ]
    return rows, ("study", "state", "trials", "verdict", "when")


def _models(workspace: Workspace) -> Rows:
    from llmopt.hardware.probe import probe
    from llmopt.models.catalogue import find_model, model_names
    from llmopt.models.fit_table import fit_table

    entries = {name: find_model(name, workspace) for name in model_names(workspace)}
    rows = []
    for row in fit_table(entries.values(), probe()):
        facts = entries[row.name].facts
        rows.append(
            {
                "model": row.name,
                "parameters": f"{facts.parameters / 1e9:.3g} B" if facts.parameters else "–",
                "fits": row.precision if row.fits else t("list.no"),
                "needs": size(row.needed_bytes),
                "why": _sentence(row.verdict, row.values),
                "license": facts.license,
                "path": entries[row.name].path,
            }
        )
    return rows, ("model", "parameters", "fits", "needs")


def _sentence(key: str, values: dict[str, Any]) -> str:
    return t(key, **values)


def _datasets(workspace: Workspace) -> Rows:
    from llmopt.workload.datasets import dataset_names

    del workspace
    return [{"dataset": name, "what": t(f"list.dataset_{name}")} for name in dataset_names()], ("dataset", "what")


def _errors(workspace: Workspace) -> Rows:
    from llmopt.store.troubles import recent_troubles

    rows = [
        {
            "when": datetime.fromtimestamp(row.at_s, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M"),
            "id": row.id,
            "category": row.category,
            "engine": row.engine or "–",
            "where": row.where or "–",
            "text": row.text,
            "remedy": row.remedy,
            "done": row.done,
        }
        for row in recent_troubles(workspace.database)
    ]
    return rows, ("when", "id", "category", "engine", "where")


def _engines(workspace: Workspace) -> Rows:
    from llmopt.engines.registry import engine_names, get_engine

    del workspace
    rows = []
    for name in engine_names():
        found = get_engine(name).installation()
        state = t("list.yes") if found.available else t("list.no")
        why = t(found.why_not) if found.why_not else found.build
        rows.append({"engine": name, "installed": state, "version": found.version or "–", "note": why})
    return rows, ("engine", "installed", "version", "note")


SOURCES: dict[str, Callable[[Workspace], Rows]] = {
    "results": _results,
    "models": _models,
    "datasets": _datasets,
    "errors": _errors,
    "engines": _engines,
}


@click.command("list", help=t("cli.list.long"), short_help=t("cli.list.short"))
@option("--type", "kind", key="opt.type", type=click.Choice(list(SOURCES)), default="results", show_default=True)
@option("--filter", "text", key="opt.filter", default=None)
@json_option
@debug_option
@lang_option
def command(kind: str, text: str | None, as_json: bool, debug: bool) -> None:
    """Show one kind of thing."""
    del debug
    output = Output(as_json=as_json)
    rows, columns = SOURCES[kind](Workspace.here())
    if text:
        rows = [row for row in rows if any(text.lower() in str(value).lower() for value in row.values())]
    output.data(rows)
    if as_json:
        return
    if not rows:
        output.say(t(f"list.none_{kind}"))
        return
    shown = [[str(row[column]) for column in columns] for row in rows]
    output.say(table([t(f"list.column_{column}") for column in columns], shown))
