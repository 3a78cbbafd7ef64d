"""From a plan to a running endpoint and back: one async context manager that starts, checks, watches and stops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import shlex
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmopt.engines.base import Engine, RunFolder
from llmopt.engines.logfile import log_text, tail
from llmopt.engines.readiness import GREEDY, NotReady, Phase, climb, verify
from llmopt.errors import EngineDied, EngineError, EngineStartError
from llmopt.logs import mask
from llmopt.paths import ensure, runtime_folder
from llmopt.records import Endpoint, InferenceParams, LaunchPlan, ModelInfo, Settings
from llmopt.runtime.clock import Clock, MonotonicClock
from llmopt.runtime.guardian import Child, ExitStatus, Guardian, StopReport
from llmopt.runtime.http import HttpError, request

__all__ = ["Phase", "RunningEngine", "launch"]

PORT_TRIES = 4
"""The first try and three more, each on a new port."""
SOCKET_PATH_BYTES = 100
DRAIN_S = 2.0
FAILED_GRACE_S = 2.0
LOG_NAME = "engine.log"
BIND_FAILURES = ("address already in use", "eaddrinuse", "couldn't bind", "error while attempting to bind")

_log = logging.getLogger(__name__)


class RunningEngine:
    """A ready engine; made by ``launch``, valid inside its block (the reports also after it)."""

    def __init__(
        self, plan: LaunchPlan, *, child: Child | None, log_path: Path, start_seconds: float, folder: Path
    ) -> None:
        self.plan = plan
        self.endpoint: Endpoint = plan.endpoint
        self.log_path = log_path
        self.folder = folder
        self.start_seconds = start_seconds
        """From spawn to the first completion."""
        self.stop_report: StopReport | None = None
        """How it was stopped; None before, and for an engine that is not ours."""
        self._child = child

    def pids(self) -> tuple[int, ...]:
        """Its whole process tree; empty for an engine that is not ours. Blocks for about a millisecond."""
        return self._child.pids() if self._child else ()

    def exit_status(self) -> ExitStatus | None:
        """How its main process ended; None while it runs."""
        return self._child.poll() if self._child else None

    async def ended(self) -> ExitStatus:
        """Wait until its main process ends (for ever, where the engine is not ours)."""
        loop = asyncio.get_running_loop()
        end: asyncio.Future[ExitStatus] = loop.create_future()

        def note(status: ExitStatus) -> None:
            if not end.done():
                end.set_result(status)

        def pass_on(status: ExitStatus) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                loop.call_soon_threadsafe(note, status)

        if self._child:
            self._child.when_ended(pass_on)
        return await end

    def notices(self) -> tuple[str, ...]:
        """Message keys of what it worked around by itself so far, where that changes what is measured."""
        from llmopt.failures import find_notices  # noqa: PLC0415 - reads its catalogue

        return tuple(
            f"failures.{one.id}.what" for one in find_notices(log_text(self.log_path), engine=self.plan.engine)
        )

    def kill(self) -> None:
        """Kill the whole tree at once; for memory emergencies, from any thread."""
        if self._child is not None:
            self._child.stop(0.0)

    def check(self) -> None:
        """Raise EngineDied when the engine has ended by itself."""
        status = self.exit_status()
        if status is not None:
            raise died(self.plan, self.log_path, status)


@contextlib.asynccontextmanager
async def launch(
    engine: Engine,
    model: ModelInfo,
    settings: Settings,
    *,
    guardian: Guardian,
    run_root: Path,
    on_phase: Callable[[Phase], None] | None = None,
    on_spawned: Callable[[Callable[[], Sequence[int]]], None] | None = None,
    clock: Clock | None = None,
    sampling: InferenceParams = GREEDY,
    at: Endpoint | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[RunningEngine]:
    """Start ``engine`` as it plans, wait until it answers, and bring its whole tree down on exit, whatever was raised.

    The completion that shows it is ready is asked with ``sampling``. ``at`` is a host and port (with a key) that it
    must listen on; without it, a private socket or port of our choice. ``env`` is added to the plan's (its devices).
    ``on_spawned`` is given what names its process tree as soon as there is one, so that loading can be watched.

    Raises EngineStartError when it does not become ready. An exception from the block becomes EngineDied (with the
    exception as its cause) where the engine had ended by itself. Both carry the classified failure as
    ``error.values["failure"]`` and command and last log lines as ``error.detail``.
    """
    clock, report = clock or MonotonicClock(), on_phase or (lambda _: None)
    order = _Order(engine, model, settings, run_root, clock, report, sampling, at, env or {})
    if on_spawned is not None:
        order = replace(order, spawned=on_spawned)
    order.report(Phase.STARTING)
    if engine.transport == "remote":
        yield await order.attach()
        return
    running, child = await order.start(guardian)
    orderly = False
    try:
        yield running
        orderly = True
    except Exception as error:
        if not isinstance(error, EngineDied) and (status := child.poll()) is not None:
            raise died(running.plan, running.log_path, status) from error
        raise
    finally:
        if orderly and child.poll() is None:
            order.report(Phase.DRAINING)
            await _drain(engine, running.endpoint, order.clock)
        running.stop_report = await order.stop(child, running.plan.stop_grace_s)


@dataclass(frozen=True)
class _Order:
    """What was asked for, and how one gets there."""

    engine: Engine
    model: ModelInfo
    settings: Settings
    run_root: Path
    clock: Clock
    report: Callable[[Phase], None]
    sampling: InferenceParams
    at: Endpoint | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    spawned: Callable[[Callable[[], Sequence[int]]], None] = lambda _: None

    async def attach(self) -> RunningEngine:
        """An engine that somebody else runs: only verified."""
        began_s = self.clock.now_s()
        folder = self.run_folder()
        plan = self.engine.plan(
            self.model, self.settings, RunFolder(folder=folder, endpoint=Endpoint(model=self.model.name))
        )
        log_path = folder / LOG_NAME
        try:
            await verify(plan, clock=self.clock, on_phase=self.report)
        except NotReady as reason:
            raise _not_ready(reason, plan, log_path) from None
        started_s = self.clock.now_s() - began_s
        return RunningEngine(plan, child=None, log_path=log_path, start_seconds=started_s, folder=folder)

    async def start(self, guardian: Guardian) -> tuple[RunningEngine, Child]:
        """A ready engine; a port that somebody else took meanwhile is replaced by another, up to three times."""
        for tries_left in reversed(range(PORT_TRIES)):
            folder = self.run_folder()
            plan = self.plan(folder)
            log_path = folder / LOG_NAME
            began_s = self.clock.now_s()
            child = await self.spawn(plan, guardian, folder)
            self.spawned(child.pids)
            try:
                endpoint = await climb(plan, child, clock=self.clock, on_phase=self.report, sampling=self.sampling)
            except NotReady as reason:
                await self.stop(child, min(plan.stop_grace_s, FAILED_GRACE_S))
                if not await _port_taken(reason, plan, log_path):
                    raise _not_ready(reason, plan, log_path) from None
                if tries_left == 0 or self.at is not None:
                    raise _not_ready(NotReady("port_taken", port=plan.endpoint.port), plan, log_path) from None
                _log.warning("port %d was taken by another process; trying another one", plan.endpoint.port)
                continue
            except BaseException:
                await self.stop(child, min(plan.stop_grace_s, FAILED_GRACE_S))
                raise
            plan = replace(plan, endpoint=endpoint)
            started_s = self.clock.now_s() - began_s
            return RunningEngine(plan, child=child, log_path=log_path, start_seconds=started_s, folder=folder), child
        raise AssertionError("the last try returns or raises")

    def plan(self, folder: Path) -> LaunchPlan:
        """At the endpoint asked for, else at one of our choice: a Unix socket, else a port."""
        if self.at is not None:
            return self.plan_with(replace(self.at, model=self.model.name), folder)
        socket_path = runtime_folder() / f"{secrets.token_hex(6)}.sock"
        endpoint = Endpoint(model=self.model.name, api_key=secrets.token_urlsafe(24))
        fits = hasattr(socket, "AF_UNIX") and len(str(socket_path).encode()) <= SOCKET_PATH_BYTES
        if self.engine.transport == "socket" and fits:
            return self.plan_with(replace(endpoint, socket_path=str(socket_path)), folder)
        plan = self.plan_with(endpoint, folder)
        return plan if plan.port_from_log else self.plan_with(replace(endpoint, port=_free_port()), folder)

    def plan_with(self, endpoint: Endpoint, folder: Path) -> LaunchPlan:
        """The engine's own plan for this endpoint."""
        plan = self.engine.plan(self.model, self.settings, RunFolder(folder=folder, endpoint=endpoint))
        return replace(plan, env={**plan.env, **self.env})

    def run_folder(self) -> Path:
        """A fresh folder for one launch, readable by us alone."""
        folder = ensure(self.run_root) / f"{self.engine.name}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        return folder

    async def stop(self, child: Child, grace_s: float) -> StopReport:
        """The stop ladder to its end, also when we are cancelled meanwhile: first the engine goes, then we obey."""
        self.report(Phase.STOPPING)
        stopping = asyncio.get_running_loop().run_in_executor(None, child.stop, grace_s)
        cancelled = await _done(stopping)
        self.report(Phase.STOPPED)
        if cancelled is not None:
            raise cancelled
        return stopping.result()

    async def spawn(self, plan: LaunchPlan, guardian: Guardian, folder: Path) -> Child:
        """The started child; where we are cancelled meanwhile it is stopped again first."""
        _log.info("engine command: %s", shlex.join(plan.argv))
        sockets = [Path(plan.endpoint.socket_path)] if plan.endpoint.socket_path else []
        start = functools.partial(guardian.spawn, plan.argv, env=plan.env, stdin=plan.stdin, sockets=sockets)
        call = functools.partial(start, container=plan.container, log_path=folder / LOG_NAME, cwd=folder)
        spawning = asyncio.get_running_loop().run_in_executor(None, call)
        cancelled = await _done(spawning)
        try:
            child = spawning.result()
        except EngineStartError as error:
            error.detail = f"$ {shlex.join(plan.argv)}"
            raise
        if cancelled is not None:
            await self.stop(child, 0.0)
            raise cancelled
        return child


