"""The readiness ladder: alive, listening, healthy, listed, answering; and the watch that ends a hopeless start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from enum import Enum
from typing import TypeVar

from llmopt.engines.logfile import find_in_log, log_text
from llmopt.records import Endpoint, InferenceParams, LaunchPlan
from llmopt.runtime.clock import Clock
from llmopt.runtime.guardian import Child, ExitStatus
from llmopt.runtime.http import HttpError, Response, connect, request
from llmopt.runtime.processes import StallWatch, listens_on, tree_activity

__all__ = ["NotReady", "Phase", "climb", "verify"]

PROBE_S = 5.0
LISTED_CAP_S = 30.0
OBSERVE_S = 1.0
HOPELESS_S = 15.0
"""Without progress for so long, a start is given up before its stall time where the log already tells a root cause."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.5
NO_SUCH_PATH = frozenset({404, 405, 501})
NAMES_SHOWN = 8
"""Of the models that an endpoint lists, in an error."""
SAMPLING = ("temperature", "top_p")
"""What of a configuration's sampling the first completion is asked with."""

T = TypeVar("T")


class Phase(str, Enum):
    """Where a launch is, in order; reported through ``on_phase``."""

    STARTING = "starting"
    LOADING = "loading"
    LISTENING = "listening"
    HEALTHY = "healthy"
    LISTED = "listed"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


class NotReady(Exception):
    """Why the ladder was left; ``launch`` turns it into EngineStartError.

    ``why`` is exited, stalled, too_slow, port_taken, not_listed, lists_others or bad_answer.
    """

    def __init__(self, why: str, *, status: ExitStatus | None = None, **values: object) -> None:
        super().__init__(why, values)
        self.why = why
        self.status = status
        self.values = values


GREEDY = InferenceParams(temperature=0.0)


async def climb(
    plan: LaunchPlan,
    child: Child,
    *,
    clock: Clock,
    on_phase: Callable[[Phase], None],
    sampling: InferenceParams = GREEDY,
) -> Endpoint:
    """Wait until the child answers one real completion; the endpoint with its real port. Raises NotReady.

    ``sampling`` is what the completion asks for: an engine may keep the first request's for all later ones.
    """
    watch = _Watch(plan, child, clock)
    on_phase(Phase.LOADING)
    endpoint = plan.endpoint
    if plan.port_from_log and not endpoint.socket_path:
        pattern = plan.port_from_log
        found = await watch.until(lambda: _in_thread(find_in_log, child.log_path, pattern))
        endpoint = replace(endpoint, port=int(found))
    await watch.until(lambda: _listening(endpoint, plan, child))
    on_phase(Phase.LISTENING)
    await watch.until(lambda: watch.asking(_healthy, endpoint, plan.health_path))
    on_phase(Phase.HEALTHY)
    if plan.lists_model:
        await watch.until(lambda: watch.asking(_listed, endpoint), cap_s=LISTED_CAP_S, otherwise="not_listed")
    on_phase(Phase.LISTED)
    await watch.until(lambda: watch.asking(_answers, endpoint, plan.ready_cap_s, sampling))
    on_phase(Phase.READY)
    return endpoint


async def verify(plan: LaunchPlan, *, clock: Clock, on_phase: Callable[[Phase], None]) -> None:
    """The upper rungs for an engine that somebody else runs. Raises NotReady, or HttpError as it cannot be reached."""
    await request(plan.endpoint, "GET", f"{plan.endpoint.base_path}/models", timeout_s=PROBE_S)  # or why not
    deadline_s = clock.now_s() + PROBE_S
    while (names := await _models(plan.endpoint)) is not None and plan.endpoint.model not in names:
        if names:  # one that lists others is up, and will not come to have ours
            raise NotReady("lists_others", alias=plan.endpoint.model, served=_some(names))
        if clock.now_s() > deadline_s:
            raise NotReady("not_listed", alias=plan.endpoint.model)
        await asyncio.sleep(LONGEST_PAUSE_S)
    on_phase(Phase.LISTED)
    while not await _answers(plan.endpoint, plan.ready_cap_s):
        if clock.now_s() > deadline_s + plan.ready_cap_s:
            raise NotReady("too_slow", seconds=round(plan.ready_cap_s))
        await asyncio.sleep(LONGEST_PAUSE_S)
    on_phase(Phase.READY)


