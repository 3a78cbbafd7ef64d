"""The state of the database in one word and one sentence: mended where it was damaged, else explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmopt.errors import StorageError
from llmopt.messages import t
from llmopt.runtime.locks import current_holder
from llmopt.store.database import Store
from llmopt.store.repair import problems, repair

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Health", "health"]


@dataclass(frozen=True, kw_only=True)
class Health:
    """``none`` before the first study, ``sound``, ``repaired`` just now, or ``unusable`` for the reason in ``text``."""

    state: Literal["none", "sound", "repaired", "unusable"]
    text: str
    details: tuple[str, ...] = ()
    """What SQLite found wrong."""


def health(path: Path, *, thorough: bool = False) -> Health:
    """Check the database at ``path``; a damaged one is put aside and rebuilt of every row that can be read.

    Nothing is deleted, and nothing is touched while a run, somebody else's file, a newer version or a lock is in the
    way: then the sentence says so.
    ``thorough`` reads every page instead of a quick look. Trials of dead runs are swept.
    """
    if not path.exists():
        return Health(state="none", text=t("store.health_none"))
    try:
        found = problems(path, quick=not thorough)
        if not found:
            return _sound(path)
        if (holder := current_holder()) is not None:
            return Health(state="unusable", text=t("store.health_busy", pid=holder.pid), details=found)
        saved = repair(path)
    except StorageError as error:
        return Health(state="unusable", text=str(error))
    text = t("store.health_repaired", aside=saved.aside, trials=saved.kept_trials, lost=saved.lost_rows)
    return Health(state="repaired", text=text, details=found)


def _sound(path: Path) -> Health:
    """A sound database, its dead runs swept where we may write."""
    swept = 0
    try:
        with Store.open(path) as store:
            swept = len(store.swept)
    except StorageError as error:
        if error.key != "store.read_only":
            raise
    key = "store.health_swept" if swept else "store.health_sound"
    return Health(state="sound", text=t(key, trials=swept))