async def _done(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until ``future`` is done, come what may; the cancellation that came meanwhile, for the caller to raise."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


def _free_port() -> int:
    """A port nobody listens on at this moment; another process may still take it before the engine does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _port_taken(reason: NotReady, plan: LaunchPlan, log_path: Path) -> bool:
    if reason.why == "port_taken":
        return True
    if reason.why != "exited" or not plan.endpoint.port:
        return False
    text = log_text(log_path).lower()
    return any(words in text for words in BIND_FAILURES) or await _somebody_listens(plan.endpoint)


async def _somebody_listens(endpoint: Endpoint) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(endpoint.host, endpoint.port), 1.0)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _drain(engine: Engine, endpoint: Endpoint, clock: Clock) -> None:
    """Wait a moment for requests under way, where the engine tells how many there are."""
    names = [engine.metric_names[word] for word in ("running", "waiting") if word in engine.metric_names]
    deadline_s = clock.now_s() + DRAIN_S
    while names and clock.now_s() < deadline_s:
        try:
            answer = await request(endpoint, "GET", "/metrics", timeout_s=DRAIN_S)
        except HttpError:
            return
        if not any(_value(line, names) for line in answer.body.decode("utf-8", "replace").splitlines()):
            return
        await asyncio.sleep(0.1)


def _value(line: str, names: Sequence[str]) -> float:
    """The value of one line of metrics where it is one of ``names``, else 0."""
    name, _, value = line.rpartition(" ")
    if name.partition("{")[0].strip() not in names:
        return 0.0
    with contextlib.suppress(ValueError):
        return float(value)
    return 0.0


# ── saying what went wrong ─────────────────────────────────────────────────────────────────────────────────────────


def died(plan: LaunchPlan, log_path: Path, status: ExitStatus) -> EngineDied:
    """The error for an engine that was ready and ended by itself."""
    key, values = _ending("died", status)
    return EngineDied(key, **_explained(plan, log_path, status, values))


def _not_ready(reason: NotReady, plan: LaunchPlan, log_path: Path) -> EngineError:
    if reason.status is not None:
        key, values = _ending("exited", reason.status)
    else:
        key, values = f"launch.{reason.why}", dict(reason.values)
    return EngineStartError(key, **_explained(plan, log_path, reason.status, values))


def _ending(word: str, status: ExitStatus) -> tuple[str, dict[str, Any]]:
    if status.lost:
        return "guardian.lost", {}
    if status.signal is not None:
        return f"launch.{word}_signal", {"signal": status.signal}
    return f"launch.{word}_code", {"code": status.code}


def _explained(plan: LaunchPlan, log_path: Path, status: ExitStatus | None, values: dict[str, Any]) -> dict[str, Any]:
    """What every such error carries: engine, classified failure, and as detail its explanation, command and log."""
    from llmopt.failures import classify  # noqa: PLC0415 - reads its catalogue; only needed when something failed

    http_status = values.get("http_status")
    if isinstance(http_status, int):
        failure = classify(_keyless(str(values["text"]), plan), engine=plan.engine, http_status=http_status)
    else:
        failure = classify(_keyless(log_text(log_path), plan), engine=plan.engine, exit_status=status)
    explanation = failure.explain() if failure.known else ""
    command = f"$ {shlex.join(plan.argv)}" if plan.argv else ""
    detail = "\n".join(part for part in (explanation, command, mask(_keyless(tail(log_path), plan))) if part)
    return {"engine": plan.engine, "failure": failure, "detail": detail, **values}


def _keyless(text: str, plan: LaunchPlan) -> str:
    key = plan.endpoint.api_key
    return text.replace(key, "***") if key else text
