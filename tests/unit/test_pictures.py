"""The pictures in docs/: a screen of every command in both languages, none wider than its terminal, none left behind."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from llmopt.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 4 << 20
RUN = re.compile(r'<text[^>]* x="([\d.]+)"[^>]* textLength="([\d.]+)"[^>]*>([^<]*)</text>')


def script(name):
    spec = importlib.util.spec_from_file_location(f"pictures_{name}", PICTURES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


make = script("make")
SCREENS = make.screen_names()


def test_every_command_can_be_taken():
    assert {line.split()[0] for _, line in SCREENS} == COMMANDS.keys()


def taken():
    """The screens that are here, in both languages or none."""
    here = [(name, line) for name, line in SCREENS if (PICTURES / f"{name}.en.svg").exists()]
    assert all((PICTURES / f"{name}.ko.svg").exists() for name, _ in here)
    return here


@pytest.mark.parametrize("language", make.LANGUAGES)
def test_a_screen_shows_its_command_within_eighty_columns(language):
    for name, line in taken():
        one_screen(name, line, language)


def one_screen(name, line, language):
    text = (PICTURES / f"{name}.{language}.svg").read_text(encoding="utf-8")
    runs = RUN.findall(text)
    assert runs[0][2].startswith("$ llmopt")
    ends = [float(x) + float(length) for x, length, _ in runs]
    assert max(ends) <= 16 + make.screen.CELL * make.screen.COLUMNS + 0.2
    said = " ".join(words for _, _, words in runs[1:])
    assert bool(re.search("[가-힣]", said)) >= (language == "ko" and line.split()[0] != "completion")


def test_the_pages_show_every_picture():
    made = make.pages()
    for name, text in made.items():
        assert (PICTURES / name).read_text(encoding="utf-8") == text, (
            f"run `python docs/pictures/make.py pages` for {name}"
        )
    shown = "".join(path.read_text(encoding="utf-8") for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
    pictures = [path for path in PICTURES.iterdir() if path.suffix in (".svg", ".png")]
    assert [path.name for path in pictures if path.name not in shown] == []
    assert sum(path.stat().st_size for path in pictures) < MOST_BYTES


def test_the_clients_picture_is_drawn_from_the_raw_runs():
    client = script("client")
    raw = json.loads(client.RAW.read_text(encoding="utf-8"))
    for language in client.WORDS:
        drawn = client.svg(raw, language)
        stored = (PICTURES / f"client.{language}.svg").read_text(encoding="utf-8")
        assert stored == drawn, "the raw runs are others: run `python docs/pictures/client.py`"
        for name in {run["client"] for run in raw["runs"]}:
            assert client.NAMES.get(name, name) in drawn


def test_a_terminal_is_read_as_it_is_shown():
    terminal = make.screen.Screen()
    terminal.feed("first\r\nsecond 한국어\r\n")
    terminal.feed("\x1b[1A\x1b[2K\r\x1b[1mdone\x1b[0m 가나\rDONE")
    assert terminal.text() == ["first", "DONE 가나"]
    assert make.screen.pieces("가" * 41) == ["가" * 40, "가"]
