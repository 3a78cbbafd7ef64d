"""Answers of earlier runs that may be used again: greedy or seeded ones of the same weights under the same settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from llmopt.measure.cache import AnswerKey, ResponseCache
from llmopt.records import Configuration, Request, Sample, Settings, digest
from llmopt.study.prepare import Prepared

__all__ = ["KeptAnswers"]

FOLDER = "answers"


class KeptAnswers:
    """The response cache as one prepared task sees it. Only where no speed is measured: a kept answer has none.

    That is ``benchmark`` and ``compare`` for quality alone, and the trials of a search that judges nothing but answers.

    Weights without a checksum are told apart by path, size and time of change; an engine that is not ours is never
    reused, since what serves there may change between two requests.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._cache = ResponseCache(prepared.workspace.cache / FOLDER)
        self._model = _weights(prepared)
        parameters = prepared.engine.parameters(prepared.model, prepared.hardware, prepared.task)
        self._harmless = {parameter.name for parameter in parameters if not parameter.changes_answers}
        self._version = prepared.engine.installation().version or ""

    def get(self, configuration: Configuration, request: Request) -> Sample | None:
        """The kept answer to a request, or None."""
        key = self._key(configuration, request)
        found = self._cache.get(key) if key else None
        return None if found is None else replace(found, item_id=request.item_id)

    def put(self, configuration: Configuration, requests: Iterable[Request], samples: Iterable[Sample]) -> None:
        """Keep those answers (one a request, in order) that may be used again; raises StorageError on a full disk."""
        for request, sample in zip(requests, samples, strict=True):
            key = self._key(configuration, request)
            if key is not None:
                self._cache.put(key, sample)

    def _key(self, configuration: Configuration, request: Request) -> AnswerKey | None:
        if self._model is None:
            return None
        launch: Settings = {n: v for n, v in configuration.launch.items() if n not in self._harmless}
        return AnswerKey(
            model=self._model,
            engine=configuration.engine,
            engine_version=self._version,
            launch=launch,
            messages=request.messages,
            params=request.params,
            extra=request.extra,
        )


def _weights(prepared: Prepared) -> str | None:
    """What tells these weights from all others; None where nothing does."""
    model = prepared.model
    if model.sha256 is not None:
        return model.sha256
    path = Path(model.path)
    if not prepared.engine.needs_weights or not path.exists():
        return None
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return digest([[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()], size=16)
