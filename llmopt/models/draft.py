"""A small model that guesses ahead for a large one: kept with the large one's facts, so that an engine can offer it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from llmopt.errors import SettingsError
from llmopt.records import ModelInfo

__all__ = ["Draft", "Kind", "draft_of", "with_draft"]

Kind = Literal["draft", "eagle", "eagle3"]
"""A model of its own, or a head trained on the large one's hidden states."""
_KEY = "draft"
_SPARE_TOKENS = 128
"""Vocabularies of one tokenizer differ by padding; beyond it the guesses would be other words."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What guesses ahead."""

    model: ModelInfo
    kind: Kind


def with_draft(model: ModelInfo, draft: ModelInfo) -> ModelInfo:
    """``model`` with its draft. Raises SettingsError where the two do not share a tokenizer."""
    kind = _kind(draft)
    sizes = (model.vocabulary, draft.vocabulary)
    if kind == "draft" and None not in sizes and abs((sizes[0] or 0) - (sizes[1] or 0)) > _SPARE_TOKENS:
        raise SettingsError(
            "models.draft_vocabulary", name=model.name, draft=draft.name, tokens=sizes[0], other=sizes[1]
        )
    return replace(model, extra={**model.extra, _KEY: {"kind": kind, "model": asdict(draft)}})


def draft_of(model: ModelInfo) -> Draft | None:
    """The draft that was given for ``model``, or None."""
    found: Mapping[str, Any] | None = model.extra.get(_KEY)
    if found is None:
        return None
    facts: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in found["model"].items()
    }
    return Draft(model=ModelInfo(**facts), kind=found["kind"])


def _kind(draft: ModelInfo) -> Kind:
    """By the architecture its header names."""
    named = [draft.architecture or ""]
    config = Path(draft.path) / "config.json"
    if config.is_file():
        try:
            named += [str(each) for each in json.loads(config.read_text(encoding="utf-8")).get("architectures") or ()]
        except (OSError, ValueError, AttributeError):
            return "draft"  # what is wrong with the file is said by whoever reads its facts
    words = " ".join(named).lower()
    return "eagle3" if "eagle3" in words else "eagle" if "eagle" in words else "draft"
