"""The error tree. Every class has the exit code of the command line; every error says what, why and what next.

    LlmoptError              1    (raised as itself only for a bug we can name)
    ├── UsageError           2    the command was called wrongly
    ├── SettingsError        3    settings or a model entry are invalid
    ├── DataError            3    a dataset or a result file cannot be used
    ├── DoesNotFit           4    memory says no, with the numbers
    ├── EngineError          5    an engine is missing, did not start, or died
    │   ├── EngineMissing
    │   ├── EngineStartError
    │   └── EngineDied
    ├── WeightsError         6    weights or network
    ├── StorageError         7    disk, database, permissions
    ├── RegressionFound      8    the gate of ``compare --fail-if-worse``
    └── Interrupted        130    Ctrl-C or SIGTERM

An error is raised with a message key, never with free text: ``raise DataError("data.unknown", name=..., near=...)``.
The catalogue holds the sentence under that key, and the next step under the same key with ``.next`` appended.
"""

from __future__ import annotations

import json
from typing import Any

from llmopt.messages import t

__all__ = [
    "DataError",
    "DoesNotFit",
    "EngineDied",
    "EngineError",
    "EngineMissing",
    "EngineStartError",
    "Interrupted",
    "LlmoptError",
    "RegressionFound",
    "SettingsError",
    "StorageError",
    "UsageError",
    "WeightsError",
    "json_problem",
]


_CLOSED = (".", "?", "!", "…", ")", ":")
"""How a sentence may end before the next one; a message that ends with a value gets its full stop here."""
_JSON_PROBLEMS = (
    ("Expecting value", "json.value"),
    ("Expecting property name", "json.property"),
    ("Expecting ':'", "json.colon"),
    ("Expecting ','", "json.comma"),
    ("Illegal trailing comma", "json.trailing"),
    ("Unterminated string", "json.string"),
    ("Invalid control character", "json.control"),
    ("Invalid \\", "json.escape"),
    ("Extra data", "json.extra"),
)


def json_problem(error: json.JSONDecodeError) -> str:
    """What is wrong with a JSON text, in the current language; the parser's own words where it has new ones."""
    return next((t(key) for start, key in _JSON_PROBLEMS if error.msg.startswith(start)), error.msg)


class LlmoptError(Exception):
    """An error a user can meet: rendered from the message catalogue in the reader's language.

    ``detail`` is text shown below the sentence as it is (the last log lines of an engine, a command).
    """

    exit_code = 1

    def __init__(self, key: str, /, *, detail: str = "", **values: Any) -> None:
        super().__init__(key, values)
        self.key = key
        self.values = values
        self.detail = detail

    @property
    def what(self) -> str:
        """What happened and why, one sentence in the current language."""
        return t(self.key, **self.values)

    @property
    def next_step(self) -> str:
        """What to do next, one sentence in the current language."""
        return t(f"{self.key}.next", **self.values)

    def __str__(self) -> str:
        what = self.what
        text = f"{what if what.endswith(_CLOSED) else what + '.'} {self.next_step}"
        return f"{text}\n{self.detail}" if self.detail else text


class UsageError(LlmoptError):
    """The command or function was called wrongly."""

    exit_code = 2


class SettingsError(LlmoptError):
    """Settings, or a model's entry, are invalid."""

    exit_code = 3


class DataError(LlmoptError):
    """A dataset or a result file cannot be used."""

    exit_code = 3


class DoesNotFit(LlmoptError):
    """The model with these settings does not fit this machine; the values carry the computed bytes."""

    exit_code = 4


class EngineError(LlmoptError):
    """An engine could not be used."""

    exit_code = 5


class EngineMissing(EngineError):
    """The engine is not installed here."""


class EngineStartError(EngineError):
    """The engine was launched and did not become ready."""


class EngineDied(EngineError):
    """The engine was ready and ended by itself."""


class WeightsError(LlmoptError):
    """Weights could not be found, fetched or trusted."""

    exit_code = 6


class StorageError(LlmoptError):
    """A file or database could not be read or written."""

    exit_code = 7


class RegressionFound(LlmoptError):
    """``compare --fail-if-worse`` found a regression."""

    exit_code = 8


class Interrupted(LlmoptError):
    """The user or the system asked us to stop."""

    exit_code = 130
