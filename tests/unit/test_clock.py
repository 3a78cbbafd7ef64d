import pytest

from llmopt.runtime.clock import Clock, FakeClock, MonotonicClock


def test_both_are_clocks_and_the_real_one_never_goes_back():
    real = MonotonicClock()
    assert isinstance(real, Clock)
    assert isinstance(FakeClock(), Clock)
    readings = [real.now_s() for _ in range(100)]
    assert readings == sorted(readings)


def test_the_fake_one_moves_only_when_told_and_only_forward():
    clock = FakeClock(5)
    assert clock.now_s() == clock.now_s() == 5
    clock.advance(2.5)
    assert clock.now_s() == 7.5
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
