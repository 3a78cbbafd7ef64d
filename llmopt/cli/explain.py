"""``llmopt explain``: why a study ended as it did."""

from __future__ import annotations

import click

from llmopt.cli.options import Output, debug_option, json_option, lang_option, option
from llmopt.messages import t

__all__ = ["command"]


@click.command("explain", help=t("cli.explain.long"), short_help=t("cli.explain.short"))
@click.argument("result")
@option("--why-not", "why_not", key="opt.why_not", multiple=True, metavar="SETTING=VALUE")
@json_option
@debug_option
@lang_option
def command(result: str, why_not: tuple[str, ...], as_json: bool, debug: bool) -> int:
    """Say what matters, what binds, and why not another value."""
    del debug  # read by app.main
    from llmopt.paths import Workspace
    from llmopt.report.explained import explanation
    from llmopt.study.explain import explain

    output = Output(as_json=as_json)
    found = explain(result, Workspace.here(), why_not=why_not)
    output.data(found)
    if not as_json:
        output.say(explanation(found))
    return 0
