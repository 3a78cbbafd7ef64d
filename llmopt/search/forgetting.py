"""Makes a running engine ready for the next trial: done with what it was asked, and forgetful of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from llmopt.engines.base import Forgetting
from llmopt.measure.engine_metrics import EngineWatch
from llmopt.records import Endpoint
from llmopt.runtime.http import HttpError, request

__all__ = ["NOTHING", "forgotten", "idle"]

NOTHING = Forgetting()
"""What an engine needs that keeps nothing between requests."""
AT_WORK = ("running", "waiting")
PATIENCE_S, PAUSE_S = 5.0, 0.1
"""A server that has just sent its last token may still be tidying up, and refuses until it is idle."""
TURN_S = 30.0
"""Until one's turn comes: a long prompt that is being read is read to its end. A restart takes as long."""
NOT_KNOWN = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})


async def forgotten(endpoint: Endpoint, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """Post ``calls`` in order; False where one of them is not done in time, or not known: then only a restart helps."""
    ends_s = time.monotonic() + PATIENCE_S
    for path, body in calls:
        while (status := await _posted(endpoint, path, body, ends_s=ends_s)) != HTTPStatus.OK:
            if status in NOT_KNOWN or time.monotonic() > ends_s:
                return False
            await asyncio.sleep(PAUSE_S)
    return True


async def idle(endpoint: Endpoint, names: Mapping[str, str], *, in_turn: bool = False) -> bool:
    """Wait until the engine works on nothing and nothing waits; False where it does not say so in time, or never does.

    An engine goes on for a while with requests whose client is gone: it looks after each step, or once a second.
    ``names`` as in ``Engine.metric_names``. An engine that answers ``in_turn`` says it with one short answer.
    """
    if in_turn and AT_WORK[0] not in names:
        short = {"model": endpoint.model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
        ends_s = time.monotonic() + TURN_S
        return await _posted(endpoint, f"{endpoint.base_path}/chat/completions", short, ends_s=ends_s) == HTTPStatus.OK
    watch = EngineWatch(endpoint=endpoint, names={word: names[word] for word in AT_WORK if word in names})
    ends_s = time.monotonic() + PATIENCE_S
    while (found := await watch.read()) is not None and AT_WORK[0] in found:
        if not any(found.values()):
            return True
        if time.monotonic() > ends_s:
            break
        await asyncio.sleep(PAUSE_S)
    return False


async def _posted(endpoint: Endpoint, path: str, body: Mapping[str, Any], *, ends_s: float) -> int | None:
    """The status of the answer, None where there was none."""
    left_s = max(ends_s - time.monotonic(), PAUSE_S)
    try:
        return (await request(endpoint, "POST", path, body=body, timeout_s=left_s)).status
    except HttpError:
        return None
