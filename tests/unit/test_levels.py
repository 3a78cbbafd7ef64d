"""Levels against the plan: scripted curves, hysteresis, and what is done in which order."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.hardware.devices import Holder
from llmopt.hardware.fake import FakeDevice, FakeLibrary
from llmopt.hardware.levels import (
    DeviceReading,
    LevelChange,
    MemoryLevel,
    MemoryLimits,
    MemoryPlan,
    MemoryReading,
    MemoryWatch,
    device_level,
    host_level,
)
from llmopt.hardware.recorded import RecordedMachine
from llmopt.hardware.stats import MemoryReader

GIB = 1 << 30
MIB = 1 << 20
LIMITS = MemoryLimits()
SAFE, WARNING, CRITICAL, EMERGENCY = MemoryLevel


def device(used: float, total: float = 24, **more) -> DeviceReading:
    return DeviceReading(
        total_bytes=int(total * GIB), used_bytes=int(used * GIB), free_bytes=int((total - used) * GIB), **more
    )


def host(free: float, total: float = 32, **more) -> MemoryReading:
    return MemoryReading(host_total_bytes=int(total * GIB), host_available_bytes=int(free * GIB), **more)


@pytest.mark.parametrize(
    ("reading", "planned", "level"),
    [
        (device(10), 20, SAFE),
        (device(20.3), 20, SAFE),
        (device(20.8), 20, WARNING),
        (device(22.3), 21, EMERGENCY - 1),  # 6 % over, 1.7 GiB free
        (device(23.2), 21, EMERGENCY),  # 10 % over, 0.8 GiB free
        (device(6), 4, WARNING),  # far over a small plan, but room enough
        (device(21.6), 21.6, SAFE),  # nine tenths by plan, as vLLM asks for
        (device(23.9), 23.9, WARNING),  # by plan nearly full
        (device(23.9), 20, EMERGENCY),
        (device(23.9), None, EMERGENCY),
        (device(1, allocation_failed=True), 20, EMERGENCY),
        (device(1, critical_fault=79), 20, EMERGENCY),
        (device(5, foreign_growth_bytes=600 * MIB), 20, CRITICAL),
        (device(7.2, total=8), 7.2, SAFE),  # a small card by plan is no reason to cry wolf
    ],
)
def test_a_device_is_judged_against_its_plan(reading, planned, level) -> None:
    assert device_level(reading, None if planned is None else int(planned * GIB), LIMITS) == level


@pytest.mark.parametrize(
    ("reading", "level"),
    [
        (host(20), SAFE),
        (host(6), WARNING),
        (host(3), CRITICAL),
        (host(1.5), EMERGENCY),
        (host(100, total=2048), SAFE),  # a twentieth of 2 TB is no emergency
        (host(7, total=2048), CRITICAL),
        (host(20, pressure_some=12), WARNING),
        (host(20, pressure_full=6), CRITICAL),
        (host(20, pressure_full=25), EMERGENCY),
        (host(20, out_of_memory_kills=1), EMERGENCY),
        (host(20, swap_growth_bytes=GIB), WARNING),
    ],
)
def test_the_host_is_judged_by_what_is_left(reading, level) -> None:
    assert host_level(reading, LIMITS) == level


def test_safe_mode_begins_every_level_earlier() -> None:
    for free in [x / 4 for x in range(1, 128)]:
        assert host_level(host(free), MemoryLimits.safe()) >= host_level(host(free), LIMITS)
    for used in [x / 4 for x in range(1, 96)]:
        args = device(used), 20 * GIB
        assert device_level(*args, MemoryLimits.safe()) >= device_level(*args, LIMITS)


@given(st.floats(0, 24), st.floats(0.1, 24), st.floats(0, 1))
def test_more_use_is_never_a_lower_level(used: float, planned: float, more: float) -> None:
    plan = int(planned * GIB)
    higher = min(24.0, used + more)
    assert device_level(device(higher), plan, LIMITS) >= device_level(device(used), plan, LIMITS)


class Recorder:
    def __init__(self) -> None:
        self.done: list[str] = []

    def pause(self, change) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")

    def abort(self, change: LevelChange) -> None:
        self.done.append("abort")

    def kill(self, change: LevelChange) -> None:
        self.done.append("kill")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watch(actions: Recorder | None = None, clock: Clock | None = None) -> MemoryWatch:
    return MemoryWatch(lambda: host(20), actions=actions, now_s=clock or Clock())


def feed(watched: MemoryWatch, clock: Clock, free: list[float]) -> list[MemoryLevel]:
    levels = []
    for value in free:
        levels.append(watched.update(host(value)))
        clock.now += 1
    return levels


# six curves of free host memory, one value a second, and the level after each
CURVES = {
    "calm": ([20] * 4, [SAFE] * 4),
    "steady fall": ([20, 6, 3, 1], [SAFE, WARNING, CRITICAL, EMERGENCY]),
    "cliff": ([20, 1], [SAFE, EMERGENCY]),
    "short dip": ([20, 6, 20, 20, 20, 20, 20, 20], [SAFE] + [WARNING] * 6 + [SAFE]),
    "flutter": ([6, 20, 6, 20, 6, 20, 6, 20], [WARNING] * 8),
    "slow recovery": ([1, 6, 6, 6, 6, 6, 6, 20], [EMERGENCY] * 6 + [WARNING] * 2),
}


@pytest.mark.parametrize("name", sorted(CURVES))
def test_levels_follow_a_curve_up_at_once_and_down_when_calm(name: str) -> None:
    clock = Clock()
    free, levels = CURVES[name]
    assert feed(watch(clock=clock), clock, free) == levels


def test_actions_escalate_and_end_with_the_resumption() -> None:
    actions, clock = Recorder(), Clock()
    feed(watch(actions, clock), clock, [6, 3, 1] + [20] * 8)
    assert actions.done == ["pause", "abort", "kill", "resume"]


def test_an_emergency_kills_before_anything_else() -> None:
    actions, clock = Recorder(), Clock()
    feed(watch(actions, clock), clock, [1])
    assert actions.done == ["kill", "abort", "pause"]


def test_a_failing_callback_stops_nothing(caplog) -> None:
    clock, seen = Clock(), []
    watched = watch(clock=clock)
    watched.on_change(lambda _change: 1 / 0)
    watched.on_change(seen.append)
    feed(watched, clock, [6, 1])
    assert [change.after for change in seen] == [WARNING, EMERGENCY]
    assert watched.worst is EMERGENCY
    assert "callback failed" in caplog.text


def test_the_thread_reads_acts_and_ends() -> None:
    seen = threading.Event()
    readings = iter([host(20), host(1)])

    def read() -> MemoryReading:
        return next(readings, host(1))

    watched = MemoryWatch(read, period_s=0.001)
    watched.on_change(lambda change: seen.set() if change.after is EMERGENCY else None)
    with watched:
        assert seen.wait(60)
    assert watched._thread is None


def test_a_reading_that_fails_is_left_out(caplog) -> None:
    seen = threading.Event()
    turns = iter(range(1000))

    def read() -> MemoryReading:
        if next(turns) == 0:
            raise OSError("gone")
        return host(1)

    watched = MemoryWatch(read, period_s=0.001)
    watched.on_change(lambda _change: seen.set())
    with watched:
        assert seen.wait(60)
    assert "reading failed" in caplog.text


def test_a_reader_sees_devices_pressure_faults_and_strangers() -> None:
    now = [0.0]
    library = FakeLibrary([FakeDevice(curve=((0, 2 * GIB), (10, 12 * GIB)), faults=((5.0, 79),))], now_s=lambda: now[0])
    gpu = library.devices()[0]
    files = {
        "/proc/meminfo": "MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n",
        "/proc/pressure/memory": "some avg10=1.50 avg60=0 avg300=0 total=1\nfull avg10=0.25 avg60=0 avg300=0 total=1\n",
    }
    reader = MemoryReader(
        devices=[(gpu, library)],
        machine=RecordedMachine({"system": "Linux", "architecture": "x86_64", "files": files}),
    )
    first = reader()
    assert (first.pressure_some, first.pressure_full) == (1.5, 0.25)
    assert first.host_available_bytes == 16 * GIB
    assert first.devices[gpu.uuid].used_bytes == 2 * GIB
    now[0] = 10.0
    second = reader().devices[gpu.uuid]
    assert (second.used_bytes, second.critical_fault) == (12 * GIB, 79)
    plan = MemoryPlan(device_bytes={gpu.uuid: 20 * GIB})
    assert MemoryWatch(reader, plan=plan).judge(first) == (SAFE, "host")


class Listing(FakeLibrary):
    """A device whose list of processes a test sets by hand: pid → GiB."""

    listed: dict[int, float]

    def holders(self, device):
        return tuple(Holder(pid=pid, name="engine", used_bytes=int(gib * GIB)) for pid, gib in self.listed.items())


OURS, OTHER = 1005, 77
ENGINE = ({OURS}, {OURS: 3.0})

# what our process tree is known to be, and what the driver lists, reading by reading; then the level after the last
LISTINGS = {
    "our engine grows": ([ENGINE] * 5, SAFE),
    "our own list lacks it once": ([ENGINE, (set(), {OURS: 3.0}), ENGINE], SAFE),
    "our own list lacks it from the first": ([(set(), {OURS: 3.0})] * 5, SAFE),
    "the driver's list lacks it once": ([ENGINE, ({OURS}, {}), ENGINE], SAFE),
    "the driver names it by another pid once": ([ENGINE, ({OURS}, {OTHER: 3.0}), ENGINE], SAFE),
    "the driver names it by another pid always": ([({OURS}, {OTHER: 3.0})] * 5, SAFE),
    "it ended and is still listed": ([ENGINE] * 3 + [({2006}, {OURS: 3.0, 2006: 3.0})] * 3, SAFE),
    "another grows for two readings": ([ENGINE] + [({OURS}, {OURS: 3.0, OTHER: 2.0})] * 2 + [ENGINE], SAFE),
    "another grows and stays": ([ENGINE] + [({OURS}, {OURS: 3.0, OTHER: 2.0})] * 3, CRITICAL),
    "another grows before our engine comes": (
        [(set(), {OTHER: 2.0})] * 3 + [({OURS}, {OURS: 3.0, OTHER: 2.0})] * 3,
        CRITICAL,
    ),
}


@pytest.mark.parametrize("name", sorted(LISTINGS))
def test_growth_is_foreign_only_where_it_is_known_to_be_and_lasts(name: str) -> None:
    readings, level = LISTINGS[name]
    library = Listing([FakeDevice(total_bytes=139 * GIB)])
    library.listed = {}
    gpu = library.devices()[0]
    ours: set[int] = set()
    machine = RecordedMachine({"system": "Linux", "architecture": "x86_64", "files": {"/proc/meminfo": ""}})
    reader = MemoryReader(devices=[(gpu, library)], pids=lambda: tuple(ours), machine=machine)
    watched = MemoryWatch(reader, plan=MemoryPlan(device_bytes={gpu.uuid: 100 * GIB}))
    for now_ours, listed in readings:
        ours.clear()
        ours.update(now_ours)
        library.listed = listed
        reading = reader()
        found = device_level(reading.devices[gpu.uuid], 100 * GIB, LIMITS)
        watched.update(MemoryReading(host_total_bytes=GIB, host_available_bytes=GIB, devices=reading.devices))
    assert found == level
    assert watched.worst == level
    if level is CRITICAL:
        assert "SAFE → CRITICAL (FAKE-0)" in str(watched.changes[-1])
        assert "others +2.00 GiB" in str(watched.changes[-1])
