"""What is to be said of the answers beside their quality: how it was judged, telling levels, doubts, token match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmopt.messages import t
from llmopt.report import words

__all__ = ["answer_notes", "match_notes", "side_notes"]

SIDES = ("baseline", "best")


def answer_notes(result: Mapping[str, Any]) -> list[str]:
    """Sentences about the answers of an optimisation; none where there is nothing to add."""
    notes = [t(f"answers.measure_{measure}")] if (measure := result.get("quality_measure", "gold")) != "gold" else []
    for side in SIDES:
        name = t(f"report.{side}")
        notes += [f"{name} — {note}" for note in side_notes(result[side].get("answers") or {})]
        match = result[side].get("token_match")
        if match:
            rate = words.interval("accuracy", match["rate"])
            notes.append(f"{name} — " + t("answers.token_match", rate=rate, reference=match["reference"]))
        if result["best"]["configuration"]["key"] == result["baseline"]["configuration"]["key"]:
            break
    return notes


def match_notes(result: Mapping[str, Any], names: Mapping[str, str] | None = None) -> list[str]:
    """How alike the greedy answers of each compared pair are; ``names`` says what labels are called."""
    called = names or {}
    return [
        t(
            "answers.pair_match",
            before=called.get(pair["before"], pair["before"]),
            after=called.get(pair["after"], pair["after"]),
            rate=words.interval("accuracy", pair["rate"]),
            identical=words.interval("accuracy", pair["identical"]),
        )
        for pair in result.get("token_match") or ()
    ]


def side_notes(answers: Mapping[str, Any]) -> list[str]:
    """Levels that say nothing with the quality without them, and every reason for doubt."""
    notes = []
    saturated = [row for row in answers.get("levels", ()) if row.get("saturated")]
    if saturated:
        shown = ", ".join(f"{row['level']} ({words.figure('accuracy', row['value'])})" for row in saturated)
        telling = answers.get("telling")
        rest = words.interval("accuracy", telling) if telling else t("answers.no_telling_level")
        notes.append(t("answers.saturated", levels=shown, rest=rest))
    notes += [t(doubt["key"], **doubt["values"]) for doubt in answers.get("doubts", ())]
    return notes