class _Watch:
    """Looks at the process while something is awaited, and gives up when it ended, stalls or takes too long."""

    def __init__(self, plan: LaunchPlan, child: Child, clock: Clock) -> None:
        self._plan = plan
        self._child = child
        self._clock = clock
        self._began_s = self._observed_s = clock.now_s()
        self._stall: StallWatch | None = None
        self._requests = 0

    async def until(
        self, probe: Callable[[], Awaitable[T | None]], *, cap_s: float | None = None, otherwise: str = "too_slow"
    ) -> T:
        """Ask ``probe`` again and again until its answer is true."""
        pause_s = FIRST_PAUSE_S
        began_s = self._clock.now_s()
        while True:
            if answer := await self._while_watching(probe()):
                return answer
            if cap_s is not None and self._clock.now_s() - began_s > cap_s:
                raise NotReady(otherwise, alias=self._plan.endpoint.model, seconds=round(cap_s))
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    async def asking(self, question: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Count a request of ours, because a server may log it."""
        self._requests += 1
        return await question(*arguments)

    async def _while_watching(self, awaitable: Awaitable[T]) -> T:
        task = asyncio.ensure_future(awaitable)
        try:
            while not task.done():
                await self._look()
                await asyncio.wait({task}, timeout=LONGEST_PAUSE_S)
            await self._look()
            return task.result()
        except HttpError as error:
            # a server that dies closes its connections first; give the news of its end a moment to arrive
            if status := await asyncio.to_thread(self._child.wait, OBSERVE_S):
                raise NotReady("exited", status=status) from error
            raise NotReady("bad_answer", http_status="-", text=error.what) from error
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # seen: it was either raised above or came too late to matter

    async def _look(self) -> None:
        now_s = self._clock.now_s()
        if (status := self._child.poll()) is not None:
            raise NotReady("exited", status=status)
        if now_s - self._began_s > self._plan.ready_cap_s:
            raise NotReady("too_slow", seconds=round(self._plan.ready_cap_s))
        if self._stall is not None and now_s - self._observed_s < OBSERVE_S:
            return
        self._observed_s = now_s
        pids = await asyncio.to_thread(self._child.pids)
        activity = await asyncio.to_thread(tree_activity, pids, self._child.log_path, at_s=now_s)
        if self._stall is None:
            self._stall = StallWatch(activity)
        requests, self._requests = self._requests, 0
        idle_s = self._stall.idle_s(activity, own_requests=requests)
        if idle_s > self._plan.stall_s or (idle_s > HOPELESS_S and await asyncio.to_thread(self._tells_a_cause)):
            raise NotReady("stalled", seconds=round(idle_s))

    def _tells_a_cause(self) -> bool:
        """Whether the log names what went wrong although the process lives: a worker died and its parent waits on."""
        from llmopt.failures import find_failure  # noqa: PLC0415 - reads its catalogue

        return find_failure(log_text(self._child.log_path), engine=self._plan.engine) is not None


async def _in_thread(function: Callable[..., T], *arguments: object) -> T:
    return await asyncio.to_thread(function, *arguments)


async def _listening(endpoint: Endpoint, plan: LaunchPlan, child: Child) -> bool:
    try:
        connection = await connect(endpoint, timeout_s=PROBE_S)
    except HttpError:
        return False
    connection.close()
    if endpoint.socket_path or plan.container is not None:  # there the listener is the tool's own
        return True
    pids = await asyncio.to_thread(child.pids)
    if pids and await asyncio.to_thread(listens_on, pids, endpoint.port) is False:
        raise NotReady("port_taken", port=endpoint.port)  # somebody else took the port before our engine could
    return True


async def _healthy(endpoint: Endpoint, path: str) -> bool:
    answer = await _get(endpoint, path)
    return answer is not None and answer.status == 200  # noqa: PLR2004 - OK


async def _listed(endpoint: Endpoint) -> bool:
    return endpoint.model in (await _models(endpoint) or ())


async def _models(endpoint: Endpoint) -> frozenset[str] | None:
    """The names of the models it lists, empty while it gives no list; None where it knows of no such list."""
    answer = await _get(endpoint, f"{endpoint.base_path}/models")
    if answer is not None and answer.status in NO_SUCH_PATH:
        return None
    if answer is None or answer.status != 200:  # noqa: PLR2004 - OK
        return frozenset()
    listing = answer.json()
    models = listing.get("data", []) if isinstance(listing, dict) else []
    return frozenset(str(model["id"]) for model in models if isinstance(model, dict) and "id" in model)


def _some(names: frozenset[str]) -> str:
    """The first few names, for a sentence."""
    shown = sorted(names)[:NAMES_SHOWN]
    return ", ".join(shown) + (", …" if len(names) > len(shown) else "")


async def _answers(endpoint: Endpoint, cap_s: float, sampling: InferenceParams = GREEDY) -> bool:
    """One short completion; False where the server still asks for patience. Raises NotReady for a wrong answer."""
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": "1+1="}],
        "max_tokens": 8,
        "stream": False,
        **{name: value for name in SAMPLING if (value := getattr(sampling, name)) is not None},
    }
    path = f"{endpoint.base_path}/chat/completions"
    answer = await request(endpoint, "POST", path, body=body, timeout_s=cap_s)
    if answer.status in {429, 503}:
        return False
    text = answer.body[:300].decode("utf-8", "replace")
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise NotReady("bad_answer", http_status=answer.status, text=text)
    content = answer.json()
    if not isinstance(content, dict) or not content.get("choices"):
        raise NotReady("bad_answer", http_status=answer.status, text=text)
    return True


async def _get(endpoint: Endpoint, path: str) -> Response | None:
    """The answer, or None while the server is not there yet."""
    try:
        return await request(endpoint, "GET", path, timeout_s=PROBE_S)
    except HttpError as error:
        if error.kind == "wrong_key":
            raise
        return None
