"""Makes a running engine forget what it was asked, so that the next trial on it cannot profit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from llmopt.engines.base import Forgetting
from llmopt.records import Endpoint
from llmopt.runtime.http import HttpError, request

__all__ = ["NOTHING", "forgotten"]

NOTHING = Forgetting()
"""What an engine needs that keeps nothing between requests."""
PATIENCE_S, PAUSE_S = 5.0, 0.1
"""A server that has just sent its last token may still be tidying up, and refuses until it is idle."""


async def forgotten(endpoint: Endpoint, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """Post ``calls`` in order; False where one of them is not done in time, or not known: then only a restart helps."""
    ends_s = time.monotonic() + PATIENCE_S
    for path, body in calls:
        while not await _done(endpoint, path, body, ends_s=ends_s):
            if time.monotonic() > ends_s:
                return False
            await asyncio.sleep(PAUSE_S)
    return True


async def _done(endpoint: Endpoint, path: str, body: Mapping[str, Any], *, ends_s: float) -> bool:
    left_s = max(ends_s - time.monotonic(), PAUSE_S)
    try:
        response = await request(endpoint, "POST", path, body=body, timeout_s=left_s)
    except HttpError:
        return False
    return response.status == 200  # noqa: PLR2004 - OK
