"""A winning configuration put to use: started as it was measured, watched, started again, and gone when told to."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from llmopt.config.settings import SettingsView
from llmopt.engines.accelerators import placement
from llmopt.engines.base import Engine
from llmopt.engines.launch import RunningEngine, launch
from llmopt.engines.registry import get_engine
from llmopt.errors import DataError, EngineDied, EngineError, EngineMissing, StorageError, UsageError
from llmopt.hardware.levels import LevelChange, MemoryLevel
from llmopt.hardware.probe import probe
from llmopt.hardware.supervision import LaunchMemory, WatchedLaunch
from llmopt.messages import t
from llmopt.models.catalogue import find_model
from llmopt.models.memory_fit import memory_fit
from llmopt.paths import Workspace, runtime_folder
from llmopt.records import Configuration, Endpoint, Hardware, Load, ModelInfo, Task
from llmopt.runtime.clock import Clock, MonotonicClock
from llmopt.runtime.guardian import Guardian
from llmopt.runtime.http import HttpError, base_url
from llmopt.runtime.http import request as ask
from llmopt.runtime.locks import current_holder
from llmopt.study.contenders import find_result, load_result, stored
from llmopt.study.events import Event, Listener, silent
from llmopt.study.weights import bring_weights, fetching_data

__all__ = ["Restarts", "ServeRequest", "Served", "prepare_serving", "serve"]

HEALTH_S = 5.0
"""Seconds between two looks at a serving engine."""
HEALTH_TIMEOUT_S = 10.0
PATIENCE = 3
"""Looks in a row without an answer before an engine counts as hung."""
RESTART_WINDOW_S = 600.0
FIRST_PAUSE_S = 1.0
"""Before the first restart; doubled for each further one within the window."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServeRequest:
    """What to serve: a result (a study's name, its folder or its file), and where."""

    result: str
    host: str = "127.0.0.1"
    port: int = 8080
    key_file: Path | None = None
    """A file whose first line is the key; without it a new key is made and kept in a file of mode 0600."""
    restarts: int = 3
    """Restarts within ten minutes before it is given up."""

    def __post_init__(self) -> None:
        """Only this machine may be asked to listen on: whoever wants more puts a proxy before it."""
        if self.host not in LOOPBACK:
            raise UsageError("serve.loopback", host=self.host)
        if not 0 < self.port < 1 << 16:
            raise UsageError("serve.port", value=self.port)
        if self.restarts < 0:
            raise UsageError("serve.restarts", value=self.restarts)


@dataclass(frozen=True, kw_only=True)
class Served:
    """Everything needed to start it."""

    study: str
    engine: Engine
    model: ModelInfo
    configuration: Configuration
    hardware: Hardware
    task: Task
    differences: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """What is not as it was when it was measured: message keys of area ``serve`` with their values."""


@dataclass
class Restarts:
    """How often an engine may be started again: ``most`` times in a window, with growing pauses."""

    most: int
    window_s: float = RESTART_WINDOW_S
    _at: deque[float] = field(default_factory=deque)

    def pause_s(self, now_s: float) -> float | None:
        """Seconds to wait before the next start, or None where it is given up."""
        while self._at and now_s - self._at[0] > self.window_s:
            self._at.popleft()
        if len(self._at) >= self.most:
            return None
        self._at.append(now_s)
        return FIRST_PAUSE_S * 2.0 ** (len(self._at) - 1)


def prepare_serving(request: ServeRequest, workspace: Workspace, settings: SettingsView, listener: Listener) -> Served:
    """Read the result and check that this machine can serve it. Raises LlmoptError kinds before anything starts."""
    path = find_result(request.result, workspace)
    if path is None:
        raise DataError("serve.no_result", name=request.result, folder=workspace.results)
    result = load_result(path)
    wanted = stored(result)
    if wanted.configuration is None:
        raise DataError("benchmark.not_a_result", path=path, reason="best")
    settings.apply_engine_environment()
    engine = get_engine(wanted.configuration.engine)
    if engine.transport == "remote":
        raise UsageError("serve.remote", engine=engine.name)
    installed = engine.installation()
    if not installed.available:
        raise EngineMissing("engines.not_usable", name=engine.name, reason=t(installed.why_not or "engines.unknown"))
    hardware = probe()
    model = _model(result, wanted.model, engine, workspace, listener)
    task = _task(result)
    fit = memory_fit(engine.name, model, wanted.configuration.launch, hardware, task)
    if fit.fits is False:
        raise fit.error()
    return Served(
        study=wanted.label,
        engine=engine,
        model=model,
        configuration=wanted.configuration,
        hardware=hardware,
        task=task,
        differences=tuple(_differences(result, engine, hardware, model)),
    )


