"""``llmopt list``: what there is — results, models, datasets, errors, engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import click

from llmopt.cli.options import Output, debug_option, json_option, lang_option, option
from llmopt.cli.tables import table
from llmopt.errors import UsageError
from llmopt.messages import t
from llmopt.paths import Workspace
from llmopt.report.words import size

__all__ = ["command", "fit_sentence", "fit_word"]

Row = dict[str, Any]
Shown = Mapping[str, Callable[[Row], str]]
"""The columns a person sees: heading's name → a row's cell. ``--json`` prints the rows as they are."""


def _plain(name: str) -> Callable[[Row], str]:
    return lambda row: "–" if row[name] is None else str(row[name])


def _when(row: Row) -> str:
    return datetime.fromisoformat(row["when"]).astimezone().strftime("%Y-%m-%d %H:%M")


def _iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, tz=UTC).isoformat(timespec="seconds")


def _results(workspace: Workspace) -> list[Row]:
    if not workspace.database.exists():
        return []
    from llmopt.store.database import Store

    with Store.open(workspace.database, read_only=True) as store:
        return [
            {
                "study": study.name,
                "state": study.state,
                "trials": study.trials,
                "verdict": study.summary["verdict"] if study.summary else None,
                "when": _iso(study.updated_s),
                "folder": str(workspace.results / study.name),
                "summary": study.summary,
            }
            for study in store.studies()
        ]


def _models(workspace: Workspace) -> list[Row]:
    from llmopt.hardware.probe import probe
    from llmopt.models.catalogue import all_models
    from llmopt.models.fit_table import fit_row
    from llmopt.models.metadata import read_facts

    hardware = probe()
    rows = []
    for name, entry in all_models(workspace).items():
        facts, unreadable = read_facts(entry, workspace)
        fit = fit_row(facts, hardware)
        rows.append(
            {
                "model": name,
                "parameters": facts.parameters,
                "fits": fit.fits if unreadable is None else False,
                "precision": fit.precision if unreadable is None else None,
                "needed_bytes": fit.needed_bytes,
                "available_bytes": fit.available_bytes,
                "why": unreadable or fit_sentence(fit.verdict, fit.values),
                "license": facts.license,
                "path": entry.path,
                "origin": entry.origin,
            }
        )
    return rows


def fit_sentence(key: str, values: dict[str, Any]) -> str:
    """Why a model fits or not."""
    return t(key, **values)


def fit_word(row: Row) -> str:
    """Whether a model fits, in one word: the precision, no, or that it cannot be told yet."""
    if row["fits"] is None:
        return t("list.fits_open")
    return str(row["precision"]) if row["fits"] else t("list.no")


def _needs(row: Row) -> str:
    """What is needed; of what is there where it is not enough."""
    if row["fits"] is False and row["needed_bytes"] is not None:
        return t("list.needs_of", needed=size(row["needed_bytes"]), available=size(row["available_bytes"]))
    if row["fits"] is None and row["needed_bytes"] is not None:
        return t("list.needs_at_least", needed=size(row["needed_bytes"]))
    return size(row["needed_bytes"])


def _datasets(workspace: Workspace) -> list[Row]:
    from llmopt.workload.datasets import dataset_names

    del workspace
    return [{"dataset": name, "what": t(f"list.dataset_{name}")} for name in dataset_names()]


def _errors(workspace: Workspace) -> list[Row]:
    from llmopt.store.troubles import recent_troubles

    return [
        {
            "when": _iso(row.at_s),
            "id": row.id,
            "category": row.category,
            "engine": row.engine or None,
            "where": row.where or None,
            "text": row.text,
            "remedy": row.remedy,
            "done": row.done,
        }
        for row in recent_troubles(workspace.database)
    ]


def _engines(workspace: Workspace) -> list[Row]:
    from llmopt.engines.registry import engine_names, get_engine

    del workspace
    rows: list[Row] = []
    for name in engine_names():
        found = get_engine(name).installation()
        why = t(found.why_not) if found.why_not else found.build
        rows.append({"engine": name, "installed": found.available, "version": found.version or None, "note": why})
    return rows


SOURCES: dict[str, Callable[[Workspace], list[Row]]] = {
    "results": _results,
    "models": _models,
    "datasets": _datasets,
    "errors": _errors,
    "engines": _engines,
}
COLUMNS: dict[str, Shown] = {
    "results": {
        "study": _plain("study"),
        "state": lambda row: t(f"list.state_{row['state']}"),
        "trials": _plain("trials"),
        "verdict": lambda row: t(f"report.kind_{row['verdict']}") if row["verdict"] else "–",
        "when": _when,
    },
    "models": {
        "model": _plain("model"),
        "parameters": lambda row: f"{row['parameters'] / 1e9:.3g} B" if row["parameters"] else "–",
        "fits": fit_word,
        "needs": _needs,
    },
    "datasets": {"dataset": _plain("dataset"), "what": _plain("what")},
    "errors": {"when": _when, **{name: _plain(name) for name in ("id", "category", "engine", "where")}},
    "engines": {
        "engine": _plain("engine"),
        "installed": lambda row: t("list.yes") if row["installed"] else t("list.no"),
        "version": _plain("version"),
        "note": _plain("note"),
    },
}


@click.command("list", help=t("cli.list.long"), short_help=t("cli.list.short"))
@option("--type", "kind", key="opt.type", type=click.Choice(list(SOURCES)), default="results", show_default=True)
@option("--filter", "texts", key="opt.filter", multiple=True)
@option("--fits", "fitting", key="list.fits", is_flag=True)
@option("--limit", key="list.limit", type=click.IntRange(min=1), default=None)
@json_option
@debug_option
@lang_option
def command(*, kind: str, texts: tuple[str, ...], fitting: bool, limit: int | None, as_json: bool, debug: bool) -> None:
    """Show one kind of thing."""
    del debug
    if fitting and kind != "models":
        raise UsageError("list.fits_needs_models", kind=kind)
    output = Output(as_json=as_json)
    rows = SOURCES[kind](Workspace.here())
    cells = COLUMNS[kind]
    if fitting:
        rows = [row for row in rows if row["fits"]]
    rows = [row for row in rows if all(_contains(row, cells, text) for text in texts)][:limit]
    output.data(rows)
    if as_json:
        return
    if not rows:
        output.tell(t(f"list.none_{kind}"))
        return
    shown = [[cell(row) for cell in cells.values()] for row in rows]
    output.say(table([t(f"list.column_{column}") for column in cells], shown))
    if kind == "models":
        output.tell(t("list.models_hint"))


def _contains(row: Row, cells: Shown, text: str) -> bool:
    """Whether ``text`` stands anywhere in the row, as stored or as shown."""
    return any(text.lower() in str(value).lower() for value in (*row.values(), *(cell(row) for cell in cells.values())))
