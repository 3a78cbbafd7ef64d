"""The measuring client: one streamed chat request → one stamped Sample, microseconds of our own in it.

The body is built before the clock starts, the stamp is taken in the read callback before parsing, and JSON is read
after the stream has ended. Connections are kept alive and reused, so that connecting is no part of an answer's time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from llmopt.errors import EngineError
from llmopt.measure.stream import TokenCounter, read_answer
from llmopt.records import Endpoint, InferenceParams, Request, Sample
from llmopt.runtime.clock import MonotonicClock
from llmopt.runtime.http import BODY_LIMIT, Connection, Exchange, HttpError, address, connect, request_head

__all__ = ["Client", "new_event_loop", "run"]

T = TypeVar("T")

BODY_FIELDS: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "min_p": ("min_p",),
    "repetition_penalty": ("repetition_penalty", "repeat_penalty"),
    "max_tokens": ("max_tokens",),
    "seed": ("seed",),
    "thinking_budget": ("thinking_token_budget", "thinking_budget_tokens"),
}
"""Our names → the names engines read. Where engines disagree all are sent; each ignores the other's."""
END_MARKER = b"[DONE]\n\n"


class Client:
    """Sends requests to one endpoint. An asynchronous context manager that owns its connections.

    ``timeout_s`` limits one whole answer (a server that never ends a stream becomes a failed sample). ``fields``
    replaces entries of BODY_FIELDS for an endpoint that refuses unknown names; an empty tuple leaves a setting out.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timeout_s: float = 600.0,
        connect_timeout_s: float = 10.0,
        count_tokens: TokenCounter | None = None,
        fields: Mapping[str, tuple[str, ...]] | None = None,
        body_limit: int = BODY_LIMIT,
    ) -> None:
        self.endpoint = endpoint
        self.count_tokens = count_tokens
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._fields = {**BODY_FIELDS, **(fields or {})}
        self._body_limit = body_limit
        self._path = f"{endpoint.base_path}/chat/completions"
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._clock = MonotonicClock()
        self._finished_events = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()
        self._idle.clear()
        await asyncio.sleep(0)  # let the loop see the closed sockets

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body of a request; ``Request.extra`` has the last word."""
        return {
            "model": self.endpoint.model,
            "messages": [dict(message) for message in request.messages],
            **_settings(request.params, self._fields),
            "stream": True,
            "stream_options": {"include_usage": True},
            **request.extra,
        }

    def prepare(self, request: Request) -> bytes:
        """All bytes of a request, ready to be written."""
        content = json.dumps(self.body(request), ensure_ascii=False, separators=(",", ":")).encode()
        return (
            request_head(self.endpoint, "POST", self._path, length=len(content), accept="text/event-stream") + content
        )

    async def warm_connections(self, number: int) -> None:
        """Open connections ahead, so that the first requests do not wait for them; raises HttpError."""
        while len(self._idle) < number:
            self._idle.append(await self._connect())

    async def exchange(self, payload: bytes) -> Exchange:
        """Send prepared bytes and return what came, unread. A connection the server closed while idle is replaced once.

        Raises HttpError only where no connection can be opened.
        """
        while True:
            reused = self._take_idle()
            connection = reused or await self._connect()
            try:
                exchange = await connection.exchange(payload, timeout_s=self._timeout_s, end_marker=END_MARKER)
            finally:
                self._put_back(connection)
            self._finished_events += len(exchange.chunks)
            if reused is None or exchange.failure != "closed_early" or exchange.answered:
                return exchange

    def events_seen(self) -> int:
        """Reads that brought part of an answer, of finished and running requests: progress without reading answers."""
        return self._finished_events + sum(connection.events_seen for connection in self._open)

    async def send(self, request: Request, *, planned_s: float | None = None) -> Sample:
        """Send one request and read its answer. Never raises for what server or network do: see ``Sample.error``."""
        payload = self.prepare(request)
        started_s = self._clock.now_s()
        try:
            exchange = await self.exchange(payload)
        except HttpError as error:
            return self.failed(request.item_id, error, started_s=started_s, planned_s=planned_s)
        return self.masked(
            read_answer(exchange, item_id=request.item_id, planned_s=planned_s, count_tokens=self.count_tokens)
        )

    def masked(self, sample: Sample) -> Sample:
        """The sample with our key taken out of its error, should the server have repeated it."""
        key = self.endpoint.api_key
        if not key or sample.error is None or key not in sample.error:
            return sample
        return replace(sample, error=sample.error.replace(key, "***"))

    def failed(self, item_id: str, error: HttpError, *, started_s: float, planned_s: float | None) -> Sample:
        """The sample of a request that found no connection."""
        planned = started_s if planned_s is None else planned_s
        now_s = self._clock.now_s()
        return Sample(item_id=item_id, planned_s=planned, sent_s=started_s, ended_s=now_s, error=error.kind)

    async def check(self, request: Request) -> Sample:
        """Send one request that has to work; raises EngineError with one clear sentence where it does not."""
        started_s = self._clock.now_s()
        exchange = await self.exchange(self.prepare(request))
        sample = self.masked(read_answer(exchange, item_id=request.item_id, count_tokens=self.count_tokens))
        if sample.error is not None:
            raise self.explain(sample.error, seconds=self._clock.now_s() - started_s)
        return sample

    def explain(self, error: str, *, seconds: float | None = None) -> EngineError:
        """The error to show a person for a failed sample."""
        where = address(self.endpoint)
        kind, _, message = error.partition(": ")
        status = int(kind.removeprefix("http_")) if kind.startswith("http_") else 0
        if status in {401, 403}:
            return HttpError("wrong_key", where=where, status=status)
        if status == 404:  # noqa: PLR2004 - Not Found: the path or the model
            return EngineError("measure.wrong_model", where=where, model=self.endpoint.model, message=message)
        if kind in {"refused", "timed_out", "closed_early", "not_http", "too_large"}:
            limit_s = self._timeout_s if seconds is None else seconds
            return HttpError(kind, where=where, seconds=round(limit_s, 1), limit_mb=self._body_limit >> 20)
        return EngineError("measure.request_failed", where=where, message=error)

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            self._open.discard(connection)
        return None

    async def _connect(self) -> Connection:
        connection = await connect(self.endpoint, timeout_s=self._connect_timeout_s, body_limit=self._body_limit)
        self._open.add(connection)
        return connection

    def _put_back(self, connection: Connection) -> None:
        if connection.usable:
            self._idle.append(connection)
        else:
            self._open.discard(connection)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The loop of uvloop where it is installed (not on Windows), else asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - optional by platform
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run(main: Coroutine[Any, Any, T], *, loop_factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop) -> T:
    """Run ``main`` on the fastest loop there is; for scripts and commands that only measure."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


def _settings(params: InferenceParams, fields: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    given = params.given()
    body: dict[str, Any] = {name: value for key, value in given.items() for name in fields.get(key, ())}
    template: dict[str, Any] = {}
    if params.thinking is not None:
        template["enable_thinking"] = params.thinking
    if params.thinking_budget is not None:
        template["thinking_budget"] = params.thinking_budget
    if template:
        body["chat_template_kwargs"] = template
    return body
