"""Measures memory bandwidth and arithmetic of this machine; prints one JSON object.

Started by path with its BLAS limited to one thread, so that ``THREADS`` threads are what it says:

    python machine_speed.py THREADS SECONDS
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

COPY_BYTES = 32 << 20
"""A block larger than a core's share of the caches, so that the copy meets memory."""
MATRIX = 192
REPEATS = 6


def rate(work: Callable[[], int], count: int, seconds: float) -> float:
    """Units of ``work`` a second over ``count`` threads that start together."""
    barrier = threading.Barrier(count)
    totals = [0.0] * count

    def run(index: int) -> None:
        work()  # memory is touched for the first time before the clock runs
        barrier.wait()
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            done += work()
        totals[index] = done / (time.perf_counter() - began)

    workers = [threading.Thread(target=run, args=(index,), name=f"speed-{index}") for index in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(totals)


def copier() -> Callable[[], int]:
    """Bytes read and written by one copy, on arrays of the calling thread."""
    local = threading.local()

    def copy() -> int:
        if not hasattr(local, "source"):
            local.source = np.ones(COPY_BYTES // 8)
            local.target = np.zeros_like(local.source)
        np.copyto(local.target, local.source)
        return 2 * COPY_BYTES

    return copy


def multiplier() -> Callable[[], int]:
    """Operations of one product of 4-byte matrices, on matrices of the calling thread."""
    local = threading.local()

    def multiply() -> int:
        if not hasattr(local, "left"):
            local.left = np.full((MATRIX, MATRIX), 0.5, dtype=np.float32)
            local.out = np.empty_like(local.left)
        np.matmul(local.left, local.left, out=local.out)
        return 2 * MATRIX**3

    return multiply


def main() -> None:
    """The best of a few short rounds for each: other load only ever lowers a rate."""
    threads, seconds = int(sys.argv[1]), float(sys.argv[2])
    each = seconds / (4 * REPEATS)

    def best(work: Callable[[], int], count: int) -> float:
        return max(rate(work, count, each) for _ in range(REPEATS))

    found = {
        "threads": threads,
        "bandwidth_one": best(copier(), 1),
        "bandwidth_all": best(copier(), threads),
        "flops_one": best(multiplier(), 1),
        "flops_all": best(multiplier(), threads),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
