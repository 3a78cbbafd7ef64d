"""Every message exists in both languages with the same placeholders, is used, and reads well around them."""

import ast
import json
import re
import string
from pathlib import Path

import pytest

from llmopt.messages import LANGUAGES, current_language, language_of_locale, set_language, t

FOLDER = Path(__file__).resolve().parents[2] / "llmopt"
AREAS = sorted((FOLDER / "messages").glob("*.json"))
PARTICLE_AFTER_PLACEHOLDER = re.compile(r"\}(?:은|는|이|가|을|를|과|와|으로|로)(?=[\s.,])")


def entries():
    return [(path.stem, key, texts) for path in AREAS for key, texts in json.loads(path.read_text("utf-8")).items()]


def placeholders(text):
    return {name.partition(".")[0].partition("[")[0] for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.fixture(autouse=True)
def _language():
    yield
    set_language(None)


def test_both_languages_say_the_same_with_the_same_values():
    wrong = [
        f"{area}.{key}"
        for area, key, texts in entries()
        if set(texts) != set(LANGUAGES)
        or not all(texts.values())
        or placeholders(texts["ko"]) != placeholders(texts["en"])
    ]
    assert wrong == []


def test_no_korean_particle_depends_on_a_value():
    wrong = [f"{area}.{key}" for area, key, texts in entries() if PARTICLE_AFTER_PLACEHOLDER.search(texts["ko"])]
    assert wrong == []


def test_every_error_has_its_next_step():
    known = {f"{area}.{key}" for area, key, _ in entries()}
    missing = []
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
                continue
            name = getattr(node.exc.func, "id", "")
            first = node.exc.args[0]
            is_key = isinstance(first, ast.Constant) and re.fullmatch(r"[a-z_]+\.[\w.]+", str(first.value))
            if name.endswith(("Error", "Missing", "Died", "DoesNotFit")) and is_key:
                missing += [key for key in (first.value, f"{first.value}.next") if key not in known]
    assert missing == []


def test_language_comes_from_the_choice_then_the_locale(monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "ko_KR.UTF-8")
    assert language_of_locale() == current_language() == "ko"
    monkeypatch.setenv("LC_ALL", "en_US.UTF-8")
    assert current_language() == "en"
    set_language("ko")
    assert current_language() == "ko"
    assert t("list.yes") == "예"
    assert t("list.yes", lang="en") == "yes"


def test_unknown_keys_and_missing_values_are_bugs_that_show():
    with pytest.raises(KeyError):
        t("list.there_is_no_such_message")
    with pytest.raises(KeyError):
        t("study.trials", lang="en")
    with pytest.raises(ValueError, match="fr"):
        set_language("fr")
