"""Waiting for what another process does: nobody tells us of it, so it is looked at again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE_S = 0.01
"""Between two looks: a test that never pauses takes the core from the process it waits for."""


def until(condition: Callable[[], bool], patience_s: float) -> bool:
    """Return once ``condition`` holds, or after ``patience_s`` with False."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_S)
    return True
