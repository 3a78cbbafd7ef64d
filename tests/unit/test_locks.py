"""The measuring lock: one holder a machine, named to others, free again when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llmopt.errors import StorageError, UsageError
from llmopt.runtime.locks import MachineBusy, current_holder, measuring_lock

HOLD = """
import sys
from llmopt.runtime.locks import measuring_lock
with measuring_lock("holding"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "lock"
    monkeypatch.setenv("LLMOPT_LOCK_FILE", str(file))
    return file


@pytest.fixture
def holder():
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, "some", "argument"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_holds_it(holder: subprocess.Popen[bytes]) -> None:
    with pytest.raises(MachineBusy) as caught, measuring_lock("mine"):
        pass
    assert caught.value.holder is not None
    assert caught.value.holder.pid == holder.pid
    assert isinstance(caught.value, UsageError)
    assert [w for w in ("holding", str(holder.pid), "some argument") if w not in str(caught.value)] == []
    seen = current_holder()
    assert seen is not None
    assert seen.pid == holder.pid


def test_death_frees_it(holder: subprocess.Popen[bytes]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert current_holder() is None
    with measuring_lock("mine"):
        seen = current_holder()
        assert seen is not None
        assert seen.pid == os.getpid()


def test_waiting_ends_when_it_is_free(holder: subprocess.Popen[bytes]) -> None:
    waits: list[int | None] = []

    def on_wait(who: object) -> None:
        waits.append(getattr(who, "pid", None))
        assert holder.stdin is not None
        holder.stdin.close()

    with measuring_lock("mine", wait=True, on_wait=on_wait):
        assert waits == [holder.pid]


async def test_waiting_leaves_the_loop_free(holder: subprocess.Popen[bytes]) -> None:
    waiting = asyncio.Event()

    async def take() -> None:
        async with measuring_lock("mine", wait=True, on_wait=lambda _: waiting.set()):
            pass

    task = asyncio.ensure_future(take())
    await asyncio.wait_for(waiting.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert holder.poll() is None
    with pytest.raises(MachineBusy):
        async with measuring_lock("mine"):
            pass


def test_it_excludes_threads_of_one_process_and_is_free_after_an_error() -> None:
    outcomes: list[str] = []

    def other() -> None:
        try:
            with measuring_lock("other"):
                outcomes.append("taken")
        except MachineBusy:
            outcomes.append("busy")

    def run() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    def fail() -> None:
        with measuring_lock("mine"):
            run()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    run()
    assert outcomes == ["busy", "taken"]
    assert current_holder() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is what is tested")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_it() -> None:
    reader, writer = os.pipe()
    with measuring_lock("mine"):
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)  # lives until the test is over
            os._exit(0)
    try:
        os.close(reader)
        with measuring_lock("again"):
            pass
    finally:
        os.close(writer)
        os.waitpid(pid, 0)


def test_a_broken_note_is_no_reason_to_fail(lock_file: Path) -> None:
    with measuring_lock("mine"):
        lock_file.write_bytes(b"\xff{")
        with pytest.raises(MachineBusy) as caught, measuring_lock("other"):
            pass
    assert caught.value.holder is None
    assert str(lock_file) in str(caught.value)


def test_a_link_in_its_place_is_refused(lock_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    lock_file.symlink_to(target)
    with pytest.raises(StorageError), measuring_lock("mine"):
        pass
    assert target.read_text() == "kept"


@pytest.mark.parametrize("place", ["folder", "missing/lock"])
def test_an_impossible_place_is_a_clear_error(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("LLMOPT_LOCK_FILE", str(tmp_path / place))
    with pytest.raises(StorageError, match=place), measuring_lock("mine"):
        pass


def test_looking_never_makes_a_taker_fail() -> None:
    ended = threading.Event()
    watchers = [threading.Thread(target=_look_until, args=(ended,)) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(50):
            with measuring_lock("mine"):
                pass
    finally:
        ended.set()
        for watcher in watchers:
            watcher.join()


def _look_until(ended: threading.Event) -> None:
    deadline = time.monotonic() + 60
    while not ended.wait(0.005) and time.monotonic() < deadline:
        current_holder()
