"""Every command has its page in both languages, made from its own ``--help``; help reads well in Korean too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.cli.app import COMMANDS
from llmopt.cli.help import CellFormatter
from llmopt.cli.lines import WIDTH, cells
from llmopt.messages import t

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "commands"
SCRIPT = ROOT / ".ci" / "pages.py"


def check(folder):
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--check", "--folder", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_the_pages_are_what_help_says():
    ran = check(PAGES)
    assert ran.returncode == 0, ran.stderr


def test_a_missing_an_old_and_a_foreign_page_are_named(tmp_path):
    folder = shutil.copytree(PAGES, tmp_path / "commands")
    (folder / "clean.md").unlink()
    (folder / "init.ko.md").write_text("hand-written", encoding="utf-8")
    (folder / "gone.md").touch()
    ran = check(folder)
    assert ran.returncode == 1
    assert "clean.md is missing" in ran.stderr
    assert "init.ko.md is not what --help says" in ran.stderr
    assert "gone.md belongs to no command" in ran.stderr
    assert len(ran.stderr.splitlines()) == 3


def test_every_command_has_a_page_a_line_and_a_place_in_the_index():
    for language, suffix in (("en", ""), ("ko", ".ko")):
        index = (PAGES / f"README{suffix}.md").read_text(encoding="utf-8")
        for name in COMMANDS:
            assert (PAGES / f"{name}{suffix}.md").is_file()
            assert f"({name}{suffix}.md) | {t(f'cli.{name}.short', lang=language)} |" in index


def test_no_help_is_wider_than_the_terminal():
    for page in PAGES.glob("*.md"):
        shown = page.read_text(encoding="utf-8").split("```text\n")[1:]
        lines = [line for block in shown for line in block.split("```")[0].splitlines()]
        assert lines
        assert [line for line in lines if cells(line) > WIDTH] == []


def test_korean_help_has_no_english_of_the_library():
    for page in PAGES.glob("*.ko.md"):
        text = page.read_text(encoding="utf-8")
        for word in ("Usage:", "Options:", "Commands:", "Show this message", "Show the version", "[default"):
            assert word not in text, (page.name, word)


@pytest.mark.parametrize("width", [50, 80])
@given(
    rows=st.lists(
        st.tuples(st.from_regex(r"--[a-z]{1,30}", fullmatch=True), st.text("가나 ab", max_size=200)), min_size=1
    )
)
def test_a_list_fits_any_words(width, rows):
    formatter = CellFormatter(width=width)
    formatter.write_dl(rows)
    shown = formatter.getvalue()
    assert shown.split() == [word for name, meaning in rows for word in (name, *meaning.split())]
    longest = max(cells(word) for _, meaning in rows for word in (*meaning.split(), ""))
    assert all(cells(line) <= max(width, 32 + longest) for line in shown.splitlines())
