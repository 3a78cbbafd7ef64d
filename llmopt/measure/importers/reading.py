"""Which tool wrote a file, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmopt.errors import DataError
from llmopt.measure.importers.aiperf import is_aiperf, read_aiperf
from llmopt.measure.importers.form import ImportedRun
from llmopt.measure.importers.guidellm import is_guidellm, read_guidellm
from llmopt.measure.importers.vllm_bench import is_vllm, read_vllm

__all__ = ["import_results"]

SIZE_LIMIT = 512 << 20
Known = Callable[[Mapping[str, Any]], bool]
Reader = Callable[[Mapping[str, Any]], tuple[ImportedRun, ...]]
TOOLS: tuple[tuple[Known, Reader], ...] = (
    (is_guidellm, read_guidellm),
    (is_aiperf, read_aiperf),
    (is_vllm, read_vllm),
)


def import_results(path: Path) -> tuple[ImportedRun, ...]:
    """The runs in a result file of vLLM's bench serve, GuideLLM or AIPerf; raises DataError for anything else.

    Files that ``vllm bench serve --append-result`` wrote hold one JSON object a line.
    """
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise DataError("measure.import_unreadable", path=path, reason=f"> {SIZE_LIMIT >> 20} MB")
        text = path.read_text(encoding="utf-8")
        contents = _objects(text)
    except (OSError, ValueError) as error:
        raise DataError("measure.import_unreadable", path=path, reason=error) from None
    runs: list[ImportedRun] = []
    for content in contents:
        reader = next((read for known, read in TOOLS if isinstance(content, dict) and known(content)), None)
        if reader is None:
            raise DataError("measure.import_unknown", path=path)
        try:
            runs.extend(reader(content))
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # a file that only looks like theirs
            raise DataError("measure.import_unreadable", path=path, reason=repr(error)) from None
    return tuple(runs)


def _objects(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:  # noqa: PLR2004 - one broken object is no list of objects
            raise
        return [json.loads(line) for line in lines]