def _model(result: Mapping[str, Any], name: str, engine: Engine, workspace: Workspace, listener: Listener) -> ModelInfo:
    entry = find_model(name, workspace)
    if not engine.needs_weights:
        return entry.facts
    form = (result.get("model") or {}).get("format")

    def fetching(progress: Any) -> None:
        listener(Event(kind="weights", data=fetching_data(progress)))

    wanted = form if form in {"gguf", "safetensors"} else None
    return bring_weights(entry, wanted, workspace=workspace, progress=fetching)


def _task(result: Mapping[str, Any]) -> Task:
    """The load it was chosen for; memory is judged by it."""
    given = result.get("task") or {}
    load = given.get("load") or {}
    return Task(
        load=Load(streams=load.get("streams") or 1),
        max_tokens=int(given.get("max_tokens") or 256),
        prompt_tokens=int(given.get("prompt_tokens") or 1024),
        prefix_cache=bool(given.get("prefix_cache")),
    )


def _differences(result: Mapping[str, Any], engine: Engine, hardware: Hardware, model: ModelInfo) -> Any:
    """What makes this run another one than the measured: the user should know, and decide."""
    then, now = (result.get("versions") or {}).get(engine.name), engine.installation().version
    if then and now and then != now:
        yield "serve.other_version", {"engine": engine.name, "then": then, "now": now}
    fingerprint = (result.get("hardware") or {}).get("fingerprint")
    if fingerprint and fingerprint != hardware.fingerprint:
        yield "serve.other_machine", {}
    size = (result.get("model") or {}).get("weight_bytes")
    if size and model.weight_bytes and size != model.weight_bytes:
        yield "serve.other_weights", {"model": model.name}


# ── serving ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def serve(
    served: Served,
    request: ServeRequest,
    *,
    workspace: Workspace,
    listener: Listener = silent,
    clock: Clock | None = None,
    health_s: float = HEALTH_S,
) -> None:
    """Serve until cancelled; whatever ends it, nothing is left running. Raises EngineError where it is given up."""
    clock = clock or MonotonicClock()
    for difference, values in served.differences:
        _note(listener, difference, **values)
    holder = current_holder()
    if holder is not None:
        _note(listener, "serve.measuring", what=holder.what)
    memory, restarts = LaunchMemory(), Restarts(most=request.restarts)
    with _Key(request) as key:
        at = Endpoint(model=served.model.name, host=request.host, port=request.port, api_key=key.text)
        ready_once = False
        while True:
            try:
                async with _running(served, at, memory, workspace.logs / "serve", listener) as (running, watched):
                    ready_once = True
                    _tell_ready(listener, served, running, key)
                    await _watch(running, watched, health_s)
            except EngineError as error:
                pause_s = restarts.pause_s(clock.now_s()) if ready_once else None
                if pause_s is None:
                    raise
                _note(listener, "serve.restart", why=error.what, seconds=f"{pause_s:g}")
                await asyncio.sleep(pause_s)
            finally:
                _tell_release(listener, memory)


@asynccontextmanager
async def _running(
    served: Served, at: Endpoint, memory: LaunchMemory, run_root: Path, listener: Listener
) -> AsyncIterator[tuple[RunningEngine, WatchedLaunch]]:
    actions = _Actions()
    async with memory.around(served.model.name, actions=actions) as watched:
        watched.on_level(lambda change: _tell_level(listener, change))
        async with launch(
            served.engine,
            served.model,
            served.configuration.launch,
            guardian=Guardian.shared(),
            run_root=run_root,
            on_phase=lambda phase: listener(Event(kind="engine", data={"phase": phase.value})),
            at=at,
            env=placement(served.configuration.launch, served.hardware),
        ) as running:
            actions.engine = running
            watched.attach(running.pids)
            watched.phase("serving")
            yield running, watched


