"""The fake engine's fast mode: hundreds of streams at exact times, each write stamped on the monotonic clock.

Nothing is computed while streaming: every event is made beforehand and written at its moment by a timer. ``--stamps
FILE`` gets one JSON line a stream (``FILE.N`` in the N-th process): ``key`` (the request's ``user`` field or
``X-Request-Id``), ``received_ns`` (its last bytes arrived, by the kernel's stamp over TCP), ``written_ns`` (just before
each token was handed to the kernel).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from llmopt.workers.fake_http import STREAM_HEAD, STREAM_TAIL, Connection, HttpRequest, chunk, event
    from llmopt.workers.fake_scenario import Scenario
else:  # started by path and isolated: the folder of this script is not on the search path
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from fake_http import STREAM_HEAD, STREAM_TAIL, Connection, HttpRequest, chunk, event
    from fake_scenario import Scenario

DEFAULT_TIMING = {"ttft_ms": 50.0, "itl_ms": 20.0, "tokens": 64}
PROMPT_TOKENS = 16


class FastServing:
    """Streams prepared events; answers health, models and metrics so that clients find a server they know."""

    def __init__(self, scenario: Scenario, *, model: str, stamps: Path | None) -> None:
        timing = scenario.timing or DEFAULT_TIMING
        script = Scenario(timing=timing)
        self._times_s = script.token_times_s(int(timing.get("tokens", 1))) or []
        self._model = model
        self._stamps = stamps
        self._file: TextIO | None = None
        shell = {"id": "fake-fast", "object": "chat.completion.chunk", "created": 0, "model": model}
        self._frames = [chunk(event(_choice(shell, {"content": f" w{index}"}))) for index in range(len(self._times_s))]
        self._head = STREAM_HEAD + chunk(event(_choice(shell, {"role": "assistant", "content": None})))
        self._finish = chunk(event(_choice(shell, {}, "stop")))
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": len(self._times_s)}
        usage["total_tokens"] = sum(usage.values())
        self._usage = chunk(event({**shell, "choices": [], "usage": usage}))
        self._done = chunk(event("[DONE]")) + STREAM_TAIL
        self._plain_usage = usage

    def prepare(self) -> None:
        """Called in each process before it serves: its own stamp file, and no collector pauses."""
        if self._stamps is not None:
            self._file = self._stamps.open("a", buffering=1 << 20, encoding="utf-8")
        gc.collect()
        gc.freeze()
        gc.disable()

    def close(self) -> None:
        """Write out what was stamped."""
        if self._file is not None:
            self._file.close()

    async def handle(self, request: HttpRequest, connection: Connection) -> None:
        """Answer one request."""
        received_ns = request.received_ns
        if request.method == "POST" and request.path.endswith("/completions"):
            await self._complete(request, connection, received_ns)
        elif request.path == "/metrics":
            connection.respond(200, "", content_type="text/plain; version=0.0.4")
        elif request.path == "/v1/models":
            connection.respond(200, {"object": "list", "data": [{"id": self._model, "object": "model"}]})
        else:
            connection.respond(200, {"status": "ok"})

    async def _complete(self, request: HttpRequest, connection: Connection, received_ns: int) -> None:
        body = request.json()
        if not body.get("stream"):
            await asyncio.sleep(self._times_s[-1] if self._times_s else 0.0)
            message = {"role": "assistant", "content": "".join(f" w{index}" for index in range(len(self._times_s)))}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            connection.respond(200, {"model": self._model, "choices": [choice], "usage": self._plain_usage})
            return
        loop = asyncio.get_running_loop()
        began_s = loop.time() - (time.monotonic_ns() - received_ns) / 1e9
        ended: asyncio.Future[None] = loop.create_future()
        written_ns: list[int] = []
        connection.write(self._head)

        def give(index: int) -> None:
            if connection.closed or ended.done():
                return
            written_ns.append(time.monotonic_ns())
            connection.write(self._frames[index])
            if index + 1 < len(self._frames):
                loop.call_at(began_s + self._times_s[index + 1], give, index + 1)
            else:
                ended.set_result(None)

        if self._frames:
            loop.call_at(began_s + self._times_s[0], give, 0)
            await ended
        wants_usage = (body.get("stream_options") or {}).get("include_usage")
        connection.write(self._finish + (self._usage if wants_usage else b"") + self._done)
        key = body.get("user") or request.headers.get("x-request-id")
        self._stamp({"key": key, "received_ns": received_ns, "written_ns": written_ns})

    def _stamp(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")


def _choice(shell: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {**shell, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def in_processes(count: int, stamps: Path | None, serve: Callable[[Path | None, int | None], None]) -> None:
    """Run ``serve(stamp file, pipe to the parent)`` in ``count`` processes that share what is already bound.

    The parent serves too; the others end when its side of the pipe closes, however it died.
    """
    reader, writer = os.pipe()
    children = []
    for number in range(1, count):
        if (child := os.fork()) == 0:
            os.close(writer)
            serve(stamps.with_name(f"{stamps.name}.{number}") if stamps else None, reader)
            os._exit(0)
        children.append(child)
    serve(stamps, None)
    os.close(writer)
    for child in children:
        os.waitpid(child, 0)
