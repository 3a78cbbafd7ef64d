"""What a study cannot be done with: each is one clear sentence in both languages, with the exit code and what to do."""

from __future__ import annotations

import re
import shutil
import sqlite3

import pytest

from llmopt.store.database import Store

DRY = ("optimize", "--dry-run", "--dataset", "korean_math_easy", "--samples", "4")
SLOW, FAST = {"LLMOPT_FAKE_TIME_SCALE": "1"}, {"LLMOPT_FAKE_TIME_SCALE": "0.02"}
WORDS = {
    "newer database": ("newer llmopt", "최신 버전"),
    "read-only database": ("cannot be written", "쓰기 권한이 없습니다"),
    "another space": ("another model, dataset, space or objective", "다른 조건"),
    "the same again": ("--resume", "--resume"),
    "no Ray": ("llmopt[ray]", "llmopt[ray]"),
    "budget below the baseline": ("smallest useful budget", "의미 있는 최소 시간"),
}
languages = pytest.mark.parametrize("language", ["en", "ko"])


def said(ran, case: str, language: str, *, code: int) -> str:
    assert ran.code == code, ran.err
    assert WORDS[case][language == "ko"] in ran.err, ran.err
    assert "Traceback" not in ran.err
    return ran.err


def database(inline):
    folder = inline.folder / "optimization_results"
    folder.mkdir()
    return folder / "llmopt.db"


@languages
def test_a_database_of_a_newer_version_is_left_as_it_is(inline, language):
    path = database(inline)
    Store.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=999")
    db.close()
    before = path.read_bytes()
    err = said(inline.run(*DRY, lang=language), "newer database", language, code=7)
    assert "999" in err
    assert path.read_bytes() == before


@languages
def test_a_database_that_may_only_be_read(inline, language, monkeypatch):
    path = database(inline)
    Store.open(path).close()
    whole = sqlite3.connect
    # root may write everywhere: the file is opened as SQLite opens one that may not be written
    monkeypatch.setattr(sqlite3, "connect", lambda name, **given: whole(name.replace("mode=rwc", "mode=ro"), **given))
    err = said(inline.run(*DRY, lang=language), "read-only database", language, code=7)
    assert "llmopt.db" in err


@pytest.fixture(scope="module")
def mine(workshop):
    """A workspace with a finished study ``mine``."""
    ran = workshop.run(*DRY, "--name", "mine", "--trials", "2", env=FAST)
    assert ran.code == 0, ran.err
    return workshop.folder


@languages
def test_a_name_is_taken_by_a_study_of_other_conditions_or_of_the_same(inline, mine, language):
    shutil.copytree(mine, inline.folder, dirs_exist_ok=True)
    for more in (("--streams", "2"), ("--dataset", "korean_qa"), ("--objective", "quality"), ("--samples", "5")):
        other = inline.run(*DRY, "--name", "mine", *more, lang=language)
        assert "mine" in said(other, "another space", language, code=2)
    again = inline.run(*DRY, "--name", "mine", "--trials", "9", lang=language)
    said(again, "the same again", language, code=2)


@languages
def test_a_cluster_without_ray(inline, language, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    said(inline.run(*DRY, "--cluster", "auto", lang=language), "no Ray", language, code=2)


@languages
def test_a_budget_below_the_baseline_names_the_smallest_useful_one(cli, language):
    ran = cli.run(*DRY, "--samples", "16", "--timeout", "2", env={**SLOW, "LLMOPT_LANG": language})
    err = said(ran, "budget below the baseline", language, code=2)
    assert int(re.findall(r"--timeout`? (?:to|값을) (\d+)", err)[0]) > 2
    cli.wait_until_clean()
