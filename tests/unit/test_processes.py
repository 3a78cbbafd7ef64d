"""Progress and ports of process trees, on real processes and on made-up readings."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.runtime.processes import Activity, StallWatch, listens_on, tree_activity

STILL = Activity(at_s=0.0, pids=frozenset({1}), log_bytes=1000, cpu_s=5.0, read_bytes=1 << 30, resident_bytes=1 << 30)


@pytest.mark.parametrize(
    "change",
    [
        {"pids": frozenset({1, 2})},
        {"log_bytes": 1001},
        {"log_bytes": 10},
        {"cpu_s": 5.5},
        {"read_bytes": (1 << 30) + (1 << 17)},
        {"resident_bytes": (1 << 30) + (1 << 21)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_kind_of_progress_counts(change: dict[str, object]) -> None:
    watch = StallWatch(STILL)
    assert watch.idle_s(replace(STILL, at_s=10.0, cpu_s=5.1)) == 10.0
    assert watch.idle_s(replace(STILL, at_s=11.0, **{"cpu_s": 5.1, **change})) == 0.0
    assert watch.idle_s(replace(STILL, at_s=13.0, **{"cpu_s": 5.1, **change})) == 2.0


def test_what_our_own_questions_cause_is_no_progress() -> None:
    watch = StallWatch(STILL)
    assert watch.idle_s(replace(STILL, at_s=1.0, log_bytes=1150), own_requests=2) == 1.0
    assert watch.idle_s(replace(STILL, at_s=2.0, log_bytes=1150 + 900), own_requests=2) == 0.0


def test_idling_in_a_polling_loop_is_no_progress() -> None:
    watch = StallWatch(STILL)
    for second in range(1, 100):
        idle = watch.idle_s(replace(STILL, at_s=float(second), cpu_s=5.0 + 0.01 * second))
    assert idle == 99.0


@given(st.lists(st.tuples(st.floats(0.01, 5), st.booleans()), min_size=1))
def test_idle_time_is_the_time_since_the_last_progress(steps: list[tuple[float, bool]]) -> None:
    watch, now, since, log = StallWatch(STILL), 0.0, 0.0, 1000
    for length, moves in steps:
        now += length
        since = 0.0 if moves else since + length
        log += moves
        assert watch.idle_s(replace(STILL, at_s=now, log_bytes=log)) == pytest.approx(since)


def test_a_busy_process_shows_cpu_time_and_memory(tmp_path: Path) -> None:
    script = "x=bytearray(1<<24)\nprint('up',flush=True)\nwhile True: pass"
    log = tmp_path / "log"
    log.write_text("12345")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = tree_activity([process.pid, 2**22 + 7], log, at_s=1.0)
        assert first.pids == {process.pid}
        assert first.log_bytes == 5
        assert first.resident_bytes > 1 << 24
        watch = StallWatch(first)
        later = first
        while later.cpu_s <= first.cpu_s:
            later = tree_activity([process.pid], log, at_s=2.0)
        process.kill()
    assert tree_activity([process.pid], tmp_path / "missing", at_s=3.0).pids == frozenset()
    assert watch.idle_s(replace(later, cpu_s=first.cpu_s + 1)) == 0.0


def test_a_port_belongs_to_who_listens_on_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with subprocess.Popen([sys.executable, "-c", "import sys;sys.stdin.read()"], stdin=subprocess.PIPE) as other:
            assert listens_on([os.getpid()], port) is True
            assert listens_on([other.pid], port) is False
            assert listens_on([other.pid, os.getpid()], port) is True
            assert listens_on([2**22 + 7], port) is False
            other.kill()
    assert listens_on([os.getpid()], port) is False
