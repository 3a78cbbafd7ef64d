"""A loopback server for clients that ask once and want JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from llmopt.records import Endpoint


@asynccontextmanager
async def json_server(answer: Callable[[str, Any], tuple[int, Any]]) -> AsyncIterator[Endpoint]:
    """Answers each request by ``answer(path, body)`` → (status, JSON)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        length = int(next(v.split(b":")[1] for v in head.splitlines() if v.lower().startswith(b"content-length")))
        status, body = answer(path, json.loads(await reader.readexactly(length)))
        data = json.dumps(body).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(data), data))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Endpoint(model="m", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()
