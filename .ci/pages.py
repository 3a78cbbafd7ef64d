"""Write or check docs/commands/: one page a command and language, made from the command's own ``--help``.

``python .ci/pages.py`` writes; ``--check`` says what differs, is missing or has no command any more, and exits with 1.
A new command of ``llmopt.cli.app.COMMANDS`` gets its pages by itself; so do the commands below it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "commands"
SUFFIX = {"en": "", "ko": ".ko"}
WORDS = {
    "en": {
        "title": "Commands",
        "other": "[한국어]({file})",
        "intro": "Made from `--help` by `.ci/pages.py`. `python main.py COMMAND` in a checkout is `llmopt COMMAND`.",
        "heads": "| command | what it does |",
        "back": "[All commands](README.md)",
    },
    "ko": {
        "title": "명령",
        "other": "[English]({file})",
        "intro": "`.ci/pages.py`가 `--help`에서 만듭니다. 체크아웃에서는 `python main.py 명령`이 `llmopt 명령`입니다.",
        "heads": "| 명령 | 하는 일 |",
        "back": "[모든 명령](README.ko.md)",
    },
}


def helps(language: str) -> dict[str, dict[str, str]]:
    """Every command's line and help by its path (``""`` is the program); once a process, as help is read at import."""
    sys.path.insert(0, str(ROOT))
    import click

    from llmopt.cli.app import cli
    from llmopt.cli.help import CellFormatter
    from llmopt.cli.lines import WIDTH
    from llmopt.messages import set_language, t

    set_language(language)
    click.Context.formatter_class = CellFormatter
    cli.help = t("cli.about")

    def walk(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[str, dict[str, str]]]:
        ctx = click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH, **command.context_settings)
        path = ctx.command_path.removeprefix("llmopt").strip()
        yield path, {"short": command.get_short_help_str(limit=200), "help": command.get_help(ctx)}
        if isinstance(command, click.Group):
            for child in command.list_commands(ctx):
                found = command.get_command(ctx, child)
                if found is None:
                    raise SystemExit(f"the command {child} is listed and cannot be had")
                yield from walk(found, ctx, child)

    return dict(walk(cli, None, "llmopt"))


def pages(language: str, found: dict[str, dict[str, str]]) -> dict[str, str]:
    """File name → text: an index, and a page for each command with those below it."""
    words, suffix, other = WORDS[language], SUFFIX[language], SUFFIX["ko" if language == "en" else "en"]
    top = [path for path in found if path and " " not in path]
    rows = [f"| [`{path}`]({path}{suffix}.md) | {found[path]['short']} |" for path in top]
    index = [f"# {words['title']}", words["other"].format(file=f"README{other}.md"), words["intro"]]
    index += ["\n".join([words["heads"], "| --- | --- |", *rows]), _fenced(found[""]["help"])]
    made = {f"README{suffix}.md": "\n\n".join(index) + "\n"}
    for path in top:
        links = f"{words['other'].format(file=f'{path}{other}.md')} · {words['back']}"
        parts = [f"# `llmopt {path}`", links, _fenced(found[path]["help"])]
        for below in (name for name in found if name.startswith(f"{path} ")):
            parts += [f"## `llmopt {below}`", _fenced(found[below]["help"])]
        made[f"{path}{suffix}.md"] = "\n\n".join(parts) + "\n"
    return made


def _fenced(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"


def wanted() -> dict[str, str]:
    """All pages as they should be; each language is rendered in a process of its own."""
    made: dict[str, str] = {}
    for language in SUFFIX:
        command = [sys.executable, __file__, "--render", language]
        run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        if run.returncode:
            raise SystemExit(run.stderr)
        made |= pages(language, json.loads(run.stdout))
    return made


def problems(folder: Path, made: dict[str, str]) -> list[str]:
    """What is wrong with the pages as they stand."""
    there = {path.name for path in folder.glob("*.md")}
    found = [f"{name} is missing" for name in sorted(made.keys() - there)]
    found += [f"{name} belongs to no command" for name in sorted(there - made.keys())]
    for name in sorted(there & made.keys()):
        if (folder / name).read_text(encoding="utf-8") != made[name]:
            found.append(f"{name} is not what --help says")
    return found


def main() -> int:
    """Render, check or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a page is not as made")
    parser.add_argument("--folder", type=Path, default=TARGET)
    parser.add_argument("--render", choices=list(SUFFIX), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.render:
        sys.stdout.reconfigure(encoding="utf-8")
        json.dump(helps(given.render), sys.stdout, ensure_ascii=False)
        return 0
    made = wanted()
    if given.check:
        found = problems(given.folder, made)
        for problem in found:
            print(f"{given.folder.name}/{problem}; run `python .ci/pages.py`", file=sys.stderr)
        return 1 if found else 0
    given.folder.mkdir(parents=True, exist_ok=True)
    for path in given.folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (given.folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
