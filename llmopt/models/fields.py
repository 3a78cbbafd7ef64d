"""Typed look-ups in a stranger's JSON object: a missing value is None, a value of the wrong kind is a clear error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmopt.errors import WeightsError
from llmopt.models.header_errors import bad_header

__all__ = ["Fields"]

_MAX_NUMBER = 1 << 40
_MAX_LIST = 1 << 16


class Fields:
    """The values of one object; ``path`` is named in errors."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values = values
        self.path = path

    def bad(self, name: str) -> WeightsError:
        """The error for a field whose value is unusable."""
        return bad_header(self.path, "field", name=name)

    def integer(self, *names: str, low: int = 1, high: int = _MAX_NUMBER) -> int | None:
        """The first of ``names`` that is given; whole floats count, ``null`` and text count as not given."""
        for name in names:
            value = self.values.get(name)
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if value is None or isinstance(value, str | dict | list | tuple):
                continue
            if type(value) is not int or not low <= value <= high:
                raise self.bad(name)
            return value
        return None

    def needed(self, *names: str) -> int:
        """Like ``integer``, but its absence is an error."""
        value = self.integer(*names)
        if value is None:
            raise self.bad(names[0])
        return value

    def text(self, name: str) -> str | None:
        """A string, or None."""
        value = self.values.get(name)
        return value if isinstance(value, str) else None

    def flag(self, name: str) -> bool | None:
        """A boolean, or None."""
        value = self.values.get(name)
        return value if isinstance(value, bool) else None

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, or None."""
        value = self.values.get(name)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            return None
        return tuple(value)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A list of small whole numbers (or booleans), or None."""
        value = self.values.get(name)
        if not isinstance(value, list | tuple) or len(value) > _MAX_LIST:
            return None
        if not all(isinstance(item, int) and abs(item) <= _MAX_NUMBER for item in value):
            raise self.bad(name)
        return tuple(int(item) for item in value)

    def inner(self, name: str) -> Fields | None:
        """An object inside, or None."""
        value = self.values.get(name)
        return Fields(value, self.path) if isinstance(value, dict) else None
