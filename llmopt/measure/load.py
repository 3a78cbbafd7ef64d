"""Driving a workload: N streams in a closed loop, or an open loop by an absolute schedule.

Answers are read (JSON and all) between the stamps of others, in slices, so that reading never delays a stamp by more
than a fraction of a millisecond. Whatever fails is a sample with an error; what our own end cuts off is only counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from llmopt.errors import UsageError
from llmopt.measure.arrivals import arrival_times
from llmopt.measure.client import Client
from llmopt.measure.stream import reading
from llmopt.records import Load, Request, Sample
from llmopt.runtime.clock import Clock, MonotonicClock
from llmopt.runtime.http import Exchange, HttpError

__all__ = ["ClientHealth", "LoadRun", "OnSample", "SharedPrefix", "disjoint", "drive", "parse_shared_prefix"]

OnSample = Callable[[Sample], None]

LAG_PERIOD_S = 0.02
COLLECT_AFTER = 20_000
"""Objects between two young collections: under a millisecond of walking, some thousand events apart."""
SPARE = 2
"""Connections an open loop keeps ready: opening one takes longer than a start may be late."""
_PREFIX_WORDS = ("the", "answer", "must", "be", "short", "and", "right", ".")
UNREACHABLE = frozenset({"refused", "unknown_host", "unreachable", "tls"})


@dataclass(frozen=True, kw_only=True)
class ClientHealth:
    """How the measuring process itself fared: loop lag at p99 and worst, and its share of one core."""

    lag_p99_s: float
    lag_max_s: float
    cpu_share: float


@dataclass(frozen=True, kw_only=True)
class LoadRun:
    """All samples of one load, in the order they ended, and the span in which it was at its target.

    The window of a closed loop is the span in which every stream was busy; that of an open loop ends with the last
    planned start (what was sent is awaited and counted, the waiting is no part of the window).
    """

    load: Load
    samples: tuple[Sample, ...]
    started_s: float
    ended_s: float
    window_start_s: float
    window_end_s: float
    health: ClientHealth
    cut: int = 0
    """Requests that our own end cut off; neither answers nor failures."""
    gave_up: str | None = None
    """Why no further requests were sent (the endpoint is gone)."""
    held_s: float = 0.0
    """How long no request was sent because there was no leave to."""

    @property
    def window_s(self) -> float:
        """Length of the window."""
        return max(self.window_end_s - self.window_start_s, 0.0)


async def drive(
    client: Client,
    requests: Iterable[Request],
    load: Load,
    *,
    clock: Clock | None = None,
    on_sample: OnSample | None = None,
    stop: asyncio.Event | None = None,
    go: asyncio.Event | None = None,
    deadline_s: float | None = None,
) -> LoadRun:
    """Send ``requests`` under ``load`` and return what came.

    Ends when all are answered, when ``stop`` is set, or at ``deadline_s`` of ``clock``; the latter two cut off what
    is in flight. ``requests`` may be endless in a closed loop with one of them. ``on_sample`` sees each sample soon
    after it ended. While ``go`` is not set no further request is sent; how long is told with the run. Open loops take
    their schedule from ``load`` alone.
    """
    clock = clock or MonotonicClock()
    driver = _Driver(client, load, clock, on_sample, go)
    work = driver.open_loop(list(requests)) if load.is_open else driver.closed_loop(requests)
    with _quiet_collector():
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(driver.read_answers(), name="read answers")
                watch = group.create_task(driver.watch_loop(), name="watch the loop")
                sender = group.create_task(work, name="send requests")
                await _until(sender, stop, None if deadline_s is None else deadline_s - clock.now_s())
                driver.stop_reading()
                await reader
                watch.cancel()
        except ExceptionGroup as errors:
            raise _first(errors) from None
    return driver.result()


@dataclass(frozen=True, kw_only=True)
class SharedPrefix:
    """A text of about ``tokens`` tokens before every prompt, in ``groups`` versions taken in turn (prefix caching)."""

    tokens: int
    groups: int = 1

    def text(self, group: int) -> str:
        """The text of one version: short common words, about one token each, that differ from the very first."""
        words = (f"{group}", *itertools.islice(itertools.cycle(_PREFIX_WORDS), self.tokens - 1))
        return " ".join(words)

    def before(self, requests: Sequence[Request]) -> tuple[Request, ...]:
        """The requests with it; it joins a system message that is there already."""
        return tuple(self._before(request, k % self.groups) for k, request in enumerate(requests))

    def _before(self, request: Request, group: int) -> Request:
        first, *others = request.messages
        text, rest = self.text(group), [first, *others]
        if first["role"] == "system":
            text, rest = f"{text}\n\n{first['content']}", others
        return replace(request, messages=({"role": "system", "content": text}, *rest))


def parse_shared_prefix(text: str) -> SharedPrefix:
    """Read ``TOKENS`` or ``TOKENS:GROUPS``; raises UsageError."""
    tokens, colon, groups = text.partition(":")
    try:
        found = SharedPrefix(tokens=int(tokens), groups=int(groups) if colon else 1)
    except ValueError:
        raise UsageError("measure.shared_prefix", value=text) from None
    if found.tokens < 1 or found.groups < 1:
        raise UsageError("measure.shared_prefix", value=text)
    return found


def disjoint(requests: Iterable[Request], *, tag: str = "warm-up") -> Iterator[Request]:
    """The requests over and over, no two with a common beginning: for warming up without filling a prefix cache."""
    for number, request in enumerate(itertools.cycle(requests)):
        mark = {"role": "system", "content": f"{number} {tag}"}
        yield replace(request, item_id=f"{tag}-{number}", messages=(mark, *request.messages))


class _Driver:
    """One load under way."""

    def __init__(
        self, client: Client, load: Load, clock: Clock, on_sample: OnSample | None, go: asyncio.Event | None
    ) -> None:
        self.client = client
        self.load = load
        self.clock = clock
        self.on_sample = on_sample
        self.go = go
        self.held_s = self.held_until_s = 0.0
        self.samples: list[Sample] = []
        self.lags: list[float] = []
        self.cut = 0
        self.cut_from_s = math.inf
        self.gave_up: str | None = None
        self.unreachable_in_a_row = 0
        self.started_s = clock.now_s()
        self.cpu_s = time.process_time()
        self.window_start_s = self.started_s
        self.window_end_s: float | None = None
        self._unread: asyncio.Queue[tuple[Exchange, str, float] | Sample | None] = asyncio.Queue()

    @property
    def streams(self) -> int:
        """Streams of a closed loop."""
        return max(self.load.streams or 1, 1)

    async def closed_loop(self, requests: Iterable[Request]) -> None:
        """Every stream takes the next request as soon as its last one is answered."""
        work: Iterator[tuple[Request, bytes]] = ((request, self.client.prepare(request)) for request in requests)
        if isinstance(requests, Sequence):  # rendered ahead, so that rendering delays no other stream
            work = iter(list(work))
        with contextlib.suppress(HttpError):  # nobody there: the first requests will say so
            await self.client.warm_connections(self.streams)
        await self._begin()
        self.started_s = self.window_start_s = self.clock.now_s()
        self.cpu_s = time.process_time()
        async with asyncio.TaskGroup() as group:
            for number in range(self.streams):
                group.create_task(self._stream(work), name=f"stream {number}")

    async def _stream(self, work: Iterator[tuple[Request, bytes]]) -> None:
        worked = False
        for request, payload in work:
            await self._leave()
            if self.gave_up:
                break
            await self._one(request.item_id, payload, self.clock.now_s())
            worked = True
        if self.window_end_s is None and worked:
            self.window_end_s = self.clock.now_s()

    async def open_loop(self, requests: Sequence[Request]) -> None:
        """Start each request at its planned time, whatever became of the others."""
        payloads = [self.client.prepare(request) for request in requests]
        due_s = arrival_times(self.load, len(requests))
        await self._open_spare()
        await self._begin()
        self.started_s = self.window_start_s = self.clock.now_s()
        self.cpu_s = time.process_time()
        async with asyncio.TaskGroup() as group:
            opening: asyncio.Task[None] | None = None
            for request, payload, offset_s in zip(requests, payloads, due_s, strict=True):
                if opening is None or opening.done():  # while there is time, so that no start waits for it
                    opening = group.create_task(self._open_spare(), name="open spare connections")
                planned_s = self.started_s + offset_s
                while (left_s := planned_s - self.clock.now_s()) > 0:  # noqa: ASYNC110 - timers may fire early
                    await asyncio.sleep(left_s)
                await self._leave()
                if self.gave_up:
                    break
                group.create_task(self._one(request.item_id, payload, planned_s), name=f"request {request.item_id}")
                self.window_end_s = planned_s
            if opening is not None:
                opening.cancel()

    async def _open_spare(self) -> None:
        """Have connections ready for the next requests of an open loop."""
        with contextlib.suppress(HttpError):  # nobody there: the requests will say so
            await self.client.warm_connections(SPARE)

    async def _begin(self) -> None:
        """Wait for leave before anything is sent: what is not under way is not held back."""
        if self.go is not None:
            await self.go.wait()

    async def _leave(self) -> None:
        """Wait while no further load may be issued; streams that wait at once count once."""
        if self.go is None or self.go.is_set():
            return
        began_s = max(self.clock.now_s(), self.held_until_s)
        await self.go.wait()
        self.held_until_s = self.clock.now_s()
        self.held_s += max(0.0, self.held_until_s - began_s)

    async def _one(self, item_id: str, payload: bytes, planned_s: float) -> None:
        started_s = self.clock.now_s()
        try:
            exchange = await self.client.exchange(payload)
        except asyncio.CancelledError:
            self.cut += 1
            self.cut_from_s = min(self.cut_from_s, started_s)
            raise
        except HttpError as error:
            self._unread.put_nowait(self.client.failed(item_id, error, started_s=started_s, planned_s=planned_s))
            self._count_unreachable(error.kind)
            return
        self.unreachable_in_a_row = 0
        self._unread.put_nowait((exchange, item_id, planned_s))

    def _count_unreachable(self, kind: str) -> None:
        """An endpoint that is gone answers no later request either: stop sending instead of failing for ever."""
        self.unreachable_in_a_row += kind in UNREACHABLE
        if self.unreachable_in_a_row >= 2 * self.streams + 8:
            self.gave_up = kind

    def stop_reading(self) -> None:
        """Nothing more will come."""
        self._unread.put_nowait(None)

    async def read_answers(self) -> None:
        """Turn exchanges into samples while others are being stamped."""
        while (found := await self._unread.get()) is not None:
            if isinstance(found, Sample):
                sample = found
            else:
                exchange, item_id, planned_s = found
                sample = self.client.masked(await self._read(exchange, item_id, planned_s))
            self.samples.append(sample)
            if self.on_sample is not None:
                self.on_sample(sample)

    async def _read(self, exchange: Exchange, item_id: str, planned_s: float) -> Sample:
        steps = reading(exchange, item_id=item_id, planned_s=planned_s, count_tokens=self.client.count_tokens)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            await asyncio.sleep(0)

    async def watch_loop(self) -> None:
        """Note how late a sleeping task is woken: what delays it delays stamps."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_PERIOD_S)
            self.lags.append(max(time.monotonic() - before - LAG_PERIOD_S, 0.0))

    def result(self) -> LoadRun:
        """The finished run."""
        ended_s = self.clock.now_s()
        lags = sorted(self.lags) or [0.0]
        last_s = max((sample.ended_s for sample in self.samples), default=ended_s)
        # before the first start that was cut off, everything in flight was seen to its end
        target_end_s = last_s if self.window_end_s is None else min(self.window_end_s, last_s)
        health = ClientHealth(
            lag_p99_s=lags[int(0.99 * (len(lags) - 1))],
            lag_max_s=lags[-1],
            cpu_share=(time.process_time() - self.cpu_s) / max(ended_s - self.started_s, 1e-9),
        )
        return LoadRun(
            load=self.load,
            samples=tuple(self.samples),
            started_s=self.started_s,
            ended_s=last_s,
            window_start_s=self.window_start_s,
            window_end_s=max(min(target_end_s, self.cut_from_s), self.window_start_s),
            health=health,
            cut=self.cut,
            gave_up=self.gave_up,
            held_s=self.held_s,
        )


async def _until(sender: asyncio.Task[None], stop: asyncio.Event | None, seconds: float | None) -> None:
    """Wait for the sender, the stop event or the deadline; end the sender where it is not the first."""
    stopped = asyncio.ensure_future(_wait_for(stop))
    try:
        await asyncio.wait({sender, stopped}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        sender.cancel()
    await asyncio.wait({sender})  # what it raised, its group raises


async def _wait_for(stop: asyncio.Event | None) -> None:
    await (stop or asyncio.Event()).wait()


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    """The failure that cancelled the rest."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


@contextlib.contextmanager
def _quiet_collector() -> Iterator[None]:
    """Keep the garbage collector from walking what was there before, and from walking what comes all the time.

    Its pauses would be in the stamps; what an answer allocates is nearly all kept, so there is little to find.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
