"""One background event loop for the whole process: coroutines from any thread, without nesting and without deadlock."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import inspect
import itertools
import os
import threading
import time
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from llmopt.errors import LlmoptError, UsageError
from llmopt.logs import get_logger

__all__ = [
    "AsyncTimeout",
    "BackgroundLoop",
    "TaskInfo",
    "TaskState",
    "cancel_async_task",
    "forget_async_task",
    "list_async_tasks",
    "run_async_safe",
    "shared_loop",
    "submit_async_task",
    "wait_async_task",
]

T = TypeVar("T")

_CANCEL_GRACE_S = 5.0
"""How long a cancelled task may take to clean up before its caller goes on without it."""
_EXIT_GRACE_S = 2.0
_FINISHED_KEPT = 256


class AsyncTimeout(LlmoptError, TimeoutError):
    """The time allowed is over; the coroutine was cancelled and, unless ``still_running``, has ended."""

    def __init__(self, key: str, *, still_running: bool, **values: Any) -> None:
        super().__init__(key, **values)
        self.still_running = still_running


class TaskState(str, Enum):
    """Where a task is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """One task of the list. Times are seconds of the monotonic clock."""

    task_id: str
    name: str
    state: TaskState
    started_s: float
    ended_s: float | None = None
    error: str | None = None


class _Entry:
    """A submitted task: its outcome as a thread-safe future, and the asyncio task while it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started_s = time.monotonic()
        self.ended_s: float | None = None
        self.outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.task: asyncio.Task[Any] | None = None
        self.cancel_asked = False

    def info(self, task_id: str) -> TaskInfo:
        state, error = TaskState.RUNNING, None
        if self.outcome.cancelled():
            state = TaskState.CANCELLED
        elif self.outcome.done():
            failure = self.outcome.exception()
            state = TaskState.DONE if failure is None else TaskState.FAILED
            error = None if failure is None else f"{type(failure).__name__}: {failure}"
        return TaskInfo(
            task_id=task_id,
            name=self.name,
            state=state,
            started_s=self.started_s,
            ended_s=self.ended_s,
            error=error,
        )


class BackgroundLoop:
    """An event loop in a daemon thread of its own, and the list of tasks on it. Every method may be called anywhere."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="llmopt-async", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @property
    def closed(self) -> bool:
        """Whether no more work is taken."""
        return self._closed

    # ── work ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, awaitable: Awaitable[T], timeout: float | None = None) -> T:
        """Run to the end and return the result; see ``run_async_safe``."""
        coroutine = _coroutine(awaitable)
        self._refuse_own_thread(coroutine)
        entry = self._start(coroutine, "run_async_safe", contextvars.copy_context())
        try:
            done = self._await_outcome(entry, timeout)
        except BaseException:  # Ctrl-C while waiting: the work must not go on unseen
            self._cancel_and_wait(entry, _CANCEL_GRACE_S)
            raise
        if not done:
            ended = self._cancel_and_wait(entry, _CANCEL_GRACE_S)
            raise AsyncTimeout(
                "aio.timeout" if ended else "aio.timeout_stuck", still_running=not ended, seconds=timeout
            )
        result: T = entry.outcome.result(0)
        return result

    def submit(self, awaitable: Awaitable[Any], name: str | None = None) -> str:
        """Start without waiting; returns the task's id. Allowed on the loop's own thread too."""
        coroutine = _coroutine(awaitable)
        number = next(self._numbers)
        label = name or str(getattr(coroutine, "__name__", "task"))
        task_id = f"{label}-{number}"
        entry = self._start(coroutine, label, contextvars.copy_context())
        with self._lock:
            self._entries[task_id] = entry
            finished = [key for key, each in self._entries.items() if each.outcome.done()]
            for key in finished[:-_FINISHED_KEPT]:
                del self._entries[key]
        return task_id

    def wait(self, task_id: str, timeout: float | None = None) -> Any:
        """The result of a task, or its exception; AsyncTimeout leaves it running."""
        self._refuse_own_thread(None)
        entry = self._entry(task_id)
        if not self._await_outcome(entry, timeout):
            raise AsyncTimeout("aio.still_running", still_running=True, name=task_id, seconds=timeout)
        return entry.outcome.result(0)

    def cancel(self, task_id: str, timeout: float = _CANCEL_GRACE_S) -> bool:
        """Cancel a task and wait for its end; False where it had ended before or still runs after ``timeout``.

        On the loop's own thread the cancellation is only asked for: waiting there would wait for itself.
        """
        entry = self._entry(task_id)
        if entry.outcome.done():
            return False
        if threading.current_thread() is self._thread:
            self._ask_cancel(entry)
            return True
        return self._cancel_and_wait(entry, timeout)

    def forget(self, task_id: str) -> None:
        """Drop a finished task and its result from the list; raises UsageError while it runs."""
        if not self._entry(task_id).outcome.done():
            raise UsageError("aio.forget_running", name=task_id)
        with self._lock:
            self._entries.pop(task_id, None)

    def tasks(self) -> tuple[TaskInfo, ...]:
        """Every submitted task, oldest first; of finished ones the newest 256."""
        with self._lock:
            entries = list(self._entries.items())
        return tuple(entry.info(task_id) for task_id, entry in entries)

    def close(self, grace_s: float = _EXIT_GRACE_S) -> bool:
        """Cancel everything, wait up to ``grace_s``, end the thread; False where a task would not end."""
        self._closed = True
        if not self._thread.is_alive():
            return True
        if threading.current_thread() is self._thread:
            self._loop.stop()
            return False
        ended: concurrent.futures.Future[bool] = asyncio.run_coroutine_threadsafe(self._drain(grace_s), self._loop)
        try:
            clean = ended.result(grace_s + 1)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            clean = False  # a coroutine blocks the loop itself; its daemon thread ends with the process
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(0 if not clean else 1)
        if not self._thread.is_alive():
            self._loop.close()
        return clean

    async def _drain(self, grace_s: float) -> bool:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        _, left = await asyncio.wait(tasks, timeout=grace_s) if tasks else (set(), set())
        await self._loop.shutdown_asyncgens()
        return not left

    # ── pieces ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _refuse_own_thread(self, coroutine: Coroutine[Any, Any, Any] | None) -> None:
        if threading.current_thread() is self._thread:
            if coroutine is not None:
                coroutine.close()
            raise UsageError("aio.would_wait_for_itself")

    def _start(self, coroutine: Coroutine[Any, Any, T], name: str, context: contextvars.Context) -> _Entry:
        if self._closed:
            coroutine.close()
            raise UsageError("aio.closed")
        entry = _Entry(name)

        def begin() -> None:
            entry.task = self._loop.create_task(coroutine, name=name, context=context)
            entry.task.add_done_callback(lambda task: _settle(entry, task))
            if entry.cancel_asked:
                entry.task.cancel()

        self._loop.call_soon_threadsafe(begin, context=contextvars.Context())
        return entry

    def _entry(self, task_id: str) -> _Entry:
        with self._lock:
            entry = self._entries.get(task_id)
        if entry is None:
            raise UsageError("aio.unknown_task", name=task_id)
        return entry

    @staticmethod
    def _await_outcome(entry: _Entry, timeout: float | None) -> bool:
        return bool(concurrent.futures.wait([entry.outcome], timeout).done)

    def _ask_cancel(self, entry: _Entry) -> None:
        def ask() -> None:
            entry.cancel_asked = True
            if entry.task is not None:
                entry.task.cancel()

        self._loop.call_soon_threadsafe(ask)

    def _cancel_and_wait(self, entry: _Entry, timeout: float) -> bool:
        self._ask_cancel(entry)
        ended = self._await_outcome(entry, timeout)
        if not ended:
            get_logger(__name__).warning("task %s ignores its cancellation and goes on in the background", entry.name)
        return ended


