"""The kinds of documents: one TOML file each, with its columns, its prose and its questions."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from llmopt.workload.korean_qa.model import Ask, Field, Genre
from llmopt.workload.korean_qa.pools import drawing

__all__ = ["all_genres"]


@cache
def all_genres() -> tuple[Genre, ...]:
    """Every genre, by the name of its file."""
    return tuple(_genre(path) for path in sorted(Path(__file__).parent.glob("*.toml")))


def _genre(path: Path) -> Genre:
    with path.open("rb") as file:
        read = tomllib.load(file)
    return Genre(
        key=path.stem,
        titles=tuple(read["titles"]),
        intros=tuple(read["intros"]),
        fields=tuple(map(_field, read["fields"])),
        rows=tuple(read["rows"]),
        group_fields=tuple(map(_field, read["group_fields"])),
        groups=tuple(read["groups"]),
        asks=tuple(Ask(**{**ask, "shifts": tuple(ask.get("shifts", ()))}) for ask in read["asks"]),
    )


def _field(spec: dict[str, Any]) -> Field:
    return Field(key=spec["key"], label=spec["label"], draw=drawing(spec), kind=spec["draw"])
