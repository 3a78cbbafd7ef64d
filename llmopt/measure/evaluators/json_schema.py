"""Scoring structured output: is the reply JSON, does it conform to the item's schema, does it equal the gold value."""

from __future__ import annotations

import json
import re
from typing import Any

from llmopt.measure.answers.reply import Reading, Reply
from llmopt.measure.evaluators.schema import check_schema, conforms
from llmopt.records import Item, Sample

__all__ = ["JsonSchema"]

_FENCED = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.DOTALL | re.IGNORECASE)
_NOTHING = object()


class JsonSchema:
    """1.0 where the reply is JSON that conforms to ``meta["schema"]`` and equals a gold answer, where there is one."""

    name = "json"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """Read the whole reply, a fenced block, or the last JSON object in it, in this order."""
        del sample
        value, rule = _find(reply.text)
        if value is _NOTHING:
            return Reading(0.0, None, "")
        schema = item.meta.get("schema", True)
        check_schema(schema)
        right = conforms(value, schema)
        if right and item.answers:
            right = any(_loads(answer) == value for answer in item.answers)
        return Reading(float(right), json.dumps(value, ensure_ascii=False), rule)


def _find(text: str) -> tuple[Any, str]:
    whole = _loads(text)
    if whole is not _NOTHING:
        return whole, "whole"
    for block in reversed(_FENCED.findall(text)):
        value = _loads(block)
        if value is not _NOTHING:
            return value, "fenced"
    return _last_object(text)


def _last_object(text: str) -> tuple[Any, str]:
    """The last object or array that stands in the prose; one inside another is not taken apart."""
    decoder = json.JSONDecoder()
    found: Any = _NOTHING
    place = 0
    while (match := re.compile(r"[{\[]").search(text, place)) is not None:
        try:
            found, place = decoder.raw_decode(text, match.start())
        except (json.JSONDecodeError, RecursionError):
            place = match.end()
    return found, "embedded"


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return _NOTHING
