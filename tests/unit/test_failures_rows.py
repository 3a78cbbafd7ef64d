"""Every row of the catalogue: well formed, explained in both languages, found in its fixture, and found alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llmopt.failures.advice import WORDS, parse_adjustment
from llmopt.failures.catalogue import catalogue
from llmopt.failures.classify import classify, find_failure
from llmopt.messages import t

ROWS = {row.id: row for row in catalogue().rows}
FIXTURES = json.loads(
    (Path(__file__).parent.parent / "fixtures" / "failures" / "rows.json").read_text(encoding="utf-8")
)
HANGUL = re.compile(r"[가-힣]")
PARTICLE = re.compile(r"\}(?:은|는|이|가|을|를|와|과|으로|로)(?![가-힣])")


def test_every_row_has_a_fixture() -> None:
    assert set(FIXTURES) == set(ROWS)
    assert len(ROWS) >= 128


@pytest.mark.parametrize("identifier", sorted(ROWS))
def test_a_row_is_explained_in_both_languages(identifier: str) -> None:
    for part in ("what", "why", "remedy"):
        korean = t(f"failures.{identifier}.{part}", lang="ko")
        english = t(f"failures.{identifier}.{part}", lang="en")
        assert HANGUL.search(korean)
        assert not HANGUL.search(english)
        assert korean.endswith((".", ")")) or part == "remedy"
    t(f"failures.category.{ROWS[identifier].category}", lang="ko")


@pytest.mark.parametrize("identifier", sorted(ROWS))
def test_a_rows_recovery_is_made_of_known_words(identifier: str) -> None:
    row = ROWS[identifier]
    assert row.recovery
    for step in row.recovery:
        word, _, argument = step.partition(":")
        assert word in WORDS
        if word == "adjust":
            for _, sign, value in parse_adjustment(argument):
                assert sign != "=" or value
        elif argument:
            assert float(argument) > 0
    assert row.role == "notice" or row.recovery[-1].split(":")[0] in WORDS - {"adjust", "wait", "defer"}


@pytest.mark.parametrize("identifier", sorted(FIXTURES))
@pytest.mark.parametrize("told_engine", [True, False])
def test_a_fixture_is_named_as_its_row_and_nothing_else(identifier: str, told_engine: bool) -> None:
    fixture = dict(FIXTURES[identifier])
    engine = fixture.pop("engine")
    failure = classify(fixture.pop("log", ""), engine=engine if told_engine else None, **fixture)
    assert failure.id == identifier
    assert failure.category == ROWS[identifier].category


@pytest.mark.parametrize("identifier", sorted(key for key, row in ROWS.items() if row.role != "root"))
def test_only_root_causes_alarm_on_a_running_engine(identifier: str) -> None:
    fixture = FIXTURES[identifier]
    assert find_failure(fixture.get("log", ""), engine=fixture["engine"]) is None


@pytest.mark.parametrize("identifier", sorted(key for key, row in ROWS.items() if row.log is not None))
def test_a_signature_is_no_everyday_text(identifier: str) -> None:
    assert ROWS[identifier].log.search("") is None
    assert ROWS[identifier].log.search("INFO model loaded, server ready, 200 OK\n" * 3) is None
