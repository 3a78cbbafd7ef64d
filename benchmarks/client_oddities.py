"""Streams as real servers send them, oddities and all, played byte by byte at known times.

The first content always comes FIRST_S after the request, the second GAP_S later; what comes before (a role, a ping, an
empty delta) is no token. A row that ``fails`` has to be counted as a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

FIRST_S, GAP_S = 0.2, 0.05
DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
TAIL = b"0\r\n\r\n"
CLOSE = None
Step = bytes | float | None
"""Bytes to write, seconds to wait, or CLOSE."""


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """One row: what is sent, and whether a client has to call it a failure."""

    name: str
    steps: tuple[Step, ...]
    fails: bool = False


def event(**fields: object) -> bytes:
    text = json.dumps({"id": "x", "object": "chat.completion.chunk", "model": "fake", **fields})
    return f"data: {text}\n\n".encode()


def delta(content: object = None, finish: str | None = None, **more: object) -> bytes:
    said = dict(more) if content is None else {"content": content, **more}
    return event(choices=[{"index": 0, "delta": said, "finish_reason": finish}])


def usage(tokens: int) -> bytes:
    return event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens})


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunks(*pieces: bytes | float) -> tuple[Step, ...]:
    """Every piece of bytes as one HTTP chunk."""
    return tuple(chunk(piece) if isinstance(piece, bytes) else piece for piece in pieces)


A, B, STOP = delta(" a", role="assistant"), delta(" b"), delta(finish="stop")
END = (STOP, usage(2), DONE)
TWO = (FIRST_S, A, GAP_S, B)


def whole(*pieces: bytes | float) -> tuple[Step, ...]:
    return (CHUNKED, *chunks(*pieces), TAIL)


def ended(replace: Sequence[tuple[bytes, bytes]]) -> tuple[Step, ...]:
    """The plain stream with bytes of every event replaced."""
    pieces: list[bytes | float] = []
    for piece in (*TWO, *END):
        changed = piece
        for old, new in replace:
            changed = changed.replace(old, new) if isinstance(changed, bytes) else changed
        pieces.append(changed)
    return whole(*pieces)


def answer(status: str, body: bytes, content_type: str = "application/json") -> tuple[Step, ...]:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head.encode() + body,)


def rows() -> tuple[Oddity, ...]:
    """The table."""
    tool = [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]
    more = [{"index": 0, "function": {"arguments": "}"}}]
    korean = delta("KO").replace(b"KO", "가".encode())
    nothing = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": None}}])
    counted = json.dumps({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}).encode()
    last = B.replace(b'"choices"', b'"usage": ' + counted + b', "choices"')
    extended = b"%x;x=1\r\n%b\r\n" % (len(b"".join((A, B, *END))), b"".join((A, B, *END)))
    calling = (delta(tool_calls=tool, role="assistant"), delta(tool_calls=more))
    cut = korean.index("가".encode()) + 1
    everything = b"".join((A, B, *END))
    late = (FIRST_S, A, GAP_S, B, *END)
    error = {"message": "out of memory", "type": "server_error", "code": 500}
    good = {
        "plain stream": whole(*late),
        "role-only first event": whole(delta("", role="assistant"), *late),
        "role-only with null content": whole(nothing, *late),
        "empty delta first": whole(delta(""), *late),
        "delta without fields first": whole(delta(), *late),
        "comment pings": whole(b": ping\n\n", FIRST_S, A, b":\n\n", GAP_S, B, *END),
        "CR LF line ends": ended([(b"\n", b"\r\n")]),
        "CR line ends": ended([(b"\n", b"\r")]),
        "no space after data:": ended([(b"data: ", b"data:")]),
        "id, event and retry fields": ended([(b"data: {", b"id: 7\nevent: message\nretry: 10\ndata: {")]),
        "data over two lines": whole(FIRST_S, A.replace(b'"choices": ', b'"choices":\ndata: '), GAP_S, B, *END),
        "byte order mark": whole(FIRST_S, b"\xef\xbb\xbf" + A, GAP_S, B, *END),
        "event in three writes": whole(FIRST_S, A[:9], 0.005, A[9:40], 0.005, A[40:], GAP_S, B, *END),
        "UTF-8 cut inside a letter": whole(FIRST_S, korean[:cut], 0.005, korean[cut:], GAP_S, B, *END),
        "three bytes a chunk": whole(FIRST_S, *(A[k : k + 3] for k in range(0, len(A), 3)), GAP_S, B, *END),
        "all in one write": (CHUNKED, FIRST_S, chunk(everything) + TAIL),
        "two events in one chunk": whole(FIRST_S, A + B, *END),
        "several chunks in one write": (CHUNKED, FIRST_S, b"".join(map(chunk, (A, B, *END))) + TAIL),
        "usage in the last content event": whole(FIRST_S, A, GAP_S, last, STOP, DONE),
        "no usage": whole(*TWO, STOP, DONE),
        "no [DONE]": whole(*TWO, STOP, usage(2)),
        "finish with the last content": whole(FIRST_S, A, GAP_S, delta(" b", "stop"), usage(2), DONE),
        "chunk extensions and trailers": (CHUNKED, FIRST_S, extended, b"0\r\nX-T: 1\r\n\r\n"),
        "content-length framing": (HEAD + b"Content-Length: %d\r\n\r\n" % len(everything), FIRST_S, everything),
        "delimited by closing": (HEAD + b"Connection: close\r\n\r\n", FIRST_S, A, GAP_S, B, b"".join(END), CLOSE),
        "interim 103 answer": (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", 0.02, CHUNKED, *chunks(*late), TAIL),
        "reasoning_content first": whole(FIRST_S, delta(reasoning_content="hm"), GAP_S, B, *END),
        "reasoning first": whole(FIRST_S, delta(reasoning="hm"), GAP_S, B, *END),
        "tool-call deltas": whole(FIRST_S, calling[0], GAP_S, calling[1], *END),
        "an event of 200 kB": whole(FIRST_S, delta(" a" * 100_000), GAP_S, B, *END),
    }  # fmt: skip
    bad = {
        "error event in mid-stream": whole(FIRST_S, A, event(error=error)),
        "named error event": whole(FIRST_S, A, b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"),
        "broken JSON": whole(FIRST_S, A, b'data: {"choices": [{"delta": {"content": "bro\n\n', *END),
        "closed in mid-stream": (CHUNKED, *chunks(FIRST_S, A, GAP_S, B), CLOSE),
        "closed in mid-event": (CHUNKED, *chunks(FIRST_S, A, B[:20]), CLOSE),
        "HTTP 429": answer("429 Too Many Requests", b'{"error": {"message": "slow down"}}'),
        "HTTP 503 without a body": answer("503 Service Unavailable", b""),
        "a web page with 200": answer("200 OK", b"<html></html>", "text/html"),
    }
    return (
        *(Oddity(name=name, steps=steps) for name, steps in good.items()),
        *(Oddity(name=name, steps=steps, fails=True) for name, steps in bad.items()),
    )


LISTED = b"".join(
    step
    for step in answer("200 OK", b'{"object": "list", "data": [{"id": "fake", "object": "model"}]}')
    if isinstance(step, bytes)
)
LEAD = 2
"""Plain answers first: some clients try a server before they measure it."""


@dataclass(kw_only=True)
class Player:
    """A server that plays the table, one row a completion request, in the order they come."""

    table: tuple[Oddity, ...] = field(default_factory=rows)
    played: list[str] = field(default_factory=list)
    port: int = 0

    def next_row(self) -> Oddity:
        place = len(self.played) - LEAD
        row = self.table[place] if 0 <= place < len(self.table) else self.table[0]
        self.played.append(row.name)
        return row

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = head.lower().split("\r\n")
                length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length")), 0)
                await reader.readexactly(length)
                if not head.startswith("POST"):
                    writer.write(LISTED)
                elif not await self.play(self.next_row(), writer):
                    break
                await writer.drain()
        writer.close()

    async def play(self, row: Oddity, writer: asyncio.StreamWriter) -> bool:
        """Play one row; False where the connection is over."""
        for step in row.steps:
            if step is CLOSE:
                return False
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                writer.write(step)
                await writer.drain()
        return True


@contextlib.asynccontextmanager
async def playing() -> AsyncIterator[Player]:
    """The server on a free loopback port."""
    player = Player()
    server = await asyncio.start_server(player.serve, "127.0.0.1", 0)
    player.port = server.sockets[0].getsockname()[1]
    try:
        yield player
    finally:
        server.close()
