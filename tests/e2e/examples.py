"""What the documentation shows a reader to type: blocks, commands and options of every page, read from the pages."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import click

from llmopt.cli.app import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
WRAPPERS = ("unshare",)
"""Programs that run ours in surroundings of their own."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of a shell block, with variables set for it alone in ``env``."""

    page: str
    line: int
    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[str, ...] | None:
        """What our own program is given; None for another program."""
        if self.words[0] == "llmopt":
            return self.words[1:]
        if self.words[0] in WRAPPERS and "llmopt" in self.words:
            return self.words[self.words.index("llmopt") + 1 :]
        if Path(self.words[0]).name in ("python", "python3") and self.words[1:2] == ("main.py",):
            return self.words[2:]
        return None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def pages() -> tuple[str, ...]:
    """Every page a reader is sent to, relative to the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    found = [path for path in found if not path.name.startswith("report.")]  # what the program itself wrote
    return tuple(sorted(str(path.relative_to(ROOT)) for path in found))


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def blocks(page: str) -> tuple[Block, ...]:
    text = text_of(page)
    return tuple(
        Block(
            page=page,
            line=text.count("\n", 0, found.start()) + 1,
            language={"sh": "bash"}.get(found[2], found[2]),
            text=textwrap.dedent(found[3]),
        )
        for found in FENCE.finditer(text)
    )


def commands(block: Block) -> list[Command]:
    """The commands of a shell block; of another block the lines that begin with ``$``, as a terminal shows them."""
    if block.language != "bash":
        lines = [line[2:] for line in block.text.splitlines() if line.startswith("$ ")]
    else:
        lines = block.text.replace("\\\n", " ").splitlines()
    found: list[Command] = []
    for line in lines:
        for words in _split(line):
            env = {}
            while words and ASSIGNMENT.match(words[0]):
                name, _, value = words.pop(0).partition("=")
                env[name] = value
            if words:
                found.append(Command(page=block.page, line=block.line, words=tuple(words), env=env))
    return found


def _split(line: str) -> list[list[str]]:
    """A line's commands, which ``&&``, ``;`` and ``|`` separate, without comments."""
    reader = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    reader.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in reader:
        if set(word) <= set("&|;"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words]


def all_commands(page: str) -> list[Command]:
    return [command for block in blocks(page) for command in commands(block)]


def parse(arguments: tuple[str, ...]) -> None:
    """Read ``arguments`` by the real parser without running anything; raises what it raises."""
    command: click.Command = cli
    parent: click.Context | None = None
    rest = list(arguments)
    while True:
        context = command.make_context(command.name or "llmopt", rest, parent=parent)
        left = [*context._protected_args, *context.args] if isinstance(command, click.Group) else []
        if not left:
            return
        assert isinstance(command, click.Group)
        name, *rest = left
        child = command.get_command(context, name)
        if child is None:
            raise click.UsageError(f"No such command {name!r}")
        command, parent = child, context


@cache
def options_of(name: str) -> frozenset[str]:
    """The long options of a command and of those below it."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    found = {option for parameter in command.params for option in parameter.opts}
    if isinstance(command, click.Group):
        for child in command.commands.values():
            found |= {option for parameter in child.params for option in parameter.opts}
    return frozenset(found | {"--help"})


def shown(block: Block) -> Any:
    """What must be the same in both languages: code without comments and without words for a reader."""
    if block.language == "python":
        return ast.dump(ast.parse(block.text))
    if block.language == "bash":
        return [(_without_words(command.words), command.env) for command in commands(block)]
    if block.language == "toml":
        return [line.split("#")[0].strip() for line in block.text.splitlines()]
    return block.text if block.language == "json" else None


def _without_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """Words of a reader's language (descriptions, <placeholders>, NAMES) as a mark."""
    found, inside = [], False
    for word in words:
        if word.startswith("<") or inside:
            inside = not word.endswith(">")
            if not inside:
                found.append("<>")
        else:
            found.append(
                "…" if re.search(r"[가-힣]", word) or " " in word or word.isupper() or "_IT_" in word else word
            )
    return tuple(found)


def command_of(span: str) -> str | None:
    """The command that a span of prose names first: ``llmopt NAME …`` or ``NAME [--option]``."""
    words = span.removeprefix("python main.py ").removeprefix("llmopt ").split()
    return words[0] if words and words[0] in COMMANDS else None
