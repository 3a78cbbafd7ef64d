"""The fake engine at work: a batching scheduler in model time, and the routes of an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmopt.workers.fake_http import Connection, HttpRequest, Stream
    from llmopt.workers.fake_metrics import Counters, render
    from llmopt.workers.fake_model import Answerer, content_of, pieces
    from llmopt.workers.fake_scenario import FINAL_WORDS, Fault, Scenario
else:  # started by path and isolated: the folder of this script is not on the search path
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from fake_http import Connection, HttpRequest, Stream
    from fake_metrics import Counters, render
    from fake_model import Answerer, content_of, pieces
    from fake_scenario import FINAL_WORDS, Fault, Scenario

MESSAGE_TOKENS = 4
"""What a chat template adds to each message."""
DEFAULT_MAX_TOKENS = 256


def do(fault: Fault) -> None:
    """Carry out a fault: it may end this process, or block it."""
    if fault.deed == "log":
        print(fault.detail, file=sys.stderr, flush=True)
    elif fault.deed == "exit":
        os._exit(int(fault.detail or 1))
    elif fault.deed == "signal":
        os.kill(os.getpid(), getattr(signal, f"SIG{fault.detail.removeprefix('SIG')}"))
    elif fault.deed == "oom":
        print(FINAL_WORDS[fault.detail], file=sys.stderr, flush=True)
        os._exit(1)
    else:
        time.sleep(float(fault.detail or 3600))  # hang, freeze: the whole process stands still


@dataclass(kw_only=True)
class Job:
    """One request on its way: the tokens to give, and where they go when their time has come."""

    tokens: list[str]
    prompt_tokens: int
    cached_tokens: int = 0
    given: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    next: int = 0
    abandoned: bool = False
    lingered: int = 0
    """Steps it was worked on since its client left."""


class Scheduler:
    """Continuous batching: free slots take waiting jobs, each step gives every running job one token."""

    def __init__(self, answerer: Answerer, scenario: Scenario, counters: Counters, time_scale: float) -> None:
        self._settings = answerer.settings
        self._scenario = scenario
        self._counters = counters
        self._scale = time_scale
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._work = asyncio.Event()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._waiting.append(job)
        self._work.set()

    async def run(self) -> None:
        """Work for ever. Time is kept on an absolute schedule, so that late wake-ups do not add up."""
        loop = asyncio.get_running_loop()
        clock_s = loop.time()
        while True:
            if not self._running and not self._waiting:
                self._work.clear()
                await self._work.wait()
                clock_s = loop.time()
            clock_s += self._admit() * self._scale
            clock_s += self._settings.step_s(len(self._running)) * self._scale
            await asyncio.sleep(max(0.0, clock_s - loop.time()))
            self._step()

    def _admit(self) -> float:
        """Fill free slots; the seconds their prompts take."""
        seconds = 0.0
        while self._waiting and len(self._running) < self._settings.slots:
            job = self._waiting.popleft()
            if not job.abandoned:
                self._running.append(job)
                self._counters.prompt_tokens += job.prompt_tokens
                self._counters.cached_tokens += job.cached_tokens
                seconds += self._settings.prompt_s(job.prompt_tokens - job.cached_tokens)
        self._count()
        return seconds

    def _step(self) -> None:
        self._counters.steps += 1
        for job in list(self._running):
            if job.next < len(job.tokens) and not job.abandoned:
                job.given.put_nowait(job.tokens[job.next])
                job.next += 1
                self._counters.generation_tokens += 1
                for fault in self._scenario.due("token", self._counters.generation_tokens):
                    do(fault)
            job.lingered += job.abandoned
            if job.next >= len(job.tokens) or job.lingered > self._scenario.lingers:
                job.given.put_nowait(None)
                self._running.remove(job)
        self._count()

    def _count(self) -> None:
        held = sum(job.prompt_tokens + job.next for job in self._running)
        self._counters.running = len(self._running)
        self._counters.waiting = len(self._waiting)
        self._counters.kv_usage = round(min(1.0, held / self._settings.context), 6)


class Serving:
    """The routes. ``ready`` is set when loading ended; until then only 503 is answered."""

    def __init__(
        self, answerer: Answerer, scenario: Scenario, *, model: str, dialect: str = "llamacpp", time_scale: float = 1.0
    ) -> None:
        self.ready = False
        self.counters = Counters()
        self._answerer = answerer
        self._scenario = scenario
        self._model = model
        self._dialect = dialect
        self.scheduler = Scheduler(answerer, scenario, self.counters, time_scale)
        self._refused = 0
        self._remembered: set[tuple[str, ...]] = set()

    async def handle(self, request: HttpRequest, connection: Connection) -> None:
        """Answer one request."""
        if not self.ready:
            error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
            connection.respond(503, {"error": error})
        elif request.method == "POST" and request.path in ("/v1/chat/completions", "/v1/completions"):
            await self._complete(request, connection)
        elif request.method == "POST" and request.path == "/tokenize":
            body = request.json()
            tokens = pieces(str(body.get("content") or body.get("prompt") or ""))
            connection.respond(200, {"tokens": list(range(len(tokens))), "count": len(tokens)})
        elif request.method == "POST" and request.path == "/flush_cache" and self._scenario.remembers:
            self._remembered.clear()
            connection.respond(200, {"status": "ok"})
        else:
            self._describe(request, connection)

    def _describe(self, request: HttpRequest, connection: Connection) -> None:
        settings = self._answerer.settings
        per_slot = settings.context // settings.slots
        plain = {
            "/health": {"status": "ok"},
            "/v1/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [{"id": self._model, "object": "model", "owned_by": "fake"}]},
            "/props": {"total_slots": settings.slots, "default_generation_settings": {"n_ctx": per_slot}},
            "/slots": [{"id": slot, "n_ctx": per_slot} for slot in range(settings.slots)],
            "/version": {"version": "fake"},
            "/get_model_info": {"model_path": self._model, "is_generation": True},
        }
        if request.method == "GET" and request.path == "/metrics":
            text = render(self.counters, self._dialect, self._model)
            connection.respond(200, text, content_type="text/plain; version=0.0.4")
        elif request.method == "GET" and request.path in plain:
            connection.respond(200, plain[request.path])
        else:
            connection.respond(404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}})

    async def _complete(self, request: HttpRequest, connection: Connection) -> None:
        self.counters.requests += 1
        number = self.counters.requests
        for fault in self._scenario.due("request", number):
            do(fault)
        if self._refuse(number, connection):
            return
        body = request.json()
        chat = request.path.endswith("/chat/completions")
        messages = body.get("messages") if chat else [{"role": "user", "content": str(body.get("prompt") or "")}]
        if not isinstance(messages, list) or not messages:
            connection.respond(400, {"error": {"message": "messages are missing", "type": "invalid_request_error"}})
            return
        sizes = [MESSAGE_TOKENS + len(pieces(content_of(message))) for message in messages]
        prompt_tokens = sum(sizes)
        limit = int(body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_MAX_TOKENS)
        room = self._answerer.settings.context // self._answerer.settings.slots
        if prompt_tokens >= room:
            text = f"request ({prompt_tokens} tokens) exceeds the available context size ({room} tokens)"
            error = {"code": 400, "message": text, "type": "exceed_context_size_error"}
            connection.respond(400, {"error": error})
            return
        tokens = pieces(self._text(number, messages, body))
        finish = "stop" if len(tokens) <= limit else "length"
        known = self._known_messages([str(body.get("cache_salt")), *map(content_of, messages)])
        job = Job(tokens=tokens[:limit], prompt_tokens=prompt_tokens, cached_tokens=sum(sizes[:known]))
        try:
            await self._give(job, body, connection, chat=chat, number=number, finish=finish)
        finally:
            job.abandoned = True

    def _known_messages(self, prompt: list[str]) -> int:
        """How many messages from the beginning (after the salt) were read before; the prompt is known from now on."""
        if not self._scenario.remembers:
            return 0
        beginnings = [tuple(prompt[: count + 1]) for count in range(1, len(prompt))]
        known = sum(beginning in self._remembered for beginning in beginnings)
        self._remembered.update(beginnings)
        return known

    def _refuse(self, number: int, connection: Connection) -> bool:
        refuse = self._scenario.refuse
        first = int(refuse.get("first", 1))
        if not refuse or not first <= number < first + int(refuse.get("count", 1)):
            return False
        status = int(refuse.get("status", 503))
        error = {"code": status, "message": "try again later", "type": "overloaded_error"}
        connection.respond(status, {"error": error}, Retry_After=str(refuse.get("retry_after", 1)))
        return True

    def _text(self, number: int, messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        if self._scenario.wrong_every and number % self._scenario.wrong_every == 0:
            return "정답: -1" if "정답" in content_of(messages[-1]) else "Answer: -1"
        return self._answerer.text(messages, body)

    async def _give(
        self, job: Job, body: dict[str, Any], connection: Connection, *, chat: bool, number: int, finish: str
    ) -> None:
        times_s = self._scenario.token_times_s(len(job.tokens))
        if times_s is not None:  # as many tokens as moments, the answer's own repeated
            job.tokens = [job.tokens[index % len(job.tokens)] for index in range(len(times_s))]
        usage = {
            "prompt_tokens": job.prompt_tokens,
            "completion_tokens": len(job.tokens),
            "total_tokens": job.prompt_tokens + len(job.tokens),
            "prompt_tokens_details": {"cached_tokens": job.cached_tokens},
        }
        kind = "chat.completion" if chat else "text_completion"
        shell = {"id": f"fake-{number}", "object": kind, "created": int(time.time()), "model": self._model}
        pacer = asyncio.create_task(_pace(job, times_s), name="fake-pacer") if times_s is not None else None
        if pacer is None:
            self.scheduler.submit(job)
        try:
            if body.get("stream"):
                stream = Stream(connection=connection, scenario=self._scenario, shell=shell, chat=chat)
                stream.begin()
                while (token := await job.given.get()) is not None:
                    await stream.token(token)
                await stream.end(finish, usage if (body.get("stream_options") or {}).get("include_usage") else None)
                return
            parts = []
            while (token := await job.given.get()) is not None:
                parts.append(token)
            text = "".join(parts)
            one = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choice = {"index": 0, **one, "finish_reason": finish}
            connection.respond(200, {**shell, "choices": [choice], "usage": usage})
        finally:
            if pacer is not None:
                pacer.cancel()


async def _pace(job: Job, times_s: list[float]) -> None:
    """Give the tokens at exact times after now."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    for token, moment_s in zip(job.tokens, times_s, strict=True):
        await asyncio.sleep(max(0.0, began_s + moment_s - loop.time()))
        job.given.put_nowait(token)
    job.given.put_nowait(None)