async def _watch(running: RunningEngine, watched: WatchedLaunch, health_s: float) -> None:
    """Look after a serving engine; returns never, raises EngineDied when it ended, hung, or had to be killed."""
    ended = asyncio.ensure_future(running.ended())
    silent_looks = 0
    try:
        while True:
            await asyncio.wait({ended}, timeout=health_s)
            running.check()
            silent_looks = 0 if await _healthy(running) else silent_looks + 1
            if silent_looks >= PATIENCE:
                raise EngineDied("serve.hung", seconds=round(PATIENCE * (health_s + HEALTH_TIMEOUT_S)), engine="")
            if watched.level is MemoryLevel.EMERGENCY:
                raise EngineDied("serve.memory", engine="")
    finally:
        ended.cancel()


async def _healthy(running: RunningEngine) -> bool:
    try:
        answer = await ask(running.endpoint, "GET", running.plan.health_path, timeout_s=HEALTH_TIMEOUT_S)
    except HttpError:
        return False
    return answer.status < 500  # noqa: PLR2004 - a server that refuses is alive


class _Actions:
    """What rising memory does to a serving engine: users hold the load, so only the last level acts."""

    def __init__(self) -> None:
        self.engine: RunningEngine | None = None

    def pause(self, change: LevelChange) -> None:
        """The load is its users'."""

    def resume(self) -> None:
        """Nothing was paused."""

    def abort(self, change: LevelChange) -> None:
        """Told to the user by the level; the engine goes on."""

    def kill(self, change: LevelChange) -> None:
        """Before the system picks a victim of its own: end it, and let the restart policy decide."""
        del change
        if self.engine is not None:
            self.engine.kill()


class _Key:
    """The key clients must send: the user's, or a new one in a private file that goes when serving ends."""

    def __init__(self, request: ServeRequest) -> None:
        self._request = request
        self.path: Path | None = request.key_file
        self.text = ""

    def __enter__(self) -> Self:
        if self._request.key_file is not None:
            try:
                self.text = self._request.key_file.read_text(encoding="utf-8").splitlines()[0].strip()
            except (OSError, ValueError, IndexError) as error:
                raise DataError("serve.bad_key", path=self._request.key_file, reason=error) from None
            if not self.text:
                raise DataError("serve.bad_key", path=self._request.key_file, reason="-")
            return self
        self.text = secrets.token_urlsafe(24)
        self.path = runtime_folder() / f"serve-{self._request.port}.key"
        try:
            self.path.unlink(missing_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.text + "\n")
        except OSError as error:
            raise StorageError("serve.key_unwritable", path=self.path, reason=error.strerror or error) from None
        return self

    def __exit__(self, *exception: object) -> None:
        if self._request.key_file is None and self.path is not None:
            self.path.unlink(missing_ok=True)


# ── telling ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _note(listener: Listener, key: str, **values: Any) -> None:
    listener(Event(kind="note", data={"key": key, "values": values}))


def _tell_ready(listener: Listener, served: Served, running: RunningEngine, key: _Key) -> None:
    endpoint = running.endpoint
    url = base_url(endpoint)
    keyed = endpoint.api_key is not None
    data = {
        "url": url,
        "model": endpoint.model,
        "key_file": str(key.path) if keyed else None,
        "request": served.configuration.request.given(),
        "command": shlex.join(running.plan.command_here or running.plan.command),
        "pids": list(running.pids()),
        "log": str(running.log_path),
    }
    listener(Event(kind="serving", data=data))


def _tell_level(listener: Listener, change: LevelChange) -> None:
    data = {"before": change.before.name, "after": change.after.name, "where": change.where}
    listener(Event(kind="memory", data=data))


def _tell_release(listener: Listener, memory: LaunchMemory) -> None:
    report = memory.releases[-1] if memory.releases else None
    if report is not None:
        key = "serve.released" if report.verified else "serve.not_released"
        _note(listener, key, gib=f"{report.unreturned_bytes / (1 << 30):.2f}")
