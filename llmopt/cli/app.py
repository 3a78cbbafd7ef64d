"""The command table, loaded lazily, and the one place where an error becomes an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from llmopt import __version__
from llmopt.cli.help import CellFormatter
from llmopt.errors import LlmoptError
from llmopt.messages import LANGUAGES, set_language, t

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, str] = {
    "init": "llmopt.cli.init:command",
    "status": "llmopt.cli.status:command",
    "optimize": "llmopt.cli.optimize:command",
    "benchmark": "llmopt.cli.benchmark:command",
    "compare": "llmopt.cli.compare:command",
    "calibrate": "llmopt.cli.calibrate:command",
    "estimate": "llmopt.cli.estimate:command",
    "serve": "llmopt.cli.serve:command",
    "report": "llmopt.cli.report:command",
    "list": "llmopt.cli.listing:command",
    "engines": "llmopt.cli.engines:command",
    "models": "llmopt.cli.models:command",
    "clean": "llmopt.cli.clean:command",
    "explain": "llmopt.cli.explain:command",
    "rescore": "llmopt.cli.rescore:command",
    "export": "llmopt.cli.export:command",
    "completion": "llmopt.cli.completion:command",
}
"""Name → where the command lives; its line in ``--help`` is the message ``cli.NAME.short``."""

EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that imports a command only when it runs; ``--help`` reads the catalogue instead."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the table, which is the order of use."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None where there is none of that name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands with their lines from the catalogue."""
        rows = [(name, t(f"cli.{name}.short")) for name in self.list_commands(ctx)]
        with formatter.section(t("cli.commands")):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--lang", type=click.Choice(LANGUAGES), default=None, help="한국어 / English")
@click.version_option(__version__, prog_name="llmopt")
@click.pass_context
def cli(ctx: click.Context, lang: str | None) -> None:
    """Find the best way to run an open LLM on this machine."""
    del lang  # read before anything is imported, in _early_language
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one return for each way a run can end
    """Run the command line and return the exit code of the specification.

    A user's mistake never shows a traceback; a bug always does, once, with where to report it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _early_language(arguments)
    cli.help = t("cli.about")
    click.Context.formatter_class = CellFormatter
    debug = "--debug" in arguments
    if hasattr(signal, "SIGTERM") and argv is None:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        result: Any = cli.main(args=arguments, prog_name="llmopt", standalone_mode=False)
    except LlmoptError as error:
        return _refuse(error, arguments)
    except click.exceptions.Exit as leaving:
        return int(leaving.exit_code)
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo(t("cli.interrupted"), err=True)
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        from llmopt.cli.usage import usage_sentence

        click.echo(usage_sentence(error, arguments), err=True)
        return EXIT_USAGE
    except BrokenPipeError:
        # the reader of a pipe (head, less) went away; that is its right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if debug:
            _show_traceback(error)
        click.echo(t("cli.os_error", what=error.strerror or error, where=error.filename or "-"), err=True)
        return 7
    except Exception as error:
        click.echo(t("cli.bug", version=__version__), err=True)
        _log(error)
        raise
    return result if isinstance(result, int) else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _show_traceback(error: Exception) -> None:
    """What ``--debug`` adds to a refusal, on the screen and in logs/."""
    import traceback

    from llmopt.logs import mask

    click.echo(mask("".join(traceback.format_exception(error))), err=True)
    _log(error)


def _log(error: Exception) -> None:
    from llmopt.logs import log_exception
    from llmopt.paths import Workspace

    log_exception(Workspace.here().logs, error)


def _refuse(error: LlmoptError, arguments: Sequence[str]) -> int:
    if "--debug" in arguments:
        _show_traceback(error)
    click.echo(f"{t('cli.error')}: {error}", err=True)
    if error.exit_code != EXIT_USAGE:
        from llmopt.failures import explain_exception, get_history

        command = next((word for word in arguments if word in COMMANDS), "")
        get_history().record(explain_exception(error), where=command)
    return error.exit_code


def _early_language(arguments: Sequence[str]) -> None:
    """Choose the language before any command is imported: ``--lang``, then settings, then the locale."""
    for here, nxt in pairwise([*arguments, ""]):
        if here == "--lang" and nxt in LANGUAGES:
            return set_language(nxt)
        if here.startswith("--lang=") and here[7:] in LANGUAGES:
            return set_language(here[7:])
    from llmopt.config.settings import load_settings
    from llmopt.paths import Workspace

    set_language(None)
    try:
        return set_language(load_settings(Workspace.here())["lang"])
    except LlmoptError:
        named = os.environ.get("LLMOPT_LANG")
        return set_language(named) if named in LANGUAGES else None  # the command itself will report what is wrong