def _settle(entry: _Entry, task: asyncio.Task[Any]) -> None:
    entry.ended_s = time.monotonic()
    entry.task = None
    if task.cancelled():
        entry.outcome.cancel()
        entry.outcome.set_running_or_notify_cancel()
    elif (failure := task.exception()) is not None:
        entry.outcome.set_exception(failure)
    else:
        entry.outcome.set_result(task.result())


def _coroutine(awaitable: Awaitable[T]) -> Coroutine[Any, Any, T]:
    """Any awaitable as a coroutine; raises UsageError for anything else (most often a function left uncalled)."""
    if inspect.iscoroutine(awaitable):
        return awaitable
    if not inspect.isawaitable(awaitable):
        raise UsageError("aio.not_awaitable", kind=type(awaitable).__name__)

    async def wait() -> T:
        return await awaitable

    return wait()


# ── the one loop of this process ───────────────────────────────────────────────────────────────────────────────────

_shared_lock = threading.Lock()
_shared: BackgroundLoop | None = None
_exiting = False


def shared_loop() -> BackgroundLoop:
    """The loop of this process, started at the first use (again after a fork, in the child)."""
    global _shared  # noqa: PLW0603 - one loop a process is the point
    with _shared_lock:
        if _shared is None:
            _shared = BackgroundLoop()
            atexit.register(_close_at_exit)
        return _shared


def _close_at_exit() -> None:
    global _exiting  # noqa: PLW0603 - set once, at the end
    _exiting = True
    if _shared is not None:
        _shared.close()


def _forget_in_child() -> None:
    """A forked child inherits no thread: it starts with a loop of its own, and with a lock nobody holds."""
    global _shared, _shared_lock
    _shared, _shared_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def run_async_safe(coro: Awaitable[T], timeout: float | None = None) -> T:
    """Run ``coro`` on the background loop from any thread, inside or outside a running loop, and return its result.

    After ``timeout`` seconds it is cancelled, its clean-up is waited for (at most 5 s), and AsyncTimeout (a
    TimeoutError) is raised. Called on the background loop itself it would wait for itself, and raises UsageError.
    At interpreter exit, when the loop is gone, it runs in the calling thread.
    """
    if _exiting and not _inside_a_loop():
        return asyncio.run(_bounded(_coroutine(coro), timeout))
    return shared_loop().run(coro, timeout)


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _bounded(coroutine: Coroutine[Any, Any, T], seconds: float | None) -> T:
    try:
        return await asyncio.wait_for(coroutine, seconds)
    except TimeoutError:
        raise AsyncTimeout("aio.timeout", still_running=False, seconds=seconds) from None


def submit_async_task(coro: Awaitable[Any], name: str | None = None) -> str:
    """Start ``coro`` on the background loop without waiting; returns the id for the functions below."""
    return shared_loop().submit(coro, name)


def wait_async_task(task_id: str, timeout: float | None = None) -> Any:
    """The result of a task, or its exception raised; AsyncTimeout after ``timeout`` seconds leaves it running."""
    return shared_loop().wait(task_id, timeout)


def cancel_async_task(task_id: str, timeout: float = _CANCEL_GRACE_S) -> bool:
    """Cancel a task and wait for its end; False where it had ended before or would not end."""
    return shared_loop().cancel(task_id, timeout)


def forget_async_task(task_id: str) -> None:
    """Drop a finished task and its result from the list."""
    shared_loop().forget(task_id)


def list_async_tasks() -> tuple[TaskInfo, ...]:
    """Every submitted task with its state, oldest first."""
    return shared_loop().tasks()
