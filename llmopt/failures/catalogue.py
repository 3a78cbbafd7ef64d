"""The catalogue of known failures: rows of data, validated when first read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Catalogue", "Role", "Signature", "catalogue", "dialect_of"]

Role: TypeAlias = Literal["root", "weak", "wrapper", "exit", "notice"]
"""What a match proves: ``root`` a cause, ``weak`` a request's failure or a cause only where nothing stronger is found,
``wrapper`` that the cause stands earlier, ``exit`` read from the exit status, ``notice`` no failure at all."""

_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One known failure. Its texts are ``failures.ID.what``, ``.why`` and ``.remedy`` of the message catalogue."""

    id: str
    category: str
    engines: frozenset[str]
    """Engines whose output may hold it; ``*`` for any."""
    role: Role
    log: re.Pattern[str] | None = None
    exits: frozenset[int] = frozenset()
    http: tuple[tuple[int, str], ...] = ()
    """(status, text in the body) pairs."""
    kernel: re.Pattern[str] | None = None
    process: tuple[str, ...] = ()
    lock: re.Pattern[str] | None = None
    recovery: tuple[str, ...] = ()
    """What to try, in order; see ``advice.py`` for the words."""
    refines: frozenset[str] = frozenset()
    """Ids of more general failures that this one, found later, explains better."""
    cancels: frozenset[str] = frozenset()
    """Ids whose earlier matches this notice declares recovered."""
    values: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """Figures to read from the text around a match."""
    noted: bool = False
    """Of a notice: whether it changes what is measured, so that a result must tell it."""

    def concerns(self, engine: str | None) -> bool:
        """Whether this engine's output may hold it."""
        return engine is None or "*" in self.engines or dialect_of(engine) in self.engines


def dialect_of(engine: str | None) -> str | None:
    """The engine whose words another one speaks, being the same program; else itself."""
    return "llamacpp" if engine == "llama-server" else engine


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All rows, and for each engine what it prints once it is ready."""

    rows: tuple[Signature, ...]
    ready: Mapping[str, re.Pattern[str]]

    def dialect(self, engine: str | None) -> str | None:
        """``engine`` where rows are written for it; None (any output is possible) for one the catalogue never met."""
        return engine if engine is not None and any(engine in row.engines for row in self.rows) else None

    def __getitem__(self, identifier: str) -> Signature:
        for row in self.rows:
            if row.id == identifier:
                return row
        raise KeyError(identifier)


@cache
def catalogue() -> Catalogue:
    """The catalogue, read at the first failure. Raises ValueError for a row that breaks the format (a bug)."""
    data = json.loads(Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8"))
    if data["schema_version"] != _SCHEMA:
        raise ValueError(f"catalogue.json has version {data['schema_version']}, this code reads {_SCHEMA}")
    rows = tuple(_signature(row) for row in data["rows"])
    ids = [row.id for row in rows]
    known = set(ids)
    if len(known) != len(ids):
        raise ValueError("catalogue.json names an id twice")
    for row in rows:
        if (row.refines | row.cancels) - known:
            raise ValueError(f"{row.id} refers to an id that does not exist")
    return Catalogue(rows=rows, ready={engine: _any(words, ()) for engine, words in data["ready"].items()})


def _signature(row: Mapping[str, Any]) -> Signature:
    match = row["match"]
    unknown = match.keys() - {"text", "regex", "exit", "http", "kernel", "process", "lock"}
    if unknown or not match:
        raise ValueError(f"{row['id']}: cannot match by {sorted(unknown)}")
    return Signature(
        id=row["id"],
        category=row["category"],
        engines=frozenset(row["engines"]),
        role=row["role"],
        log=_any(match.get("text", ()), match.get("regex", ())) if match.keys() & {"text", "regex"} else None,
        exits=frozenset(match.get("exit", ())),
        http=tuple((status, text) for status, text in match.get("http", ())),
        kernel=_any((), match["kernel"]) if "kernel" in match else None,
        process=tuple(match.get("process", ())),
        lock=_any((), match["lock"]) if "lock" in match else None,
        recovery=tuple(row["recovery"]),
        refines=frozenset(row.get("refines", ())),
        cancels=frozenset(row.get("cancels", ())),
        values={name: re.compile(pattern) for name, pattern in row.get("values", {}).items()},
        noted=row.get("noted", False),
    )


def _any(texts: tuple[str, ...] | list[str], patterns: tuple[str, ...] | list[str]) -> re.Pattern[str]:
    """One pattern for fixed texts and regular expressions together."""
    return re.compile("|".join([*(re.escape(text) for text in texts), *(f"(?:{each})" for each in patterns)]))
