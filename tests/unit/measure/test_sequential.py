import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from llmopt.measure.stats.sequential import AsymptoticInterval, BettingInterval, McNemarE


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_closed_form_is_the_mixture_it_stands_for(wins, losses):
    test = McNemarE()
    test.wins, test.losses = wins, losses
    mixed, _ = quad(lambda q: 2 * (2 * q) ** losses * (2 * (1 - q)) ** wins, 0.5, 1.0)
    assert test.log_e == pytest.approx(math.log(mixed), abs=1e-6) if wins + losses else test.log_e == 0


def race(rng, gap, *, items, disagree=0.25, alpha=0.1):
    """Whether a candidate with this true gap is dropped, looking after every answer; and after how many."""
    test = McNemarE()
    for k in range(items):
        if rng.random() < disagree:
            better = rng.random() < (1 + gap / disagree) / 2
            test.take(better, not better)
        else:
            test.take(True, True)
        if test.worse(alpha=alpha):
            return k + 1
    return None


def test_an_equal_candidate_is_rarely_dropped_however_often_one_looks():
    rng = random.Random(1)
    dropped = sum(race(rng, 0.0, items=300) is not None for _ in range(600))
    assert dropped / 600 <= 0.10 + 0.025


def test_a_much_worse_candidate_is_dropped_early():
    rng = random.Random(2)
    ends = [race(rng, -0.2, items=200) for _ in range(200)]
    assert sum(end is not None for end in ends) / 200 > 0.9
    assert sum(end or 200 for end in ends) / 200 < 60


def test_agreement_says_nothing_and_wins_never_drop():
    test = McNemarE()
    for _ in range(50):
        test.take(True, True)
    assert test.log_e == 0
    for _ in range(50):
        test.take(True, False)
        assert not test.worse()


def test_thousands_of_wins_do_not_break_the_arithmetic():
    test = McNemarE()
    test.wins = 5000
    assert test.log_e < 0
    assert not test.worse()


def misses(make, draw, truth, *, rounds, steps):
    """Share of runs in which the truth was ever outside."""
    missed = 0
    for _ in range(rounds):
        interval = make()
        for _ in range(steps):
            interval.take(draw())
            bounds = interval.bounds
            if bounds is not None and not bounds.low <= truth <= bounds.high:
                missed += 1
                break
    return missed / rounds


@pytest.mark.parametrize(("law", "truth"), [("coin", 0.2), ("flat", 0.5), ("rare", 0.02)])
def test_betting_bounds_hold_at_every_look(law, truth):
    rng = random.Random(law)
    draw = {"coin": lambda: float(rng.random() < 0.2), "flat": rng.random, "rare": lambda: float(rng.random() < 0.02)}[
        law
    ]
    assert misses(lambda: BettingInterval(grid=401), draw, truth, rounds=150, steps=150) <= 0.05 + 0.04


def test_betting_bounds_shrink_and_never_widen():
    rng = random.Random(3)
    interval = BettingInterval(low=-1, high=1)
    assert interval.bounds == (-1, 1)
    widths = []
    for _ in range(400):
        interval.take(rng.uniform(-0.3, 0.5))
        widths.append(interval.bounds.high - interval.bounds.low)
    assert widths == sorted(widths, reverse=True)
    assert interval.bounds.low > 0
    assert widths[-1] < 0.3


def test_betting_refuses_what_was_not_promised():
    with pytest.raises(ValueError, match="outside"):
        BettingInterval().take(1.5)
    with pytest.raises(ValueError, match="below"):
        BettingInterval(low=1, high=0)


def test_asymptotic_bounds_hold_at_every_look():
    rng = random.Random(4)
    assert misses(AsymptoticInterval, lambda: rng.gauss(0.1, 1.0), 0.1, rounds=400, steps=150) <= 0.05 + 0.03


def test_asymptotic_bounds_wait_then_shrink():
    rng = random.Random(5)
    interval = AsymptoticInterval(start=10)
    for _ in range(9):
        interval.take(rng.gauss(0, 1))
    assert interval.bounds is None
    widths = {}
    for n in range(10, 2001):
        interval.take(rng.gauss(0, 1))
        widths[n] = interval.bounds.high - interval.bounds.low
    assert widths[2000] < widths[200] / 2 < widths[20] / 2
