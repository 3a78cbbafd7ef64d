"""A leak is told once, with its evidence; caches that settle are none. The rates: ``benchmarks/leak_watch.py``."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.hardware.leak import LeakWatch, growth_within, theil_sen

MIB = 1 << 20


def rising(count: int, seed: int, sigma_mib: float) -> list[float]:
    """8 MiB more after every trial, under noise."""
    rng = random.Random(seed)
    return [500 * MIB + 8 * MIB * index + rng.gauss(0, sigma_mib * MIB) for index in range(count)]


def test_the_evidence_names_slope_and_interval() -> None:
    watch = LeakWatch("GPU-1")
    leaks = [watch.add(value) for value in rising(12, 1, 1.0)]
    leak = next(each for each in leaks if each)
    assert (leak.where, leak.kind) == ("GPU-1", "slope")
    assert leak.low <= leak.bytes_per_trial <= leak.high
    assert 7 * MIB < leak.bytes_per_trial < 9 * MIB
    assert len(leak.series) >= 8


def test_a_leak_is_reported_once_and_the_next_again() -> None:
    watch = LeakWatch("x")
    found = [bool(watch.add(value)) for value in rising(40, 2, 0.5)]
    assert 3 <= sum(found) <= 5
    step = LeakWatch("y")
    assert [step.add(v) is not None for v in [0, 1, 0, 300 * MIB, 301 * MIB, 300 * MIB, 300 * MIB, 300 * MIB]] == [
        False, False, False, False, False, True, False, False,
    ]  # fmt: skip


def test_filling_caches_that_settle_are_no_leak() -> None:
    watch = LeakWatch("x")
    assert not any(watch.add(700 * MIB - 200 * MIB * 0.5**trial) for trial in range(40))


def test_growth_within_a_trial() -> None:
    times = [float(second) for second in range(600)]
    rng = random.Random(3)
    flat = [1000 * MIB + rng.gauss(0, 5 * MIB) for _ in times]
    growing = [value + 20 * MIB * at / 60 for at, value in zip(times, flat, strict=True)]
    assert growth_within("engine", times, flat) is None
    found = growth_within("engine", times, growing)
    assert found is not None
    assert found.kind == "growth"
    assert 15 * MIB < found.bytes_per_trial < 25 * MIB
    assert growth_within("engine", times[:3], growing[:3]) is None


def test_theil_sen_ignores_outliers_and_knows_an_exact_line() -> None:
    xs = list(range(20))
    ys = [3.0 * x + 1 for x in xs]
    ys[7], ys[15] = 1e9, -1e9
    line = theil_sen(xs, ys)
    assert line.slope == pytest.approx(3.0)
    assert line.rises
    assert not theil_sen(xs, [5.0] * 20).rises
    assert theil_sen([1, 2], [1, 2]).z == 0


@given(st.lists(st.floats(0, 1e12), min_size=3, max_size=24))
def test_the_interval_holds_its_slope_and_turning_time_turns_the_sign(ys: list[float]) -> None:
    xs = list(range(len(ys)))
    line, back = theil_sen(xs, ys), theil_sen(xs, ys[::-1])
    assert line.low <= line.slope <= line.high
    assert back.slope == pytest.approx(-line.slope, rel=1e-6, abs=1e-3)
    assert back.z == pytest.approx(-line.z)
