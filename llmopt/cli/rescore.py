"""``llmopt rescore``: stored answers scored again, nothing generated."""

from __future__ import annotations

import click

from llmopt.cli.options import Output, debug_option, json_option, lang_option, option
from llmopt.cli.tables import table
from llmopt.messages import t

__all__ = ["command"]


@click.command("rescore", help=t("cli.rescore.long"), short_help=t("cli.rescore.short"))
@click.argument("study", required=False)
@option("--evaluator", key="opt.evaluator", default=None)
@json_option
@debug_option
@lang_option
def command(study: str | None, evaluator: str | None, as_json: bool, debug: bool) -> None:
    """Show each trial's quality as recorded and as scored now."""
    from llmopt.paths import Workspace
    from llmopt.report.words import interval
    from llmopt.study.rescore import rescore

    del debug
    output = Output(as_json=as_json)
    found = rescore(study, workspace=Workspace.here(), evaluator=evaluator)
    output.data(found)
    if as_json:
        return
    output.say(t("rescore.title", study=found["study"], dataset=found["dataset"]["name"]))
    rows = [
        [
            str(trial["number"]),
            str(trial["answers"]),
            interval("accuracy", trial["before"]),
            interval("accuracy", trial["after"]),
            str(len(trial["changed"])),
        ]
        for trial in found["trials"]
    ]
    names = ("trial", "answers", "before", "after", "changed")
    output.say(table([t(f"rescore.column_{name}") for name in names], rows))
    output.say(t("rescore.nothing_generated"))
