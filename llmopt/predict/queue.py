"""Waiting simulated, not regressed: requests over an engine's slots, prompts computed before new tokens."""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Service", "Waiting", "simulate_closed_loop", "simulate_open_loop"]


@dataclass(frozen=True, kw_only=True)
class Service:
    """An engine with ``slots``: it computes waiting prompts one after the other, each in ``prompt_s``.

    Between them it makes one token for every running sequence, in ``step_s`` of how many run.
    """

    slots: int
    output_tokens: int
    prompt_s: float
    step_s: Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What requests of the steady part of a simulated run saw."""

    ttft_p50_s: float
    ttft_p95_s: float
    answers_per_minute: float


def simulate_closed_loop(service: Service, *, streams: int, requests: int = 200) -> Waiting:
    """``streams`` clients that ask again as soon as they are answered. Deterministic: nothing is drawn at random."""
    return _simulate(service, [0.0] * streams, requests, again=True)


def simulate_open_loop(service: Service, *, rate: float, requests: int = 200, seed: int = 0) -> Waiting:
    """Requests that come at ``rate`` a second whatever the engine does, at times drawn once from ``seed`` (Poisson)."""
    source = random.Random(seed)
    now, arrivals = 0.0, []
    for _ in range(requests):
        now += source.expovariate(rate)
        arrivals.append(now)
    return _simulate(service, arrivals, requests, again=False)


def _simulate(service: Service, arrivals: list[float], requests: int, *, again: bool) -> Waiting:
    """Steps until ``requests`` are answered; clients that ask ``again`` found an empty engine at first: left out."""
    now = 0.0
    waiting = list(arrivals)
    heapq.heapify(waiting)
    running: list[int] = []
    first_token_s: list[float] = []
    ended: list[float] = []
    while len(ended) < requests:
        if waiting and not running:
            now = max(now, waiting[0])
        if waiting and len(running) < service.slots and waiting[0] <= now:
            asked = heapq.heappop(waiting)
            now += service.prompt_s
            first_token_s.append(now - asked)
            running.append(service.output_tokens - 1)
        now += service.step_s(max(1, len(running)))
        done = sum(left <= 1 for left in running)
        running = [left - 1 for left in running if left > 1]
        ended += [now] * done
        if again:
            for _ in range(done):
                heapq.heappush(waiting, now)
    skipped = len(arrivals) if again else 0
    steady = first_token_s[min(skipped, len(first_token_s) // 2) :]
    half = ended[len(ended) // 2 :]
    rate = (len(half) - 1) / (half[-1] - half[0]) if len(half) > 1 and half[-1] > half[0] else len(ended) / now
    return Waiting(
        ttft_p50_s=statistics.median(steady),
        ttft_p95_s=sorted(steady)[min(len(steady) - 1, round(0.95 * len(steady)))],
        answers_per_minute=60.0 * rate,
    )
