"""Tokens of answers whose server sends no usage: counted by the server's own tokenizer after the run.

llama.cpp and vLLM offer ``/tokenize``, each in its own words; both are understood. Where there is none the counts stay
those of chunks, and are labelled so wherever they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmopt.records import Endpoint, Sample
from llmopt.runtime.http import HttpError, request

__all__ = ["count_tokens"]

PATH = "/tokenize"
TIMEOUT_S = 10.0


async def count_tokens(endpoint: Endpoint, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples, with ``completion_tokens`` from the tokenizer where only chunks were counted. Never raises."""
    counted: list[Sample] = []
    offered = True
    for sample in samples:
        found = None
        if offered and sample.ok and sample.tokens_counted_by == "chunks" and (sample.text or sample.reasoning):
            found = await _count(endpoint, sample.reasoning + sample.text)
            offered = found is not None
        counted.append(sample if found is None else _with(sample, found))
    return tuple(counted)


async def _count(endpoint: Endpoint, text: str) -> int | None:
    body = {"model": endpoint.model, "content": text, "prompt": text, "add_special": False, "add_special_tokens": False}
    try:
        response = await request(endpoint, "POST", PATH, body=body, timeout_s=TIMEOUT_S)
        told = response.json() if response.status == 200 else None  # noqa: PLR2004 - OK
    except HttpError:
        return None
    return _number(told) if isinstance(told, dict) else None


def _number(told: Mapping[str, Any]) -> int | None:
    tokens, count = told.get("tokens"), told.get("count")
    if isinstance(count, int) and not isinstance(count, bool) and count > 0:
        return count
    return len(tokens) if isinstance(tokens, list) and tokens else None


def _with(sample: Sample, tokens: int) -> Sample:
    """Shared out evenly over the events where there are more tokens than events."""
    events = len(sample.token_s)
    counts: tuple[int, ...] = ()
    if events and tokens > events + 1:  # the end token makes no event
        each, more = divmod(tokens, events)
        counts = tuple(each + (k < more) for k in range(events))
    return replace(sample, completion_tokens=tokens, token_counts=counts, tokens_counted_by="tokenizer")
