"""Which column of a user's table means what: guessed from its name, or given, with near names where neither works."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping

from llmopt.errors import DataError
from llmopt.messages import t

__all__ = ["FIELDS", "guess_columns", "resolve_columns"]

FIELDS: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "질문", "문제", "query", "problem", "prompt", "instruction", "input", "발문"),
    "answer": ("answer", "answers", "정답", "답", "답변", "gold", "target", "label", "expected", "output", "reference"),
    "context": ("context", "passage", "paragraph", "지문", "본문", "document", "article"),
    "options": ("options", "choices", "보기", "선택지"),
    "id": ("id", "qid", "question_id", "uid", "guid", "번호"),
    "cluster": ("cluster", "template", "template_id", "group", "passage_id", "묶음"),
    "level": ("level", "difficulty", "난이도", "수준"),
    "kind": ("kind", "scorer", "채점"),
    "unit": ("unit", "단위"),
    "solution": ("solution", "worked", "rationale", "explanation", "풀이", "해설"),
    "split": ("split", "분할"),
    "schema": ("schema", "json_schema"),
}
"""What a column can be for, and the names under which it is recognised without being told."""


def guess_columns(names: Collection[str]) -> dict[str, str]:
    """Field → column for every field whose usual name is among ``names`` (case and blanks do not matter)."""
    plain = {name.strip().casefold(): name for name in names}
    found: dict[str, str] = {}
    for field, usual in FIELDS.items():
        for name in usual:
            if name in plain and plain[name] not in found.values():
                found[field] = plain[name]
                break
    return found


def resolve_columns(names: Collection[str], given: Mapping[str, str] | None, *, source: str) -> dict[str, str]:
    """The user's mapping completed by guesses; raises DataError where a name is unknown or no question is found."""
    given = given or {}
    for field, column in given.items():
        if field not in FIELDS:
            raise DataError("data.unknown_field", field=field, near=near(field, FIELDS), known=", ".join(FIELDS))
        if column not in names:
            shown = {"column": column, "near": near(column, names), "columns": _listed(names)}
            raise DataError("data.no_column", source=source, **shown)
    found = {f: c for f, c in guess_columns(names).items() if c not in given.values()} | dict(given)
    if "question" not in found:
        likely = [c for name in FIELDS["question"] for c in difflib.get_close_matches(name, names, n=1, cutoff=0.6)]
        raise DataError("data.no_question", source=source, near=_listed(dict.fromkeys(likely)), columns=_listed(names))
    return found


def near(name: str, known: Iterable[str]) -> str:
    """Up to three known names that resemble ``name``, for a message; "none" where none does."""
    plain = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(name.casefold(), plain, n=3, cutoff=0.5)
    return ", ".join(plain[c] for c in close) or t("data.none")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(str(name) for name in names) or t("data.none")
