import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.stats.looks import plan_looks
from llmopt.measure.stats.verdicts import speed_verdict
from llmopt.records import VerdictKind


@given(st.integers(1, 50), st.integers(0, 500))
def test_the_looks_share_the_error_and_end_at_the_most(first, more):
    looks = plan_looks(first, first + more)
    assert sum(1 - look.confidence for look in looks) == pytest.approx(0.05)
    assert [look.after for look in looks] == sorted({look.after for look in looks})
    assert (looks[0].after, looks[-1].after) == (first, first + more)


def test_one_look_is_the_plain_interval():
    (only,) = plan_looks(4, 4)
    assert only.confidence == pytest.approx(0.95)


def test_the_first_look_lies_before_the_last():
    with pytest.raises(ValueError, match="before"):
        plan_looks(5, 4)


def called_different(rng, ratio, looks):
    """Measure and look until it is decided, as compare does."""
    a, b = [], []
    for look in looks:
        while len(a) < look.after:
            a.append(100 * ratio * math.exp(rng.gauss(0, 0.03)))
            b.append(100 * math.exp(rng.gauss(0, 0.03)))
        kind = speed_verdict(a, b, confidence=look.confidence).kind
        if kind in {VerdictKind.BETTER, VerdictKind.WORSE}:
            return True, look.after
        if kind is VerdictKind.EQUIVALENT:
            return False, look.after
    return False, looks[-1].after


def test_peeking_keeps_the_error_and_saves_launches_where_the_difference_is_large():
    looks = plan_looks(4, 16)
    rng = random.Random(7)
    wrong = sum(called_different(rng, 1.0, looks)[0] for _ in range(1000))
    assert wrong <= 66  # at 5 % the binomial stays below this in 99 of 100 runs
    found = [called_different(rng, 1.25, looks) for _ in range(200)]
    assert sum(different for different, _ in found) >= 196
    assert sum(after for _, after in found) / 200 < 8
