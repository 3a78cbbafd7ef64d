"""``llmopt export``: a study for Optuna's dashboard and tools."""

from __future__ import annotations

import click

from llmopt.cli.options import Output, debug_option, json_option, lang_option
from llmopt.messages import t
from llmopt.paths import Workspace

__all__ = ["command"]


@click.command("export", help=t("cli.export.long"), short_help=t("cli.export.short"))
@click.argument("study")
@click.argument("storage")
@json_option
@debug_option
@lang_option
def command(study: str, storage: str, as_json: bool, debug: bool) -> None:
    """Write STUDY to the Optuna STORAGE (a database URL, or the path of a journal file)."""
    del debug
    from llmopt.objective import parse_constraints, parse_objectives, strategy_goal
    from llmopt.report.export import export_study
    from llmopt.store.database import Store
    from llmopt.study.request import StudyRequest

    output = Output(as_json=as_json)
    with Store.open(Workspace.here().database, read_only=True) as store:
        row = store.study(study)
        request = StudyRequest.from_spec(row.spec)
        if request.objectives:
            objectives = parse_objectives(request.objectives)
        elif request.strategy:
            objectives = strategy_goal(request.strategy).objectives
        else:
            objectives = parse_objectives("quality,answers_per_minute")
        constraints = parse_constraints(request.constraints)
        count = export_study(store, row, storage, objectives=objectives, constraints=constraints)
    output.data({"study": row.name, "storage": storage, "trials": count})
    output.say(t("cli.exported", name=row.name, count=count, storage=storage))
