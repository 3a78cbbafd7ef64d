"""The only source of text a user reads, in Korean and English side by side.

Each JSON file of this folder is one *area*; ``t("optimize.started", trials=3)`` reads the key ``started`` of
``optimize.json``. Both languages of a message stand in one entry, so neither can be forgotten; a test compares
their placeholders.
"""

from __future__ import annotations

import json
import locale
import os
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["LANGUAGES", "current_language", "language_of_locale", "set_language", "t"]

LANGUAGES = ("ko", "en")
_chosen: str | None = None


def set_language(language: str | None) -> None:
    """Choose the language of this process; ``None`` returns to the locale's. Raises ValueError for an unknown one."""
    global _chosen  # noqa: PLW0603 - the language is the one setting every layer needs before settings exist
    if language is not None and language not in LANGUAGES:
        raise ValueError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    _chosen = language


def current_language() -> str:
    """The language messages are rendered in now: the chosen one, else the locale's."""
    return _chosen or language_of_locale()


def language_of_locale() -> str:
    """``ko`` where LC_ALL, LC_MESSAGES or LANG (in that order) names Korean, else ``en``."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "ko" if value.lower().startswith("ko") else "en"
    return "ko" if (locale.getlocale()[0] or "").lower().startswith("ko") else "en"


@cache
def _area(name: str) -> dict[str, dict[str, str]]:
    path = Path(__file__).with_name(f"{name}.json")
    entries: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return entries


def t(key: str, /, *, lang: str | None = None, **values: Any) -> str:
    """The message ``area.name`` in the current (or given) language with its ``{placeholders}`` filled in.

    Raises KeyError for an unknown key or a placeholder without a value: both are bugs, and tests find them.
    """
    area, _, name = key.partition(".")
    text = _area(area)[name][lang or current_language()]
    return text.format(**values)
