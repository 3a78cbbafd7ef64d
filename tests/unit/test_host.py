"""What a rising memory level does to a trial: its load waits a moment, then the trial ends, then its engine."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from llmopt.hardware.levels import DeviceReading, LevelChange, MemoryLevel, MemoryReading
from llmopt.study import host
from llmopt.study.host import _Actions


def change(before: MemoryLevel, after: MemoryLevel, *, free_bytes: int | None = None) -> LevelChange:
    """A change decided by the host, or by a device of 100 bytes."""
    devices = {}
    if free_bytes is not None:
        devices = {"GPU-1": DeviceReading(total_bytes=100, used_bytes=100 - free_bytes, free_bytes=free_bytes)}
    reading = MemoryReading(host_total_bytes=1, host_available_bytes=1, devices=devices)
    return LevelChange(before=before, after=after, where="GPU-1" if devices else "host", reading=reading, at_s=0.0)


WARNED = change(MemoryLevel.SAFE, MemoryLevel.WARNING)


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_warning_holds_the_load_back_and_lets_it_go_again() -> None:
    actions = _Actions(asyncio.get_running_loop())
    assert actions.go.is_set()
    await asyncio.to_thread(actions.pause, WARNED)
    await turns()
    assert not actions.go.is_set()
    assert not actions.out_of_memory.is_set()
    await asyncio.to_thread(actions.resume)
    await turns()
    assert actions.go.is_set()


async def test_a_warning_that_stays_does_not_hold_the_load_for_ever(monkeypatch) -> None:
    monkeypatch.setattr(host, "HOLD_S", 0.001)
    actions = _Actions(asyncio.get_running_loop())
    await asyncio.to_thread(actions.pause, WARNED)
    await asyncio.wait_for(actions.go.wait(), 30)


async def test_a_plan_that_was_too_small_holds_nothing_back_while_there_is_room() -> None:
    actions = _Actions(asyncio.get_running_loop())
    for free_bytes, held in ((50, False), (5, True)):
        await asyncio.to_thread(actions.pause, change(MemoryLevel.SAFE, MemoryLevel.WARNING, free_bytes=free_bytes))
        await turns()
        assert actions.go.is_set() is not held


async def test_critical_ends_the_trial_and_emergency_its_engine_too() -> None:
    actions = _Actions(asyncio.get_running_loop())
    await asyncio.to_thread(actions.abort, change(MemoryLevel.WARNING, MemoryLevel.CRITICAL))
    await turns()
    assert actions.out_of_memory.is_set()
    killed = []
    emergency = _Actions(asyncio.get_running_loop())
    await asyncio.to_thread(emergency.kill, change(MemoryLevel.SAFE, MemoryLevel.EMERGENCY))  # still starting
    emergency.engine = SimpleNamespace(kill=lambda: killed.append(True))
    await asyncio.to_thread(emergency.kill, change(MemoryLevel.SAFE, MemoryLevel.EMERGENCY))
    await turns()
    assert emergency.out_of_memory.is_set()
    assert killed == [True]
