"""Memory around launches: watched while the engine runs, proved back afterwards, leaks seen over many launches."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from llmopt.hardware.fake import FakeDevice, FakeLibrary
from llmopt.hardware.levels import LevelChange, MemoryLevel
from llmopt.hardware.machine import LiveMachine
from llmopt.hardware.memory import LaunchMemory, MemoryReader
from llmopt.hardware.recorded import RecordedMachine

MIB = 1 << 20
GIB = 1 << 30


class Gpu(FakeLibrary):
    def __init__(self) -> None:
        super().__init__([FakeDevice(total_bytes=24 * GIB)])
        self.held = 0

    def _used(self, index: int) -> int:
        return self.held


def waiting_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


async def test_a_launch_is_watched_and_its_release_proved() -> None:
    gpu = Gpu()
    memory = LaunchMemory(libraries=[gpu], within_s=0)
    engine = waiting_process()
    alive = [engine.pid]
    async with memory.around("trial 1", planned_device_bytes={"FAKE-0": 6 * GIB}) as launch:
        launch.attach(lambda: tuple(alive))
        gpu.held = 5 * GIB
        launch.phase("serving")
        assert launch.sampler.sample().device_bytes == (5 * GIB,)
        assert launch.level is MemoryLevel.SAFE
        assert launch.report is None
        await asyncio.to_thread(engine.communicate, b"\n")
        alive.clear()
        gpu.held = 0
    assert launch.report is not None
    assert launch.report.verified
    assert launch.trace().peak_device_bytes == 5 * GIB
    assert memory.releases[-1] is launch.report


async def test_what_stays_is_told_with_its_process(caplog) -> None:
    memory = LaunchMemory(libraries=[Gpu()], within_s=0)
    engine = waiting_process()
    try:
        async with memory.around("trial 2") as launch:
            launch.attach(lambda: (engine.pid,))
    finally:
        engine.communicate(b"\n")
    assert not launch.report.verified
    assert launch.report.processes_left == (engine.pid,)
    assert f"pid {engine.pid}" in caplog.text


async def test_the_proof_is_made_whatever_was_raised_and_cancelled() -> None:
    memory = LaunchMemory(libraries=[Gpu()], within_s=0)
    with pytest.raises(RuntimeError):
        async with memory.around("fails"):
            raise RuntimeError("engine")
    entered = asyncio.Event()

    async def cancelled() -> None:
        async with memory.around("cancelled"):
            entered.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(cancelled())
        await entered.wait()
        task.cancel()
    assert [report.name for report in memory.releases] == ["fails", "cancelled"]


async def test_an_emergency_kills_and_stops_the_load() -> None:
    gpu = Gpu()
    killed = threading.Event()
    done: list[str] = []

    class Actions:
        def pause(self, change) -> None:
            done.append("pause")

        def resume(self) -> None:
            done.append("resume")

        def abort(self, change: LevelChange) -> None:
            done.append("abort")

        def kill(self, change: LevelChange) -> None:
            done.append("kill")
            gpu.held = 0
            killed.set()

    memory = LaunchMemory(libraries=[gpu], within_s=0)
    async with memory.around("greedy", planned_device_bytes={"FAKE-0": 6 * GIB}, actions=Actions()) as launch:
        gpu.held = 24 * GIB - 100 * MIB
        began = time.monotonic()
        assert await asyncio.to_thread(killed.wait, 60)
        assert time.monotonic() - began < 30
    assert done[0] == "kill"
    assert launch.watch.worst is MemoryLevel.EMERGENCY
    assert launch.report.verified


def test_a_leak_over_launches_is_told_once_with_figures(caplog) -> None:
    gpu = Gpu()
    memory = LaunchMemory(libraries=[gpu], within_s=0)
    for trial in range(12):
        launch = memory.begin(f"trial {trial}", {})
        gpu.held += 12 * MIB
        memory.end(launch)
    device_leaks = [leak for leak in memory.leaks if leak.where == "FAKE-0"]
    assert [leak.kind for leak in device_leaks] == ["slope"]
    assert device_leaks[0].bytes_per_trial == pytest.approx(12 * MIB)
    assert "12.0 MiB" in caplog.text


def test_growth_while_serving_is_told() -> None:
    gpu = Gpu()
    memory = LaunchMemory(libraries=[gpu], within_s=0)
    launch = memory.begin("grows", {})
    launch.sampler.stop()
    now = [0.0]
    launch.sampler._now_s = lambda: now[0]
    launch.phase("serving")
    for second in range(300):
        now[0] = float(second)
        gpu.held = GIB + second * MIB
        launch.sampler.sample()
    gpu.held = 0
    memory.end(launch)
    assert [leak.kind for leak in launch.leaks] == ["growth"]
    assert launch.leaks[0].bytes_per_trial == pytest.approx(60 * MIB, rel=0.05)


def test_unified_memory_is_proved_by_the_pool_as_well() -> None:
    files = {"/proc/driver/nvidia/version": "x"}
    recording = {
        "system": "Linux",
        "architecture": "aarch64",
        "files": files,
        "nvml": {"driver": "580", "devices": [{"name": "NVIDIA GB10", "uuid": "GPU-1", "capability": [12, 1]}]},
    }
    machine = RecordedMachine(recording)

    def available(gib: float) -> None:
        machine._files["/proc/meminfo"] = f"MemTotal: {120 << 20} kB\nMemAvailable: {int(gib * (1 << 20))} kB\n"

    available(100)
    memory = LaunchMemory(machine=machine, within_s=0)
    launch = memory.begin("unified", {})
    available(60)
    assert not memory.end(launch).verified
    launch = memory.begin("unified", {})
    available(59.8)
    assert memory.end(launch).verified


def test_watching_each_second_costs_less_than_a_hundredth_of_a_core() -> None:
    reader = MemoryReader(devices=[(device, gpu) for gpu in [Gpu()] for device in gpu.devices()], machine=LiveMachine())
    reader()
    began = time.thread_time()
    for _ in range(100):
        reader()
    assert (time.thread_time() - began) / 100 < 0.01


def test_no_thread_outlives_its_launch() -> None:
    memory = LaunchMemory(libraries=[Gpu()], within_s=0)
    before = threading.active_count()
    for number in range(20):
        memory.end(memory.begin(f"{number}", {}))
    assert threading.active_count() == before
