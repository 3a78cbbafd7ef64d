"""Everything that went wrong lately, from both places it is kept: studies' errors in the database, others in a file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from llmopt.failures import FailureRecord, get_history
from llmopt.store.database import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmopt.store.rows import ErrorRow

__all__ = ["Trouble", "TroubleCount", "recent_troubles", "trouble_counts"]

_COUNTED = 10_000


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """One error: when (seconds since 1970), its id and kind, where (a study's trial or a function), and in words."""

    at_s: float
    id: str
    category: str
    engine: str = ""
    where: str = ""
    text: str = ""
    remedy: str = ""
    done: str = ""
    """What the tool did about it."""


@dataclass(frozen=True, kw_only=True)
class TroubleCount:
    """How often an error happened, and when last."""

    id: str
    count: int
    last_s: float


def recent_troubles(database: Path, *, limit: int = 100) -> list[Trouble]:
    """The newest errors, newest first. Raises StorageError where the database cannot be read."""
    found = [_from_file(record) for record in get_history().recent(limit)]
    if database.exists():
        with Store.open(database, read_only=True) as store:
            found += [_from_table(row) for row in store.history.errors(limit=limit)]
    return sorted(found, key=lambda trouble: -trouble.at_s)[:limit]


def trouble_counts(database: Path) -> list[TroubleCount]:
    """Every error of the history with its count, most frequent first."""
    groups: dict[str, list[float]] = {}
    for trouble in recent_troubles(database, limit=_COUNTED):
        groups.setdefault(trouble.id, []).append(trouble.at_s)
    counts = [TroubleCount(id=name, count=len(times), last_s=max(times)) for name, times in groups.items()]
    return sorted(counts, key=lambda one: (-one.count, one.id))


def _from_file(record: FailureRecord) -> Trouble:
    try:
        at_s = datetime.fromisoformat(record.at).timestamp()
    except ValueError:
        at_s = 0.0
    return Trouble(
        at_s=at_s,
        id=record.id,
        category=record.category,
        engine=record.engine or "",
        where=record.where,
        text=record.text,
        done=record.done,
    )


def _from_table(row: ErrorRow) -> Trouble:
    where = row.study or ""
    if row.study and row.number is not None:
        where = f"{row.study} #{row.number}"
    words: Sequence[str] = [str(row.data.get(name, "")) for name in ("text", "remedy", "done")]
    return Trouble(
        at_s=row.time_s,
        id=row.signature,
        category=row.category,
        engine=row.engine,
        where=where,
        text=words[0],
        remedy=words[1],
        done=words[2],
    )
