"""Guarded functions, contexts and the history: nothing swallowed that must pass, nothing lost that happened."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
from pathlib import Path

import pytest

from core.error_handler import error_context as documented_context
from core.error_handler import safe_execute as documented
from llmopt.errors import DataError, UsageError
from llmopt.failures import (
    Failure,
    FailureRecord,
    History,
    JsonLinesSink,
    MemorySink,
    error_context,
    explain_exception,
    get_history,
    safe_execute,
    set_history,
)


@pytest.fixture(autouse=True)
def history():
    before = set_history(History(MemorySink()))
    yield get_history()
    set_history(before)


def test_the_documented_lines_run_as_written() -> None:
    assert documented is safe_execute
    assert documented_context is error_context

    @safe_execute(fallback_result="default")
    def risky_function():
        raise RuntimeError("no")

    assert risky_function() == "default"


def test_a_function_that_works_is_left_alone(history) -> None:
    @safe_execute(fallback_result=None, retries=3)
    def add(a: int, *, b: int) -> int:
        """Adds."""
        return a + b

    assert add(1, b=2) == 3
    assert add.__doc__ == "Adds."
    assert add.__name__ == "add"
    assert history.recent() == ()


def test_retries_wait_longer_each_time_and_end() -> None:
    waits: list[float] = []
    calls = []

    @safe_execute(fallback_result=-1, retries=4, wait_s=1, most_wait_s=3, sleep=waits.append)
    def never() -> int:
        calls.append(1)
        raise ValueError("again")

    assert never() == -1
    assert len(calls) == 5
    assert waits == [1, 2, 3, 3]


def test_success_on_a_retry_returns_the_result(history) -> None:
    answers = iter([OSError("first"), OSError("second"), "good"])

    @safe_execute(fallback_result="bad", retries=2, sleep=lambda _: None)
    def third_time() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert third_time() == "good"
    assert [record.text for record in history.recent()] == ["OSError: first", "OSError: second"]


async def test_async_functions_are_guarded_too() -> None:
    calls = []

    @safe_execute(fallback_result="later", retries=1, wait_s=0)
    async def fails() -> str:
        calls.append(1)
        await asyncio.sleep(0)
        raise RuntimeError("async")

    assert await fails() == "later"
    assert len(calls) == 2


def test_only_the_named_kinds_are_caught() -> None:
    @safe_execute(fallback_result=0, on=(KeyError, ValueError))
    def raises(error: Exception) -> int:
        raise error

    assert raises(KeyError("k")) == 0
    assert raises(ValueError("v")) == 0
    with pytest.raises(TypeError):
        raises(TypeError("t"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
def test_what_ends_the_program_always_passes(error: BaseException, history) -> None:
    @safe_execute(fallback_result=0, retries=5, on=BaseException, sleep=lambda _: None)
    def stop() -> int:
        raise error

    with pytest.raises(type(error)):
        stop()
    assert history.recent() == ()


async def test_cancelling_an_async_function_cancels_it() -> None:
    started = asyncio.Event()

    @safe_execute(fallback_result="swallowed", on=BaseException)
    async def work() -> str:
        started.set()
        await asyncio.Event().wait()
        return "done"

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await started.wait()
        task.cancel()
    assert task.cancelled()


def test_what_needs_the_user_is_not_retried() -> None:
    calls = []

    @safe_execute(fallback_result=None, retries=5, sleep=lambda _: pytest.fail("waited"))
    def gated() -> None:
        calls.append(1)
        raise OSError("401 Client Error. Cannot access gated repo for url https://hub/x.")

    assert gated() is None
    assert len(calls) == 1


def test_it_works_bare_and_on_methods() -> None:
    class Thing:
        @safe_execute
        def broken(self) -> str:
            raise RuntimeError("x")

        @safe_execute("fine")
        def other(self) -> str:
            raise RuntimeError("x")

    assert Thing().broken() is None
    assert Thing().other() == "fine"


def test_what_cannot_be_guarded_is_refused() -> None:
    with pytest.raises(UsageError):

        @safe_execute()
        def numbers():
            yield 1

    with pytest.raises(UsageError):
        safe_execute(None, retries=-1)


def test_the_log_explains_a_known_failure(caplog) -> None:
    @safe_execute(fallback_result=None)
    def out_of_memory() -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with caplog.at_level(logging.WARNING, logger="llmopt"):
        out_of_memory()
    assert "GPU" in caplog.text
    assert "PYTORCH_CUDA_ALLOC_CONF" in caplog.text


def test_a_context_says_what_was_being_done(history) -> None:
    with pytest.raises(FileNotFoundError) as caught, error_context("loading weights", model="m", api_key="topsecret1"):
        raise FileNotFoundError("weights.gguf")
    notes = "\n".join(caught.value.__notes__)
    assert "loading weights" in notes
    assert "model=m" in notes
    assert "topsecret1" not in notes
    record = history.recent()[-1]
    assert record.id == "FileNotFoundError"
    assert record.where.startswith("loading weights")
    assert "topsecret1" not in record.where


async def test_a_context_works_asynchronously_and_may_swallow() -> None:
    async with error_context("asking", reraise=False, on=ConnectionError) as context:
        raise ConnectionResetError("gone")
    assert context.failure is not None
    with pytest.raises(ValueError, match="other"):
        async with error_context("asking", reraise=False, on=ConnectionError):
            raise ValueError("other")


def test_a_context_without_a_failure_does_nothing(history) -> None:
    with error_context("nothing") as context:
        pass
    assert context.failure is None
    assert history.recent() == ()


def test_our_own_errors_keep_their_key() -> None:
    failure = explain_exception(UsageError("aio.closed"))
    assert (failure.id, failure.category, failure.known) == ("aio.closed", "llmopt", False)
    assert isinstance(failure.what, str)
    assert explain_exception(DataError("aio.closed")).line


def test_statistics_count_by_id_most_frequent_first(history) -> None:
    for text in ["database is locked", "x", "database is locked"]:
        history.record(explain_exception(RuntimeError(text)), where="test")
    counts = history.statistics()
    assert [(each.id, each.count) for each in counts] == [("SYS-003", 2), ("RuntimeError", 1)]
    assert counts[0].last_at >= counts[1].last_at[:4]


def test_a_sink_that_fails_costs_the_record_and_not_the_work(caplog) -> None:
    class Full:
        def write(self, record):
            raise OSError(28, "No space left on device")

        def read(self, limit):
            return ()

    set_history(History(Full()))
    assert safe_execute("fine")(lambda: 1 / 0)() == "fine"
    assert "could not be recorded" in caplog.text


def record(text: str = "t") -> FailureRecord:
    return FailureRecord(at="2026-01-01T00:00:00+00:00", id="SYS-001", category="system", text=text)


def test_a_file_keeps_records_over_processes_and_damage(tmp_path: Path) -> None:
    sink = JsonLinesSink(tmp_path / "logs" / "failures.jsonl")
    assert sink.read(10) == ()
    sink.write(record("first"))
    with (tmp_path / "logs" / "failures.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"cut": \n[1, 2]\nnull\n{"id": 1}\n{"at": "x", "id": "A", "category": "c", "future": true}\n')
    JsonLinesSink(tmp_path / "logs" / "failures.jsonl").write(record("last"))
    assert [each.text for each in sink.read(10)] == ["first", "", "last"]
    assert [each.text for each in sink.read(1)] == ["last"]


def test_a_full_file_becomes_the_one_old_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("llmopt.failures.history._FILE_BYTES", 1000)
    sink = JsonLinesSink(tmp_path / "f.jsonl")
    for number in range(100):
        sink.write(record(f"{number:04d}"))
    assert len(list(tmp_path.iterdir())) <= 3
    assert sink.read(3)[-1].text == "0099"
    assert 5 < len(sink.read(1000)) < 40


def _write_many(path: str, mark: str) -> None:
    sink = JsonLinesSink(Path(path))
    for number in range(100):
        sink.write(record(f"{mark}{number}" + "·" * 200))


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(str(path), mark)) for mark in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 200
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_a_failure_is_explained_in_four_parts() -> None:
    failure = explain_exception(RuntimeError("CUDA error: device-side assert triggered"))
    assert isinstance(failure, Failure)
    text = failure.explain()
    assert len(text.splitlines()) >= 4
    assert "[RUN-008]" in text
