"""A server that plays scripts: the exact bytes a test wants on the wire, in the pieces it wants."""

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path

import pytest

from llmopt.records import Endpoint

GAP = object()
"""In a script: let the client's loop run, so that what follows comes in a later read."""
CLOSE = object()
"""In a script: close the connection here."""
HANG = object()
"""In a script: say nothing more until the test ends."""


def head(status=200, reason="OK", *, content_type="text/event-stream", extra=()):
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Type: {content_type}", *extra]
    return ("\r\n".join(lines) + "\r\n").encode()


def chunked(*pieces, trailer=b"\r\n"):
    """A chunked body: every piece is one chunk in a read of its own."""
    script = []
    for piece in pieces:
        if isinstance(piece, bytes):
            script += [b"%x\r\n" % len(piece) + piece + b"\r\n", GAP]
        else:
            script.append(piece)
    return [*script, b"0\r\n" + trailer]


def event(**fields):
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def delta(content=None, finish=None, **more):
    piece = dict(more) if content is None else {"content": content, **more}
    return event(choices=[{"index": 0, "delta": piece, "finish_reason": finish}])


DONE = b"data: [DONE]\n\n"


class Scripted:
    """Plays ``scripts`` in turn (the last one for ever) and remembers every request it read."""

    def __init__(self, socket_path):
        self.socket_path = socket_path
        """None: on a loopback port."""
        self.port = 0
        self.scripts = []
        self.requests = []
        self.connections = 0
        self.in_flight = 0
        self.peak = 0
        self.changed = asyncio.Condition()
        self._server = None
        self._tasks = set()

    @property
    def endpoint(self):
        return Endpoint(model="m", socket_path=self.socket_path, port=self.port, api_key="secret")

    async def until_in_flight(self, number, *, asked=0):
        """Wait until ``number`` requests are being answered at once (and ``asked`` have come in all)."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: self.in_flight >= number and len(self.requests) >= asked)

    async def start(self):
        if self.socket_path is not None:
            self._server = await asyncio.start_unix_server(self._serve, self.socket_path)
            return
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self.connections += 1
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                raw = await reader.readuntil(b"\r\n\r\n")
                length = next((int(x.split(b":")[1]) for x in raw.split(b"\r\n") if x.startswith(b"Content-Length")), 0)
                body = await reader.readexactly(length) if length else b""
                self.requests.append((raw.decode(), body))
                self.in_flight += 1
                self.peak = max(self.peak, self.in_flight)
                async with self.changed:
                    self.changed.notify_all()
                try:
                    go_on = await self._play(self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0], writer)
                finally:
                    self.in_flight -= 1
                if not go_on:
                    break
        writer.close()

    async def _play(self, script, writer):
        for step in script:
            if step is GAP:
                await writer.drain()
                for _ in range(3):
                    await asyncio.sleep(0)
            elif step is CLOSE:
                return False
            elif step is HANG:
                await asyncio.Event().wait()
            elif asyncio.iscoroutinefunction(step):
                await writer.drain()
                await step()
            elif callable(step):
                step()
            else:
                writer.write(step)
        await writer.drain()
        return True


@pytest.fixture
def over():
    """What the scripted server listens on; a test file that means both ``unix`` and ``tcp`` says so."""
    return "unix"


@pytest.fixture
async def server(over):
    with tempfile.TemporaryDirectory(prefix="lo-") as folder:
        scripted = Scripted(str(Path(folder) / "s.sock") if over == "unix" else None)
        await scripted.start()
        yield scripted
        await scripted.stop()


@pytest.fixture(scope="session")
def wire():
    """The vocabulary of scripts, as a namespace (test folders are no packages)."""
    from types import SimpleNamespace

    return SimpleNamespace(
        GAP=GAP, CLOSE=CLOSE, HANG=HANG, DONE=DONE, head=head, chunked=chunked, event=event, delta=delta
    )
