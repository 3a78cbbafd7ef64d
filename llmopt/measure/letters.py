"""Multiple choice by the top log-probabilities of the first token, on engines that prove that they have them.

Never mixed with generated letters in one comparison: the caller chooses one way for a whole study.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from llmopt.records import Endpoint, Item, Message, Sample
from llmopt.runtime.http import HttpError, Response, request

__all__ = ["answer_by_letters", "letter_shares", "proves_logprobs"]

_TOP = 20
_TIMEOUT_S = 120.0
_LETTERS = "ABCDEFGHIJ"
_OK = 200


async def proves_logprobs(endpoint: Endpoint) -> bool:
    """Whether the engine answers a one-token request with several alternatives and their log-probabilities."""
    question: Sequence[Message] = ({"role": "user", "content": "A, B 가운데 하나만 쓰세요."},)
    try:
        response = await _ask(endpoint, question)
    except HttpError:
        return False
    alternatives = _read(response)
    return len(alternatives) > 1 and all(math.isfinite(value) for value in alternatives.values())


async def answer_by_letters(endpoint: Endpoint, item: Item, messages: Sequence[Message]) -> Sample:
    """One answer whose text is the letter with the highest share; a failed request is a sample with its error."""
    started = time.monotonic()
    text, error = "", None
    try:
        response = await _ask(endpoint, messages)
        if response.status == _OK:
            shares = letter_shares(_read(response), len(item.options))
            text = max(shares, key=lambda letter: shares[letter]) if shares else ""
        else:
            error = f"http_{response.status}"
    except HttpError as problem:
        error = problem.kind
    return Sample(
        item_id=item.id,
        planned_s=started,
        sent_s=started,
        ended_s=time.monotonic(),
        text=text,
        finish_reason=None if error else "stop",
        completion_tokens=None if error else 1,
        error=error,
    )


def letter_shares(alternatives: Mapping[str, float], options: int) -> dict[str, float]:
    """Probability of each letter among those named; spellings of one letter (``A``, `` A``, ``(A``) are added up."""
    shares: dict[str, float] = {}
    for token, value in alternatives.items():
        letter = token.strip().strip("().[]:*\"'").upper()
        if len(letter) == 1 and letter in _LETTERS[:options]:
            shares[letter] = shares.get(letter, 0.0) + math.exp(value)
    total = sum(shares.values())
    return {letter: value / total for letter, value in sorted(shares.items())} if total else {}


async def _ask(endpoint: Endpoint, messages: Sequence[Message]) -> Response:
    body = {
        "model": endpoint.model,
        "messages": list(messages),
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": _TOP,
    }
    return await request(endpoint, "POST", f"{endpoint.base_path}/chat/completions", body=body, timeout_s=_TIMEOUT_S)


def _read(response: Response) -> dict[str, float]:
    """Token → log-probability of the first position; empty where the engine left them out."""
    if response.status != _OK:
        return {}
    try:
        first = response.json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {str(entry["token"]): float(entry["logprob"]) for entry in first}
    except (HttpError, KeyError, IndexError, TypeError, ValueError):
        return {}
