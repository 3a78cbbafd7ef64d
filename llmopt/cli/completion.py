"""``llmopt completion``: the script that makes a shell complete commands, options and names."""

from __future__ import annotations

import click

from llmopt.cli.options import debug_option, lang_option
from llmopt.messages import t

__all__ = ["VARIABLE", "command"]

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_LLMOPT_COMPLETE"
"""Set by the script when it asks this program for completions."""


@click.command("completion", help=t("cli.completion.long"), short_help=t("cli.completion.short"))
@click.argument("shell", type=click.Choice(SHELLS))
@debug_option
@lang_option
@click.pass_context
def command(ctx: click.Context, *, shell: str, debug: bool) -> None:
    """Print the script; it asks the installed program, so it need not be renewed."""
    del debug
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    script = made(ctx.find_root().command, {}, "llmopt", VARIABLE)
    click.echo(script.source_template % script.source_vars())
