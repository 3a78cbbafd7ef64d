"""When an engine was at work on which request: what waits in its queue makes no progress, and is no part of a rate.

An engine that takes fewer requests at once than a load offers lets the others wait. How many it takes is read from the
answers: as many as were seen coming at the same moment. They are served in the order in which they began to come (that
of what is sent at one moment is the server's choice).
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from llmopt.records import Sample

__all__ = ["Service", "full_until", "places_seen", "services"]

TOGETHER_S = 0.05
"""What is sent within this time may have arrived in another order."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """The span in which the engine worked on one request, seconds on the client's clock."""

    start_s: float
    end_s: float

    def share(self, start_s: float, end_s: float) -> float:
        """The share of it that lies between two moments."""
        took_s = self.end_s - self.start_s
        if took_s <= 0:
            return 1.0 if start_s <= self.end_s <= end_s else 0.0
        return max(min(self.end_s, end_s) - max(self.start_s, start_s), 0.0) / took_s


def places_seen(samples: Sequence[Sample]) -> int:
    """The most answers that were seen coming (first to last token) at one moment; at least 1."""
    steps = [step for s in samples if s.ok and s.token_s for step in ((s.token_s[0], 1), (s.token_s[-1], -1))]
    most = now = 0
    for _, change in sorted(steps):  # of one moment the ends first: one may have made room for the other
        now += change
        most = max(most, now)
    return max(most, 1)


def services(samples: Sequence[Sample], places: int) -> list[Service]:
    """The service of each sample, in their order: from when it was sent, or when one of ``places`` was free for it.

    Of those that wait, the one whose first token came first had got the free one. What failed took no place.
    """
    found = {k: Service(start_s=s.sent_s, end_s=s.ended_s) for k, s in enumerate(samples) if not s.ok}
    coming = deque(sorted((k for k, s in enumerate(samples) if s.ok), key=lambda k: samples[k].sent_s))
    free_s = [-math.inf] * places
    waiting: list[tuple[float, int]] = []
    while coming or waiting:
        now_s = heapq.heappop(free_s)
        if not waiting:
            now_s = max(now_s, samples[coming[0]].sent_s)
        while coming and samples[coming[0]].sent_s <= now_s + TOGETHER_S:
            number = coming.popleft()
            heapq.heappush(waiting, ((samples[number].token_s or (samples[number].ended_s,))[0], number))
        first_s, number = heapq.heappop(waiting)
        sample = samples[number]
        found[number] = Service(start_s=min(max(now_s, sample.sent_s), first_s), end_s=sample.ended_s)
        heapq.heappush(free_s, sample.ended_s)
    return [found[number] for number in range(len(samples))]


def full_until(served: Sequence[Service], places: int) -> float:
    """When for the last time one of ``places`` services at once ended and no other took its place."""
    steps = [step for one in served for step in ((one.start_s, 1), (one.end_s, -1))]
    now, ended_s = 0, -math.inf
    for at_s, change in sorted(steps):  # of one moment the ends first, as above
        if now + change < places <= now:
            ended_s = at_s
        now += change
    return ended_s
