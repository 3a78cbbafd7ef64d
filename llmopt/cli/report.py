"""``llmopt report``: the reports of a stored result again, in any format."""

from __future__ import annotations

from typing import Any

import click

from llmopt.cli.options import Output, debug_option, export_option, exported, json_option, lang_option
from llmopt.errors import DataError
from llmopt.messages import t

__all__ = ["command", "summary_of"]


@click.command("report", help=t("cli.report.long"), short_help=t("cli.report.short"))
@click.argument("result")
@export_option
@json_option
@debug_option
@lang_option
def command(result: str, exports: tuple[str, ...], as_json: bool, debug: bool) -> None:
    """Show RESULT (a study's name, its folder or its result.json) and write what was asked for."""
    del debug
    from llmopt.paths import Workspace
    from llmopt.study.contenders import find_result, load_result

    workspace, output = Workspace.here(), Output(as_json=as_json)
    path = find_result(result, workspace)
    if path is None:
        raise DataError("benchmark.no_such_result", path=result)
    found = load_result(path)
    output.data(found)
    if not as_json:
        output.say(summary_of(found))
    exported(found, exports, folder=path.parent, output=output)


def summary_of(result: dict[str, Any]) -> str:
    """A result of any command as the terminal shows it."""
    from llmopt.report.measured import benchmark_text, comparison_text
    from llmopt.report.swept import sweep_text
    from llmopt.report.text import summary

    if "sweep" in result:
        return sweep_text(result)
    return {"benchmark": benchmark_text, "compare": comparison_text}.get(result.get("kind", ""), summary)(result)
