"""Waiting simulated, not regressed: a closed loop of streams over an engine's slots, prompts before new tokens."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Waiting", "simulate_closed_loop"]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What requests of the steady part of a simulated run saw."""

    ttft_p50_s: float
    ttft_p95_s: float
    answers_per_minute: float


def simulate_closed_loop(
    *,
    streams: int,
    slots: int,
    output_tokens: int,
    prompt_s: float,
    step_s: Callable[[int], float],
    requests: int = 200,
) -> Waiting:
    """``streams`` clients that ask again as soon as they are answered, over an engine with ``slots``.

    The engine computes waiting prompts one after the other (each takes ``prompt_s``), and between them one token for
    every running sequence (``step_s`` of how many run). Deterministic: nothing is drawn at random.
    """
    now = 0.0
    waiting: list[tuple[float, int]] = [(0.0, client) for client in range(streams)]
    heapq.heapify(waiting)
    running: dict[int, int] = {}
    first_token_s: list[float] = []
    finished = 0
    began: list[float] = []
    while finished < requests:
        if waiting and len(running) < slots:
            asked, client = heapq.heappop(waiting)
            now += prompt_s
            first_token_s.append(now - asked)
            running[client] = output_tokens - 1
        now += step_s(max(1, len(running)))
        for client in [client for client, left in running.items() if left <= 1]:
            del running[client]
            finished += 1
            began.append(now)
            heapq.heappush(waiting, (now, client))
        for client in running:
            running[client] -= 1
    steady = first_token_s[min(streams, len(first_token_s) // 2) :]
    half = began[len(began) // 2 :]
    rate = (len(half) - 1) / (half[-1] - half[0]) if len(half) > 1 and half[-1] > half[0] else finished / now
    return Waiting(
        ttft_p50_s=statistics.median(steady),
        ttft_p95_s=sorted(steady)[min(len(steady) - 1, round(0.95 * len(steady)))],
        answers_per_minute=60.0 * rate,
    )
