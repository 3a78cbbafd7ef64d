"""The background loop: from every place a call can come, and at every end a process can have."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from llmopt.errors import UsageError
from llmopt.runtime import aio
from llmopt.runtime.aio import AsyncTimeout, BackgroundLoop, TaskState, run_async_safe, submit_async_task


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


async def for_ever(started: threading.Event | None = None, cleaned: threading.Event | None = None) -> None:
    if started:
        started.set()
    try:
        await asyncio.Event().wait()
    finally:
        if cleaned:
            cleaned.set()


def python(code: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_from_a_plain_thread() -> None:
    assert run_async_safe(double(21), timeout=60) == 42


async def test_from_inside_a_running_loop() -> None:
    assert run_async_safe(double(21), timeout=60) == 42


def test_from_inside_asyncio_run_of_another_thread() -> None:
    async def outer() -> int:
        return run_async_safe(double(4)) + await asyncio.to_thread(run_async_safe, double(5))

    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(lambda: asyncio.run(outer())).result(60) == 18


def test_on_the_loop_itself_it_is_refused_with_an_explanation() -> None:
    async def nested() -> int:
        return run_async_safe(double(1))

    with pytest.raises(UsageError, match="await") as caught:
        run_async_safe(nested(), timeout=60)
    assert caught.value.key == "aio.would_wait_for_itself"


def test_waiting_for_a_task_on_the_loop_itself_is_refused_too() -> None:
    async def nested() -> None:
        aio.wait_async_task(submit_async_task(double(1)))

    with pytest.raises(UsageError):
        run_async_safe(nested(), timeout=60)


def test_the_loop_may_call_itself_through_a_worker_thread() -> None:
    async def nested() -> int:
        return await asyncio.to_thread(run_async_safe, double(8))

    assert run_async_safe(nested(), timeout=60) == 16


def test_an_exception_passes_on() -> None:
    async def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        run_async_safe(fail())


def test_any_awaitable_will_do_and_anything_else_is_explained() -> None:
    class Later:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return "done"

    assert run_async_safe(Later()) == "done"
    with pytest.raises(UsageError) as caught:
        run_async_safe(double)  # type: ignore[arg-type]
    assert caught.value.key == "aio.not_awaitable"


def test_a_time_out_cancels_and_waits_for_the_clean_up() -> None:
    cleaned = threading.Event()
    with pytest.raises(TimeoutError) as caught:
        run_async_safe(for_ever(cleaned=cleaned), timeout=0.05)
    assert cleaned.is_set()
    assert isinstance(caught.value, AsyncTimeout)
    assert not caught.value.still_running


def test_a_task_that_ignores_its_cancellation_does_not_hold_its_caller(monkeypatch, caplog) -> None:
    release = threading.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    loop = BackgroundLoop()
    monkeypatch.setattr(aio, "_CANCEL_GRACE_S", 0.1)
    with pytest.raises(AsyncTimeout) as caught:
        loop.run(stubborn(), timeout=0.05)
    assert caught.value.still_running
    assert "ignores its cancellation" in caplog.text
    assert loop.run(double(3), timeout=60) == 6
    release.set()
    assert loop.close()


def test_context_variables_are_carried_over() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        return variable.get()

    variable.set("mine")
    assert run_async_safe(read()) == "mine"
    assert aio.wait_async_task(submit_async_task(read())) == "mine"
    other = threading.Thread(target=lambda: results.append(run_async_safe(read())))
    results: list[str] = []
    other.start()
    other.join()
    assert results == ["unset"]


def test_the_task_list_follows_a_task_to_its_end() -> None:
    started, cleaned = threading.Event(), threading.Event()
    loop = BackgroundLoop()
    runs = loop.submit(for_ever(started, cleaned), "forever")
    good = loop.submit(double(5), "good")
    assert loop.wait(good, 60) == 10
    assert started.wait(60)
    states = {info.task_id: info.state for info in loop.tasks()}
    assert states == {runs: TaskState.RUNNING, good: TaskState.DONE}
    with pytest.raises(AsyncTimeout) as caught:
        loop.wait(runs, 0.01)
    assert caught.value.still_running
    assert not cleaned.is_set()
    assert loop.cancel(runs)
    assert cleaned.is_set()
    assert not loop.cancel(runs)
    assert loop.tasks()[0].state is TaskState.CANCELLED
    with pytest.raises(concurrent.futures.CancelledError):
        loop.wait(runs)
    assert loop.close()


def test_a_failed_task_keeps_its_error_and_a_forgotten_one_is_gone() -> None:
    async def fail() -> None:
        raise ValueError("reason")

    loop = BackgroundLoop()
    failed = loop.submit(fail())
    with pytest.raises(ValueError, match="reason"):
        loop.wait(failed, 60)
    assert loop.tasks()[0].error == "ValueError: reason"
    loop.forget(failed)
    assert loop.tasks() == ()
    with pytest.raises(UsageError, match=failed):
        loop.wait(failed)
    running = loop.submit(for_ever())
    with pytest.raises(UsageError):
        loop.forget(running)
    assert loop.close()


def test_finished_tasks_do_not_pile_up() -> None:
    loop = BackgroundLoop()
    for number in range(1000):
        loop.wait(loop.submit(double(number)), 60)
    assert len(loop.tasks()) <= aio._FINISHED_KEPT + 1
    assert loop.close()


def test_many_threads_at_once() -> None:
    before = threading.active_count()
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        results = list(pool.map(lambda n: run_async_safe(double(n), timeout=60), range(500)))
    assert results == [2 * n for n in range(500)]
    assert threading.active_count() <= before + 1


def test_closing_cancels_what_never_ends_and_ends_the_thread() -> None:
    loop = BackgroundLoop()
    cleaned = [threading.Event() for _ in range(50)]
    started = [threading.Event() for _ in range(50)]
    for begin, clean in zip(started, cleaned, strict=True):
        loop.submit(for_ever(begin, clean))
    assert all(each.wait(60) for each in started)
    assert loop.close()
    assert all(each.is_set() for each in cleaned)
    assert not loop._thread.is_alive()
    with pytest.raises(UsageError):
        loop.run(double(1))


def test_cancel_before_the_task_began() -> None:
    loop = BackgroundLoop()
    blocked = threading.Event()
    loop._loop.call_soon_threadsafe(blocked.wait, 60)
    task = loop.submit(double(1))
    waiter = threading.Thread(target=lambda: loop.cancel(task, 60))
    waiter.start()
    deadline = time.monotonic() + 60
    while len(loop._loop._ready) < 2 and time.monotonic() < deadline:  # type: ignore[attr-defined]
        threading.Event().wait(0.001)
    blocked.set()
    waiter.join()
    assert loop.tasks()[0].state is TaskState.CANCELLED
    assert loop.close()


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_after_a_fork_the_child_has_a_loop_of_its_own() -> None:
    result = python(
        """
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # fork with threads: the very case under test
        from core.async_manager import run_async_safe
        import asyncio
        async def value(x):
            await asyncio.sleep(0.01)
            return x
        assert run_async_safe(value(1), timeout=30) == 1
        pid = os.fork()
        if pid == 0:
            os._exit(7 if run_async_safe(value(2), timeout=30) == 2 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert run_async_safe(value(3), timeout=30) == 3
        """
    )
    assert result.returncode == 0, result.stderr


def test_at_interpreter_exit_it_still_answers() -> None:
    result = python(
        """
        import asyncio, atexit
        from llmopt.runtime.aio import run_async_safe
        async def value(x):
            await asyncio.sleep(0.01)
            return x
        atexit.register(lambda: print("late", run_async_safe(value(2), timeout=30)))
        print("early", run_async_safe(value(1), timeout=30))
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["early", "1", "late", "2"]
    assert result.stderr == ""


def test_a_task_that_never_ends_does_not_hold_the_interpreter() -> None:
    result = python(
        """
        import asyncio
        from llmopt.runtime.aio import submit_async_task, list_async_tasks
        async def for_ever():
            try:
                await asyncio.Event().wait()
            finally:
                print("cleaned", flush=True)
        submit_async_task(for_ever(), name="forever")
        while not list_async_tasks():
            pass
        import llmopt.runtime.aio as aio
        aio.run_async_safe(asyncio.sleep(0))
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "cleaned"
    assert result.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals to one's own process")
def test_ctrl_c_while_waiting_cancels_the_work() -> None:
    result = python(
        """
        import asyncio, os, signal
        from llmopt.runtime.aio import run_async_safe
        async def work():
            asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGINT)
            try:
                await asyncio.Event().wait()
            finally:
                print("cleaned", flush=True)
        try:
            run_async_safe(work())
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["cleaned", "interrupted"]
