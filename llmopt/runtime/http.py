"""HTTP/1.1 to an engine, over a Unix socket, TCP or TLS: one-shot requests, and the measuring client's connection.

Every body chunk is stamped before it is parsed, by the kernel's note of its arrival where there is one (``arrivals``),
so our own work never counts as the engine's.
Redirects are not followed, compressed answers are not asked for, and sizes are limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import httptools

from llmopt.errors import EngineError
from llmopt.records import Endpoint
from llmopt.runtime.arrivals import AVAILABLE, connect_stamped

__all__ = [
    "Connection",
    "Exchange",
    "HttpError",
    "Response",
    "address",
    "base_url",
    "connect",
    "request",
    "request_head",
]

BODY_LIMIT = 64 << 20
"""Bytes of one answer; the longest honest answer is far below it, an endless one is not."""
HEADER_LIMIT = 64 << 10
END_GRACE_S = 0.5
UNAUTHORIZED = (401, 403)


class HttpError(EngineError):
    """An endpoint could not be talked to.

    ``kind`` is refused, unknown_host, unreachable, timed_out, tls, wrong_key, closed_early, not_http, too_large
    or not_json.
    """

    def __init__(self, kind: str, /, **values: Any) -> None:
        super().__init__(f"measure.{kind}", **values)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class Response:
    """A complete answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON; raises HttpError ``not_json``."""
        try:
            return json.loads(self.body)
        except ValueError:
            start = self.body[:80].decode("utf-8", "replace")
            raise HttpError("not_json", status=self.status, start=start) from None


@dataclass(slots=True, eq=False)
class Exchange:
    """One request in flight and what came back, as it came: ``chunks`` are (monotonic ns, body bytes)."""

    sent_ns: int = 0
    ended_ns: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    failure: str | None = None
    """The kind of HttpError that ended it, None where the answer is complete."""

    @property
    def answered(self) -> bool:
        """Whether the server said anything at all."""
        return self.status > 0


def address(endpoint: Endpoint) -> str:
    """The endpoint as a person would write it; never the key."""
    if endpoint.socket_path:
        return f"unix:{endpoint.socket_path}"
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{'https' if endpoint.tls else 'http'}://{host}:{_port(endpoint)}"


def base_url(endpoint: Endpoint) -> str:
    """The address as ``--url`` takes it: with the path that every request begins with."""
    if endpoint.socket_path:
        return f"unix://{endpoint.socket_path}"
    return f"{address(endpoint)}{endpoint.base_path}"


def request_head(endpoint: Endpoint, method: str, path: str, *, length: int, accept: str = "application/json") -> bytes:
    """The bytes of a request up to its body; ``path`` is absolute, the bearer key is added."""
    host = "localhost" if endpoint.socket_path else address(endpoint).partition("://")[2]
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Accept: {accept}", "Accept-Encoding: identity"]
    if endpoint.api_key:
        lines.append(f"Authorization: Bearer {endpoint.api_key}")
    if length:
        lines.append("Content-Type: application/json")
    if length or method not in {"GET", "HEAD"}:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Connection(asyncio.Protocol):
    """One keep-alive connection, one exchange at a time. Made by ``connect``; the maker closes it."""

    def __init__(self, *, body_limit: int = BODY_LIMIT) -> None:
        self._body_limit = body_limit
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._descriptor: int | None = None
        self._exchange: Exchange | None = None
        self._done: asyncio.Future[None] | None = None
        self._now_ns = 0
        self._received = 0
        self._framed = False
        self._headers_complete = False
        self._reusable = True
        self._end_marker: bytes | None = None
        self._grace: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._reusable and self._exchange is None and self._transport is not None

    @property
    def events_seen(self) -> int:
        """Body chunks of the exchange in flight."""
        return len(self._exchange.chunks) if self._exchange is not None else 0

    async def exchange(self, payload: bytes, *, timeout_s: float, end_marker: bytes | None = None) -> Exchange:
        """Send ``payload`` (head and body) and wait for the whole answer; never raises for what the server does.

        After a read that ends with ``end_marker`` the server has a moment to end its answer, then we do.
        """
        transport = self._transport
        if transport is None or self._exchange is not None:
            raise RuntimeError("the connection is closed or busy")
        loop = asyncio.get_running_loop()
        exchange = self._exchange = Exchange()
        done = self._done = loop.create_future()
        self._received, self._framed, self._headers_complete = 0, False, False
        self._end_marker = end_marker
        alarm = loop.call_later(timeout_s, self._fail, "timed_out")
        exchange.sent_ns = self._now_ns = time.monotonic_ns()
        self._write(transport, payload)
        try:
            await done
        finally:
            alarm.cancel()
            if self._grace is not None:
                self._grace.cancel()
                self._grace = None
            if self._exchange is not None:  # cancelled: the rest of this answer must not meet the next request
                self._exchange = None
                self.close()
        return exchange

    def _write(self, transport: asyncio.Transport, payload: bytes) -> None:
        """Write now. A loop may keep writes until its turn ends (uvloop does), which would be counted as the server's.

        Nothing is pending when a request starts, so the order of bytes is safe.
        """
        written = 0
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # full or broken: the transport deals with it
                written = os.write(self._descriptor, payload)
        if written < len(payload):
            transport.write(payload[written:])

    def close(self) -> None:
        """Close at once; safe to repeat."""
        self._reusable = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast("asyncio.Transport", transport)
        connection = transport.get_extra_info("socket")
        if os.name == "posix" and connection is not None and transport.get_extra_info("sslcontext") is None:
            self._descriptor = connection.fileno()

    def data_received(self, data: bytes) -> None:
        """Stamp first, then parse."""
        self.arrived(data, time.monotonic_ns())

    def arrived(self, data: bytes, at_ns: int) -> None:
        """Take bytes that came at ``at_ns``; stamps never go back, whatever the wall clock does meanwhile."""
        self._now_ns = max(at_ns, self._now_ns)
        if self._exchange is None:  # bytes nobody asked for: the connection cannot be trusted with another request
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("not_http")

    def eof_received(self) -> bool:
        """The server closed its side; we close ours."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Complete an answer that is delimited by closing, fail any other that was under way."""
        self._transport = self._descriptor = None
        self._reusable = False
        self._now_ns = time.monotonic_ns()
        if self._headers_complete and not self._framed and exc is None:
            self._finish()
        else:
            self._fail("closed_early")

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep headers in lower case; refuse an endless header section."""
        if self._exchange is None:
            return
        self._received += len(name) + len(value)
        if self._received > HEADER_LIMIT:
            self._fail("too_large")
            return
        self._exchange.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take the status; an interim (1xx) answer is dropped when it completes."""
        if self._exchange is None:
            return
        self._exchange.status = self._parser.get_status_code()
        headers = self._exchange.headers
        self._framed = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
        self._headers_complete = True
        self._received = 0

    def on_body(self, body: bytes) -> None:
        """Keep the bytes with the stamp of the read that brought them."""
        exchange = self._exchange
        if exchange is None:
            return
        self._received += len(body)
        if self._received > self._body_limit:
            self._fail("too_large")
            return
        exchange.chunks.append((self._now_ns, body))
        if self._end_marker is not None and self._grace is None and body.endswith(self._end_marker):
            self._grace = asyncio.get_running_loop().call_later(END_GRACE_S, self._end_unfinished)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        exchange = self._exchange
        if exchange is not None and exchange.status < 200:  # noqa: PLR2004 - 100 Continue, 103 Early Hints
            exchange.status = 0
            exchange.headers.clear()
            self._headers_complete = False
            return
        if not self._parser.should_keep_alive():
            self._reusable = False
        self._finish()

    def _end_unfinished(self) -> None:
        """All was said but the answer was not ended: it counts as whole, the connection is not used again."""
        self._reusable = False
        self._finish()

    def _finish(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.ended_ns = self._now_ns
        if not self._reusable:
            self.close()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, kind: str) -> None:
        if self._exchange is None:
            return
        self._exchange.failure = kind
        self._now_ns = time.monotonic_ns()
        self._reusable = False
        self._finish()


