"""The fake engine's HTTP/1.1 server: requests in, JSON or server-sent events out, stamped where asked. Asyncio only."""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmopt.workers.fake_scenario import Scenario
else:  # started by path and isolated: the folder of this script is not on the search path
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from fake_scenario import Scenario

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    411: "Length Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
OPEN_PATHS = ("/health", "/v1/health")
"""Answered without the key, as real engines do."""
DRIP_BYTES = 3
DRIP_S = 0.002


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """One request, read completely."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    received_ns: int = 0
    """When its last bytes came, on the monotonic clock: by the kernel's stamp where there is one, else the read's."""

    def json(self) -> Any:
        """The body as JSON; an empty object where it is not."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            return {}


Handler = Callable[[HttpRequest, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client: requests are read as they come and answered one after the other."""

    def __init__(self, handler: Handler, key: str | None) -> None:
        self._handler = handler
        self._key = key
        self._buffer = b""
        self._read_ns = 0
        self._busy: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; nothing is sent before a request came."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the Protocol's signature
        """A client that leaves cancels its request."""
        self.closed = True
        if self._busy is not None:
            self._busy.cancel()

    def data_received(self, data: bytes) -> None:
        """Collect bytes until a request is whole."""
        self.arrived(data, time.monotonic_ns())

    def arrived(self, data: bytes, at_ns: int) -> None:
        """The same for bytes that came at ``at_ns``."""
        self._read_ns = at_ns
        self._buffer += data
        self._next()

    def _next(self) -> None:
        if self._busy is not None or b"\r\n\r\n" not in self._buffer:
            return
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if "transfer-encoding" in headers:
            self.respond(411, {"error": {"message": "send Content-Length"}})
            self.close()
            return
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, _, target = lines[0].partition(" ")
        path = target.partition(" ")[0].partition("?")[0]
        request = HttpRequest(method=method, path=path, headers=headers, body=rest[:length], received_ns=self._read_ns)
        self._busy = asyncio.get_running_loop().create_task(self._answer(request), name="fake-request")
        self._busy.add_done_callback(self._done)

    def _done(self, _: asyncio.Task[None]) -> None:
        self._busy = None
        self._next()

    async def _answer(self, request: HttpRequest) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._key and request.path not in OPEN_PATHS and not hmac.compare_digest(given.encode(), self._key.encode()):
            self.respond(401, {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}})
            return
        await self._handler(request, self)

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        if self.transport is not None and not self.closed:
            self.transport.write(data)

    def close(self) -> None:
        """Close after what was written."""
        if self.transport is not None:
            self.transport.close()

    def respond(self, status: int, body: Any, *, content_type: str = "application/json", **headers: str) -> None:
        """Send a whole response; ``body`` is text, or anything JSON can say."""
        data = (body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)).encode()
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Other')}\r\nContent-Type: {content_type}\r\n{more}"
        self.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
STREAM_TAIL = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """``data`` as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(payload: Any, newline: str = "\n") -> bytes:
    """One server-sent event."""
    text = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    return f"data: {text}{newline}{newline}".encode()


@dataclass(kw_only=True)
class Stream:
    """One streamed answer, with the oddities a scenario asks for from token ``stream_at`` on."""

    connection: Connection
    scenario: Scenario
    shell: dict[str, Any]
    """What every chunk of this answer carries: id, model, object."""
    chat: bool = True
    sent: int = 0
    stamps: list[int] = field(default_factory=list)
    broken: bool = False

    def has(self, oddity: str) -> bool:
        """Whether the oddity applies now."""
        return oddity in self.scenario.stream and self.sent + 1 >= self.scenario.stream_at

    def begin(self) -> None:
        """The head and, for a chat, the event that only names the role."""
        self.connection.write(STREAM_HEAD)
        if self.chat:
            self._send(self._choice({"role": "assistant", "content": None}))

    def _choice(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        one = {"delta": delta} if self.chat else {"text": delta.get("content") or ""}
        return {**self.shell, "choices": [{"index": 0, **one, "finish_reason": finish}]}

    def _send(self, payload: Any) -> None:
        self.connection.write(chunk(event(payload, "\r\n" if "crlf" in self.scenario.stream else "\n")))

    async def token(self, text: str) -> None:
        """Send one token the way the scenario has it."""
        if self.broken:
            return
        if self.has("comments"):
            self.connection.write(chunk(b": ping\n\n"))
        if self.has("empty_deltas"):
            self._send(self._choice({"content": ""}))
        if self.has("malformed") and self.sent + 1 == self.scenario.stream_at:
            self.connection.write(chunk(b'data: {"choices": [{"delta": {"content": "bro\n\n'))
        name = "reasoning_content" if "reasoning" in self.scenario.stream and not self.has("reasoning") else "content"
        data = event(self._choice({name: text}), "\r\n" if "crlf" in self.scenario.stream else "\n")
        self.sent += 1
        if self.has("glued"):
            self.connection.write(chunk(data + event(self._choice({"content": ""}))))
        elif self.has("slow_drip"):
            await self._drip(data)
        elif self.has("split_utf8") and max(data) >= 0x80:  # noqa: PLR2004 - the first byte beyond ASCII
            await self._split(data)
        else:
            self.connection.write(chunk(data))
        if self.sent == self.scenario.stream_at:
            self._maybe_break()

    async def _drip(self, data: bytes) -> None:
        for start in range(0, len(data), DRIP_BYTES):
            self.connection.write(chunk(data[start : start + DRIP_BYTES]))
            await asyncio.sleep(DRIP_S)

    async def _split(self, data: bytes) -> None:
        middle = next(index for index, byte in enumerate(data) if byte >= 0x80) + 1  # noqa: PLR2004
        self.connection.write(chunk(data[:middle]))
        await asyncio.sleep(DRIP_S)
        self.connection.write(chunk(data[middle:]))

    def _maybe_break(self) -> None:
        if "early_eof" in self.scenario.stream:
            self.broken = True
            self.connection.close()
        elif "error_event" in self.scenario.stream:
            self.broken = True
            self._send({"error": {"message": "the engine lost its context", "type": "server_error", "code": 500}})
            self.connection.write(STREAM_TAIL)

    async def end(self, finish: str, usage: dict[str, Any] | None) -> None:
        """The finishing event, usage, ``[DONE]`` and the end of the response, as far as the scenario has them."""
        if self.broken:
            return
        self._send(self._choice({}, finish))
        if usage is not None and "no_usage" not in self.scenario.stream:
            self._send({**self.shell, "choices": [], "usage": usage})
        if "endless" in self.scenario.stream:
            await asyncio.get_running_loop().create_future()
        if "no_done" not in self.scenario.stream:
            self._send("[DONE]")
        self.connection.write(STREAM_TAIL)
