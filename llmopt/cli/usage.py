"""A complaint of the option parser, as one sentence in the reader's language with the next step."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import click

from llmopt.messages import t

__all__ = ["usage_sentence"]


def usage_sentence(error: click.ClickException, arguments: Sequence[str]) -> str:
    """What is wrong with the words typed, and where the right ones stand; a group without a command shows its help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.ctx.get_help()
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx else " ".join(["llmopt", *arguments[:1]])  # the parser gives no context for all
    return f"{t('cli.error')}: {_what(error, ctx)} {t('cli.see_help', command=path)}"


def _what(error: click.ClickException, ctx: click.Context | None) -> str:
    if isinstance(error, click.NoSuchOption):
        return _no_such_option(error, ctx)
    if isinstance(error, click.BadOptionUsage):
        takes = "argument" in error.message and "requires" in error.message
        return t("cli.option_without_value" if takes else "cli.flag_with_value", option=error.option_name)
    if isinstance(error, click.MissingParameter):
        return t("cli.missing", name=_name(error.param, ctx))
    if isinstance(error, click.BadParameter) and error.param is not None:
        return t("cli.bad_value", name=_name(error.param, ctx), value=_given(error.message), expected=_expected(error))
    quoted = _given(error.message)
    if ctx is not None and isinstance(ctx.command, click.Group) and "No such command" in error.message:
        known = ctx.command.list_commands(ctx)
        near = ", ".join(difflib.get_close_matches(quoted, known, n=2)) or ", ".join(known)
        return t("cli.no_such_command", name=quoted, near=near)
    extra = re.search(r"unexpected extra arguments? \((.*)\)", error.message)
    return t("cli.extra", words=extra[1]) if extra else t("cli.usage", why=error.message)


def _no_such_option(error: click.NoSuchOption, ctx: click.Context | None) -> str:
    """With the nearest option of the command, where one is near."""
    known = [name for param in (ctx.command.get_params(ctx) if ctx else ()) for name in param.opts]
    near = difflib.get_close_matches(error.option_name, [name for name in known if name.startswith("--")], n=2)
    key = "cli.no_such_option" if near else "cli.no_option_near"
    return t(key, option=error.option_name, near=", ".join(near))


def _name(param: click.Parameter | None, ctx: click.Context | None) -> str:
    if isinstance(param, click.Argument) and ctx is not None:
        return param.human_readable_name
    return max(param.opts, key=len) if param else "-"


def _given(message: str) -> str:
    """The word the parser complains about: it stands first in its message, in quotes."""
    found = re.match(r"[^'\"]*(['\"])(.*?)\1", message)
    return found[2] if found else message.partition(" ")[0]


def _expected(error: click.BadParameter) -> str:
    """What the option takes, as its type knows it."""
    kind = error.param.type if error.param else None
    if isinstance(kind, click.Choice):
        return ", ".join(map(str, kind.choices))
    if isinstance(kind, (click.IntRange, click.FloatRange)):
        bounds = "" if kind.min is None else f" ≥ {kind.min:g}"
        return t("cli.expected_number") + bounds + ("" if kind.max is None else f" ≤ {kind.max:g}")
    names = {click.INT: "cli.expected_whole", click.FLOAT: "cli.expected_number"}
    return t(names[kind]) if kind in names else error.message