async def connect(endpoint: Endpoint, *, timeout_s: float = 10.0, body_limit: int = BODY_LIMIT) -> Connection:
    """An open connection; raises HttpError (refused, unknown_host, unreachable, timed_out, tls)."""
    where = address(endpoint)
    try:
        async with asyncio.timeout(timeout_s):
            return await _open(endpoint, body_limit)
    except TimeoutError:
        raise HttpError("timed_out", where=where, seconds=round(timeout_s, 1)) from None
    except (ConnectionRefusedError, FileNotFoundError):
        raise HttpError("refused", where=where) from None
    except socket.gaierror:
        raise HttpError("unknown_host", where=where, host=endpoint.host) from None
    except ssl.SSLError as error:
        raise HttpError("tls", where=where, reason=error.reason or str(error)) from None
    except OSError as error:
        raise HttpError("unreachable", where=where, reason=error.strerror or str(error)) from None


async def request(
    endpoint: Endpoint,
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | bytes | None = None,
    timeout_s: float,
    body_limit: int = BODY_LIMIT,
) -> Response:
    """One request on a fresh connection; ``path`` is absolute, ``timeout_s`` covers connecting and the whole answer.

    A status is an answer (503 while loading, 404), except 401 and 403: HttpError ``wrong_key``.
    """
    where = address(endpoint)
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    payload = request_head(endpoint, method, path, length=len(content)) + content
    started_s = time.monotonic()
    connection = await connect(endpoint, timeout_s=timeout_s, body_limit=body_limit)
    try:
        left_s = max(timeout_s - (time.monotonic() - started_s), 0.001)
        exchange = await connection.exchange(payload, timeout_s=left_s)
    finally:
        connection.close()
    if exchange.failure is not None:
        raise HttpError(exchange.failure, where=where, seconds=round(timeout_s, 1), limit_mb=body_limit >> 20)
    if exchange.status in UNAUTHORIZED:
        raise HttpError("wrong_key", where=where, status=exchange.status)
    return Response(
        status=exchange.status, headers=exchange.headers, body=b"".join(data for _, data in exchange.chunks)
    )


def _port(endpoint: Endpoint) -> int:
    return endpoint.port or (443 if endpoint.tls else 80)


async def _open(endpoint: Endpoint, body_limit: int) -> Connection:
    loop = asyncio.get_running_loop()

    def protocol() -> Connection:
        return Connection(body_limit=body_limit)

    if endpoint.socket_path:
        _, connection = await loop.create_unix_connection(protocol, endpoint.socket_path)
        return connection
    if AVAILABLE and not endpoint.tls:
        made = protocol()
        await connect_stamped(endpoint.host, _port(endpoint), made)
        return made
    tls = _tls_context() if endpoint.tls else None
    _, connection = await loop.create_connection(protocol, endpoint.host, _port(endpoint), ssl=tls)
    return connection


@cache
def _tls_context() -> ssl.SSLContext:
    """The system's trust, with SSL_CERT_FILE and SSL_CERT_DIR respected (private authorities)."""
    return ssl.create_default_context()
