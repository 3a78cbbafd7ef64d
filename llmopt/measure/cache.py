"""Answers kept by everything that determines them, so that no question is asked twice and no model gets another's.

Nothing about scoring is part of a key: a stored answer can be scored again by any rule. Only answers whose request
settings fix them may be reused: temperature 0, or a seed the engine honours, at one repeat index.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmopt.errors import StorageError
from llmopt.paths import ensure
from llmopt.records import InferenceParams, Message, Sample, Settings, digest

__all__ = ["AnswerKey", "ResponseCache"]

_SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class AnswerKey:
    """All that determines an answer. ``launch`` holds the settings that can change answers, resolved and explicit.

    ``model`` is the digest of the weights, not their name; ``template`` that of the chat template the engine applies.
    """

    model: str
    engine: str
    engine_version: str
    launch: Settings
    messages: Sequence[Message]
    params: InferenceParams
    template: str = ""
    extra: Mapping[str, Any] | None = None
    """Engine-specific body fields that can change an answer (a grammar, a stop list)."""
    repeat: int = 0

    @property
    def group(self) -> str:
        """The same for all answers of one model under one launch: one file holds them."""
        return digest([self.model, self.engine, self.engine_version, dict(self.launch), self.template])

    @property
    def digest(self) -> str:
        """The key of one answer."""
        params = {name: value for name, value in self.params.given().items() if name != "prompt_form"}
        messages = [dict(message) for message in self.messages]
        return digest([self.group, messages, params, dict(self.extra or {}), self.repeat], size=16)

    @property
    def reusable(self) -> bool:
        """Whether asking again would give the same answer, as far as the request can settle that."""
        return self.params.temperature == 0 or self.params.seed is not None


class ResponseCache:
    """Append-only JSON lines below ``folder``, one file for each model and launch; safe for several processes.

    A line is written whole and flushed to disk before ``put`` returns; a torn last line of a killed process is
    skipped. Failed requests are never kept. Times of a reused answer are those of its first run: never a speed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, dict[str, Sample]] = {}

    def get(self, key: AnswerKey) -> Sample | None:
        """The stored answer, or None."""
        return self._answers(key.group).get(key.digest) if key.reusable else None

    def put(self, key: AnswerKey, sample: Sample) -> None:
        """Keep an answer; raises StorageError where the disk refuses."""
        if not sample.ok or not key.reusable or key.digest in self._answers(key.group):
            return
        line = json.dumps({"version": _SCHEMA_VERSION, "key": key.digest, "sample": asdict(sample)}, ensure_ascii=False)
        path = self._path(key.group)
        try:
            ensure(self._folder)
            _append(path, line)
        except OSError as problem:
            raise StorageError("quality.cache_write", path=path, reason=problem.strerror or problem) from None
        self._answers(key.group)[key.digest] = sample

    def _answers(self, group: str) -> dict[str, Sample]:
        if group not in self._known:
            self._known[group] = dict(_read(self._path(group)))
        return self._known[group]

    def _path(self, group: str) -> Path:
        return self._folder / f"{group}.jsonl"


def _append(path: Path, line: str) -> None:
    """One write in append mode, so that lines of several processes do not mix; a torn line before it is closed."""
    with path.open("ab+", buffering=0) as file:
        torn = False
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        data = (("\n" if torn else "") + line + "\n").encode()
        while data:
            data = data[file.write(data) or 0 :]
        os.fsync(file.fileno())


def _read(path: Path) -> list[tuple[str, Sample]]:
    found: list[tuple[str, Sample]] = []
    if not path.is_file():
        return found
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
                if entry["version"] == _SCHEMA_VERSION:
                    found.append((entry["key"], _sample(entry["sample"])))
            except (ValueError, KeyError, TypeError):
                continue  # the torn line of a killed process, or one of another version
    return found


def _sample(values: dict[str, Any]) -> Sample:
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Sample(**{**values, **lists})
