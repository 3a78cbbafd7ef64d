"""What the engine says about itself while it is measured: queue, running requests, KV use, prefix-cache hits.

Read from its Prometheus page by the names of ``Engine.metric_names``. Counters become increases, gauges mean and peak.
"""

from __future__ import annotations

import asyncio
import re
import statistics
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from llmopt.records import Endpoint, Estimate
from llmopt.runtime.http import HttpError, request

__all__ = ["EngineWatch", "parse_metrics"]

PERIOD_S = 1.0
FIRST = 0.25
"""The first reading under load comes after this share of a period, so that a short pass has one."""
TIMEOUT_S = 5.0
COUNTERS = frozenset({
    "prompt_tokens", "generation_tokens", "cached_tokens", "prefix_hits", "prefix_queries", "preemptions",
    "decode_steps", "requests", "draft_tokens", "accepted_tokens",
})  # fmt: skip
"""Our words for values that only grow; all others are gauges."""
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})?\s+([-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?|Inf|NaN))")


def parse_metrics(text: str, wanted: Container[str]) -> dict[str, float]:
    """Sum over label sets of each ``wanted`` metric of a Prometheus text page; other lines are skipped unread.

    Pages have thousands of lines and are read while streams are being stamped.
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition(" ")[0].partition("{")[0]
        match = _LINE.match(line) if name in wanted else None
        if match is not None:
            found[name] = found.get(name, 0.0) + float(match[2])
    return found


@dataclass(kw_only=True)
class EngineWatch:
    """Reads an engine's metrics once a second; ``async with`` around the load. Never raises for what it cannot read.

    Counters are read before and after the load. Gauges are only what was read meanwhile: an engine that waits for its
    first request, or has answered its last, would halve the mean of a short pass.
    """

    endpoint: Endpoint
    names: Mapping[str, str]
    path: str = "/metrics"
    period_s: float = PERIOD_S
    readings: list[dict[str, float]] = field(default_factory=list)
    """All of them, in order."""
    meanwhile: list[dict[str, float]] = field(default_factory=list)
    """Those under load."""
    _task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._wanted = frozenset(self.names.values())

    async def __aenter__(self) -> Self:
        await self.read()
        self._task = asyncio.ensure_future(self._keep_reading())
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.read()

    async def read(self, *, meanwhile: bool = False) -> dict[str, float] | None:
        """One reading, kept; an engine without metrics leaves none."""
        if not self.names:
            return None
        try:
            response = await request(self.endpoint, "GET", self.path, timeout_s=TIMEOUT_S)
        except HttpError:
            return None
        if response.status != 200:  # noqa: PLR2004 - OK
            return None
        page = parse_metrics(response.body.decode("utf-8", "replace"), self._wanted)
        found = {word: page[name] for word, name in self.names.items() if name in page}
        self.readings.append(found)
        if meanwhile:
            self.meanwhile.append(found)
        return found

    def estimates(self) -> dict[str, Estimate]:
        """``engine_NAME`` (increase of a counter), ``engine_NAME_mean`` and ``engine_NAME_max`` (gauges)."""
        return dict(self._estimates())

    def _estimates(self) -> Iterator[tuple[str, Estimate]]:
        words = {word for reading in self.readings for word in reading}
        for word in sorted(words):
            readings = self.readings if word in COUNTERS else self.meanwhile
            values = [reading[word] for reading in readings if word in reading]
            n = len(values)
            if word in COUNTERS:
                if n > 1:
                    yield f"engine_{word}", Estimate(value=values[-1] - values[0], unit="count", n=n, method="counter")
            elif values:
                method = f"read every {self.period_s} s under load"
                yield f"engine_{word}_mean", Estimate(value=statistics.fmean(values), unit="gauge", n=n, method=method)
                yield f"engine_{word}_max", Estimate(value=max(values), unit="gauge", n=n, method="largest reading")
        yield from self._hit_share()

    def _hit_share(self) -> Iterator[tuple[str, Estimate]]:
        """Prefix-cache hits as a share of what was asked of it, where the engine counts both."""
        for hits, asked in (("prefix_hits", "prefix_queries"), ("cached_tokens", "prompt_tokens")):
            both = [r for r in self.readings if hits in r and asked in r]
            if len(both) > 1 and both[-1][asked] > both[0][asked]:
                share = (both[-1][hits] - both[0][hits]) / (both[-1][asked] - both[0][asked])
                yield "engine_prefix_hit_share", Estimate(value=share, unit="share", n=len(both), method="counters")
                return

    async def _keep_reading(self) -> None:
        await asyncio.sleep(FIRST * self.period_s)
        while True:
            await self.read(meanwhile=True)
            await asyncio.sleep(self.period_s)
