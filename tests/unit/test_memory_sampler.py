"""A tree's memory by proportional shares, its peak and course, and what sampling itself costs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Self

import pytest

from llmopt.hardware.fake import FakeDevice, FakeLibrary
from llmopt.hardware.recorded import RecordedMachine
from llmopt.hardware.sampler import PeakSampler, _thinned
from llmopt.hardware.tree import resident_memory, shared_segments, tree_memory

MIB = 1 << 20
GIB = 1 << 30
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


class Child:
    """A process that does what it is told, one line at a time, and answers when done."""

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def step(self, line: str = "") -> str:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


ALLOCATOR = """
    import sys
    held = []
    for line in sys.stdin:
        word, _, size = line.strip().partition(" ")
        if word == "take":
            held.append(bytearray(b"x") * int(size))
        elif word == "drop":
            held.pop()
        print("done")
"""


def status(pid: int, *, rollup: bool = True) -> dict[str, str]:
    files = {f"/proc/{pid}/status": "VmRSS:\t 3000 kB\nRssAnon:\t 1000 kB\nRssFile:\t 1800 kB\nRssShmem:\t 200 kB\n"}
    if rollup:
        files[f"/proc/{pid}/smaps_rollup"] = (
            "55d0-7ffd ---p 00000000 00:00 0  [rollup]\nRss: 3000 kB\nPss: 1500 kB\nPss_Anon: 900 kB\n"
            "Pss_File: 500 kB\nPss_Shmem: 100 kB\nSwapPss: 7 kB\n"
        )
    return files


def recorded(files: dict[str, str]) -> RecordedMachine:
    return RecordedMachine({"system": "Linux", "architecture": "x86_64", "files": files})


def test_shares_are_added_up_over_the_tree() -> None:
    memory = tree_memory([1, 2], recorded({**status(1), **status(2)}))
    assert (memory.anonymous_bytes, memory.file_bytes, memory.shared_bytes) == (1800 << 10, 1000 << 10, 200 << 10)
    assert (memory.swap_bytes, memory.processes, memory.method) == (14 << 10, 2, "pss")
    assert memory.total_bytes == 3000 << 10


def test_an_unreadable_process_is_counted_by_its_resident_size() -> None:
    memory = tree_memory([1, 2], recorded({**status(1), **status(2, rollup=False)}))
    assert memory.method == "rss"
    assert memory.anonymous_bytes == (900 + 1000) << 10


def test_ended_processes_count_nothing() -> None:
    memory = tree_memory([1, 99], recorded({**status(1), "/proc/99/status": "Name:\tx\nState:\tZ (zombie)\n"}))
    assert memory.processes == 1
    assert tree_memory([], recorded({})).total_bytes == 0


@linux
def test_a_real_allocation_is_seen_and_seen_to_go() -> None:
    with Child(ALLOCATOR) as child:
        child.step()
        before = tree_memory([child.process.pid]).anonymous_bytes
        child.step(f"take {64 * MIB}")
        during = tree_memory([child.process.pid]).anonymous_bytes
        child.step("drop")
        after = tree_memory([child.process.pid]).anonymous_bytes
    assert 63 * MIB < during - before < 70 * MIB
    assert after - before < 4 * MIB


@linux
def test_a_page_shared_by_a_tree_counts_once() -> None:
    code = """
        import os, sys
        block = bytearray(b"x") * (64 << 20)
        child = os.fork()
        if child == 0:
            sys.stdin.readline()
            os._exit(0)
        print(child)
        os.waitpid(child, 0)
    """
    with Child(code) as parent:
        grandchild = int(parent.process.stdout.readline())
        pids = [parent.process.pid, grandchild]
        shared, resident = tree_memory(pids), resident_memory(pids)
        parent.process.stdin.close()
        parent.process.stdin = None
    assert resident.total_bytes - shared.total_bytes > 60 * MIB
    assert shared.total_bytes < 110 * MIB


@linux
def test_shared_segments_are_named_while_held() -> None:
    code = """
        import sys
        from multiprocessing import shared_memory
        segment = shared_memory.SharedMemory(create=True, size=4096, name=sys.argv[1] if len(sys.argv) > 1 else None)
        print(segment.name)
        sys.stdin.readline()
        segment.close()
        segment.unlink()
        print("gone")
        sys.stdin.readline()
    """
    with Child(code) as child:
        name = child.process.stdout.readline().strip()
        assert f"/dev/shm/{name}" in shared_segments([child.process.pid])
        child.step()
        assert f"/dev/shm/{name}" not in shared_segments([child.process.pid])


@linux
def test_the_peak_of_a_real_engine_start_is_found_with_its_phases() -> None:
    with Child(ALLOCATOR) as child:
        child.step()
        with PeakSampler(lambda: [child.process.pid]) as sampler:
            base = sampler.sample().host_bytes
            child.step(f"take {96 * MIB}")
            sampler.sample()
            child.step("drop")
            sampler.phase("serve")
            child.step(f"take {16 * MIB}")
            last = sampler.sample()
        trace = sampler.trace()
    assert trace.peak_host_bytes - base > 90 * MIB
    assert last.host_bytes - base < 30 * MIB
    assert [name for name, _, _ in trace.phases()] == ["loading", "serve"]
    assert trace.peak_anonymous_bytes <= trace.peak_host_bytes <= trace.peak_bytes


def test_a_tree_that_ended_leaves_its_peak() -> None:
    pids = [os.getpid()]
    sampler = PeakSampler(lambda: tuple(pids))
    first = sampler.sample()
    pids.clear()
    assert sampler.sample().host_bytes == 0
    assert sampler.trace().peak_bytes == first.total_bytes > 0


def test_costly_readings_are_spaced_and_moved_by_the_resident_size() -> None:
    class Slow(RecordedMachine):
        reads = 0

        def text(self, path: str) -> str:
            if path.endswith("smaps_rollup"):
                Slow.reads += 1
                began = time.thread_time()
                while time.thread_time() - began < 0.02:
                    pass
            return super().text(path)

    files = status(1)
    machine = Slow({"system": "Linux", "architecture": "x86_64", "files": files})
    now = [0.0]
    sampler = PeakSampler(lambda: [1], machine=machine, now_s=lambda: now[0])
    for second in range(60):
        now[0] = float(second)
        if second == 1:
            machine._files["/proc/1/status"] = status(1)["/proc/1/status"].replace("RssAnon:\t 1000", "RssAnon:\t 5000")
        sampler.sample()
    assert Slow.reads <= 60 * 0.004 / 0.02 + 2
    assert sampler.trace().peak_anonymous_bytes == (900 + 4000) << 10


@linux
def test_sampling_each_second_costs_less_than_a_hundredth_of_a_core() -> None:
    """Without waiting a minute: the CPU time of one hundred samples must be below one hundredth of 100 seconds."""
    with Child(ALLOCATOR) as child:
        child.step(f"take {256 * MIB}")
        now = [0.0]
        sampler = PeakSampler(lambda: [child.process.pid, os.getpid()], now_s=lambda: now[0])
        sampler.sample()
        began = time.thread_time()
        for second in range(1, 101):
            now[0] = float(second)
            sampler.sample()
        cost = time.thread_time() - began
    assert cost / 100 < 0.01
    assert sampler.trace().cost_share < 0.01


def test_long_courses_are_thinned_and_keep_their_peaks() -> None:
    library = FakeLibrary([FakeDevice(curve=((0, 0), (5000, 0), (5001, 9 * GIB), (5002, 0)))], now_s=lambda: now[0])
    now = [0.0]
    device = library.devices()[0]
    sampler = PeakSampler(tuple, devices=[(device, library)], now_s=lambda: now[0], phase="serve")
    for second in range(10_000):
        now[0] = float(second)
        sampler.sample()
    trace = sampler.trace()
    assert len(trace.points) <= 4096
    assert trace.peak_device_bytes == 9 * GIB
    assert max(sum(point.device_bytes) for point in trace.points) == 9 * GIB
    assert [point.at_s for point in trace.points] == sorted(point.at_s for point in trace.points)


def test_thinning_never_mixes_phases() -> None:
    sampler = PeakSampler(tuple)
    points = []
    for phase in ("a", "a", "a", "b", "c", "c"):
        sampler.phase(phase)
        points.append(sampler.sample())
    assert [point.phase for point in _thinned(points)] == ["a", "a", "b", "c"]


def test_device_memory_is_ours_where_told_else_the_growth() -> None:
    class Told(FakeLibrary):
        pids = (7,)

        def holders(self, device):
            from llmopt.hardware.devices import Holder

            return tuple(Holder(pid=pid, used_bytes=3 * GIB) for pid in self.pids)

    now = [0.0]
    curve = [FakeDevice(curve=((0, 2 * GIB), (10, 8 * GIB)))]
    told = Told(curve, now_s=lambda: now[0])
    blind = FakeLibrary(curve, now_s=lambda: now[0])
    device = told.devices()[0]
    sampler = PeakSampler(lambda: [7], devices=[(device, told), (device, blind)], now_s=lambda: now[0])
    now[0] = 10.0
    assert sampler.sample().device_bytes == (3 * GIB, 6 * GIB)


def test_stopping_ends_the_thread_and_is_safe_twice() -> None:
    sampler = PeakSampler(lambda: [os.getpid()]).start()
    thread = sampler._thread
    trace = sampler.stop()
    assert not thread.is_alive()
    assert trace.points
    assert sampler.stop().peak_bytes == trace.peak_bytes


def test_no_system_needs_proc(monkeypatch) -> None:
    elsewhere = RecordedMachine({"system": "Darwin", "architecture": "arm64"})
    memory = tree_memory([os.getpid(), 2**22 + 5], elsewhere)
    assert memory.method == "psutil"
    assert memory.processes == 1
    assert memory.total_bytes > MIB
    assert Path(sys.executable).exists()
