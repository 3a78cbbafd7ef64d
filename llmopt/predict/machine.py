"""This machine's own peaks, measured in seconds: bytes from memory and arithmetic, for one thread and for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llmopt.predict.devices import DeviceSpec

__all__ = ["MachineSpeed", "cpu_spec", "measure_machine"]

_COPY_BYTES = 32 << 20
"""A block larger than a core's share of the caches, so that the copy meets memory."""
_MATRIX = 192
_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class MachineSpeed:
    """Bytes and 4-byte floating-point operations a second."""

    threads: int
    bandwidth_one: float
    bandwidth_all: float
    flops_one: float
    flops_all: float


def measure_machine(
    threads: int, *, seconds: float = 8.0, now: Callable[[], float] = time.perf_counter
) -> MachineSpeed:
    """Copies and matrix products on one thread and on ``threads``, the best of three each; takes about ``seconds``.

    A copy reads and writes, so it counts twice. Other load on the machine lowers the result: measure when it is quiet.
    """
    each = seconds / (4 * _REPEATS)

    def best(work: Callable[[], int], count: int) -> float:
        return max(_rate(work, count, each, now) for _ in range(_REPEATS))

    return MachineSpeed(
        threads=threads,
        bandwidth_one=best(_copier(), 1),
        bandwidth_all=best(_copier(), threads),
        flops_one=best(_multiplier(), 1),
        flops_all=best(_multiplier(), threads),
    )


def _rate(work: Callable[[], int], count: int, seconds: float, now: Callable[[], float]) -> float:
    """Units of ``work`` a second over ``count`` threads that start together."""
    barrier = threading.Barrier(count)
    totals = [0.0] * count

    def run(index: int) -> None:
        barrier.wait()
        began, done = now(), 0
        while now() - began < seconds:
            done += work()
        totals[index] = done / (now() - began)

    workers = [threading.Thread(target=run, args=(index,), name=f"llmopt-speed-{index}") for index in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(totals)


def _copier() -> Callable[[], int]:
    local = threading.local()

    def copy() -> int:
        if not hasattr(local, "source"):
            local.source = np.ones(_COPY_BYTES // 8)
            local.target = np.zeros_like(local.source)
        np.copyto(local.target, local.source)
        return 2 * _COPY_BYTES

    return copy


def _multiplier() -> Callable[[], int]:
    local = threading.local()

    def multiply() -> int:
        if not hasattr(local, "left"):
            local.left = np.full((_MATRIX, _MATRIX), 0.5, dtype=np.float32)
            local.out = np.empty_like(local.left)
        np.matmul(local.left, local.left, out=local.out)
        return 2 * _MATRIX**3

    return multiply


def cpu_spec(speed: MachineSpeed, threads: int, *, name: str = "cpu") -> DeviceSpec:
    """The machine as a device that ``threads`` threads of an engine see; all precisions compute at its float rate."""
    bandwidth = min(speed.bandwidth_one * threads, speed.bandwidth_all)
    flops = min(speed.flops_one * threads, speed.flops_all)
    return DeviceSpec(name=name, family="cpu", bandwidth=bandwidth, flops={4: flops, 8: flops, 16: flops, 32: flops})
