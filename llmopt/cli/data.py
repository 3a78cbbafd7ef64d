"""The options that say what the data is and who judges the answers; asks a person where a column cannot be guessed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmopt.cli.options import Output, option
from llmopt.errors import DataError, UsageError
from llmopt.messages import t

if TYPE_CHECKING:
    from llmopt.paths import Workspace
    from llmopt.workload.datasets import ColumnView

__all__ = ["column_pairs", "data_fields", "data_options"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
SHOWN_CHARACTERS = 40
NONE = "-"


def data_options(command: Decorated) -> Decorated:
    """``--column``, ``--encoding``, ``--examples``, ``--evaluator`` and ``--seeds``."""
    for decorator in reversed(
        (
            option("--column", "columns", key="opt.column", multiple=True),
            option("--encoding", key="opt.encoding", default=None),
            option("--examples", key="opt.examples", default=None),
            option("--evaluator", key="opt.evaluator", default=None),
            option("--seeds", key="opt.seeds", type=int, default=None),
        )
    ):
        command = decorator(command)
    return command


def data_fields(given: dict[str, Any], dataset: str, *, workspace: Workspace, as_json: bool) -> dict[str, Any]:
    """The fields of a StudyRequest that these options fill; a column nobody named is asked for at a terminal."""
    columns = column_pairs(given["columns"])
    if "question" not in columns and not as_json and _at_a_terminal():
        columns |= _asked(dataset, given["encoding"], workspace)
    return {"columns": columns, **{name: given[name] for name in ("encoding", "examples", "evaluator", "seeds")}}


def column_pairs(pairs: tuple[str, ...]) -> dict[str, str]:
    """``--column question=문제`` as a mapping from our field to the file's column."""
    mapping = {}
    for pair in pairs:
        field, equals, column = pair.partition("=")
        if not equals or not field or not column:
            raise UsageError("cli.column", value=pair)
        mapping[field.strip()] = column.strip()
    return mapping


def _at_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _asked(dataset: str, encoding: str | None, workspace: Workspace) -> dict[str, str]:
    """The columns of a file whose names tell nothing; empty where they do, and where there is no such file."""
    from llmopt.workload.datasets import view_columns

    try:
        view = view_columns(dataset, workspace=workspace, encoding=encoding)
    except DataError:
        return {}  # no file, or one that cannot be read: loading it says why
    if "question" in view.guessed:
        return {}
    output = Output(as_json=True)  # what is asked belongs beside the result, not into it
    output.say(t("cli.columns_unknown", path=dataset))
    for name in view.columns:
        output.say(f"  {name}: {_first_value(view, name)}")
    question = click.prompt(t("cli.column_question"), type=click.Choice(view.columns), err=True)
    others = [NONE, *(name for name in view.columns if name != question)]
    answer = click.prompt(t("cli.column_answer"), type=click.Choice(others), default=NONE, err=True)
    return {"question": question, **({} if answer == NONE else {"answer": answer})}


def _first_value(view: ColumnView, name: str) -> str:
    text = " ".join(str(view.rows[0].get(name, "")).split())
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
