"""Options that several commands share, with their help from the catalogue, and where output goes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from llmopt.cli.completing import COMPLETIONS
from llmopt.cli.lines import fitted
from llmopt.messages import LANGUAGES, t

__all__ = [
    "Output",
    "debug_option",
    "engine_option",
    "export_option",
    "exported",
    "json_option",
    "lang_option",
    "load_options",
    "load_words",
    "option",
    "url_option",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def option(*names: str, key: str, **kwargs: Any) -> Callable[[Decorated], Decorated]:
    """``click.option`` whose help is the message ``cli.KEY``, with its completion where its name has one."""
    completion = next((COMPLETIONS[name] for name in names if name in COMPLETIONS), None)
    if completion is not None:
        kwargs.setdefault("shell_complete", completion)
    return click.option(*names, help=t(f"cli.{key}"), **kwargs)


def json_option(command: Decorated) -> Decorated:
    """``--json``: standard output is JSON only."""
    return option("--json", "as_json", key="opt.json", is_flag=True)(command)


def debug_option(command: Decorated) -> Decorated:
    """``--debug``: full tracebacks and exact engine commands (read by ``app.main`` as well)."""
    return option("--debug", key="opt.debug", is_flag=True)(command)


def lang_option(command: Decorated) -> Decorated:
    """``--lang`` after the command's name too; it was applied before the command was imported."""
    return option("--lang", key="opt.lang", type=click.Choice(LANGUAGES), expose_value=False)(command)


def engine_option(command: Decorated) -> Decorated:
    """``--engine``."""
    return option("--engine", key="opt.engine", default=None)(command)


def url_option(command: Decorated) -> Decorated:
    """``--url``: a server that runs already; without ``--engine`` it also chooses the engine ``openai``."""

    def remember(ctx: click.Context, parameter: click.Parameter, url: str | None) -> None:
        del ctx, parameter
        if url is not None:
            os.environ["OPENAI_BASE_URL"] = url
            os.environ.setdefault("LLMOPT_ENGINE", "openai")

    return option("--url", key="opt.url", default=None, expose_value=False, callback=remember)(command)


def export_option(command: Decorated) -> Decorated:
    """``--export``: a report in another place or format; its ending says which."""
    return option(
        "--export", "exports", key="opt.export", multiple=True, metavar="FILE|FORMAT", callback=_known_formats
    )(command)


def _known_formats(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Refused before anything is measured."""
    del ctx, param
    if value:
        from llmopt.report.formats import export_target

        for text in value:
            export_target(text, "")
    return value


def exported(result: dict[str, Any], exports: Sequence[str], *, folder: Path, output: Output) -> None:
    """Write what ``--export`` asked for; raises UsageError for a format there is not, StorageError."""
    from llmopt.report.writing import write_export

    for text in exports:
        output.say(t("report.written", path=write_export(result, text, folder=folder)))


def load_options(command: Decorated) -> Decorated:
    """``--streams``, or ``--rate`` with how it arrives: the load is the task's, never searched."""
    for decorator in reversed(
        (
            option("--streams", key="opt.streams", type=int, default=None),
            option("--rate", key="opt.rate", type=float, default=None),
            option("--arrival", key="opt.arrival", type=click.Choice(("constant", "poisson", "gamma")), default=None),
            option("--burstiness", key="opt.burstiness", type=float, default=None),
            option("--ramp", key="opt.ramp", metavar="FROM:SECONDS", default=None),
            option("--shared-prefix", key="opt.shared_prefix", metavar="TOKENS[:GROUPS]", default=None),
        )
    ):
        command = decorator(command)
    return command


def load_words(given: Mapping[str, Any]) -> dict[str, Any]:
    """What ``load_options`` were given beside ``--streams``, as fields of a request."""
    return {name: given[name] for name in ("rate", "arrival", "burstiness", "ramp", "shared_prefix")}


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where text goes: to a person on standard output, or, with ``--json``, on standard error beside the JSON."""

    as_json: bool

    def say(self, text: str) -> None:
        """A line for a person."""
        click.echo(text, err=self.as_json)

    def tell(self, text: str, indent: int = 0) -> None:
        """The same, folded to the width of the terminal."""
        self.say(fitted(text, indent))

    def data(self, value: Any) -> None:
        """The result for a program: one JSON document (only with ``--json``)."""
        if self.as_json:
            json.dump(value, sys.stdout, ensure_ascii=False, indent=2, default=str)
            sys.stdout.write("\n")
            sys.stdout.flush()

    def line(self, value: Any) -> None:
        """One JSON line of progress (only with ``--json``)."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
            sys.stdout.flush()
