"""E-values: their promise under peeking (by simulation), their power, and their edges."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from llmopt.search.evidence import (
    log_e_losing,
    log_e_mean_below,
    log_e_proportion_above,
    log_e_slower,
    mean_upper_bound,
)


@pytest.mark.parametrize(("k", "n", "p0", "most"), [(3, 10, 0.2, 1.0), (9, 12, 0.5, 0.85), (0, 5, 0.05, 1.0)])
def test_the_closed_form_is_the_mixture_it_says(k, n, p0, most):
    mixture, _ = integrate.quad(lambda p: p**k * (1 - p) ** (n - k) / (most - p0), p0, most)
    null = p0**k * (1 - p0) ** (n - k)
    assert log_e_proportion_above(k, n, p0, most=most) == pytest.approx(math.log(mixture / null), rel=1e-6)


def test_no_data_is_no_evidence():
    assert log_e_losing(0, 0) == 0.0
    assert log_e_mean_below([], 0.5) == 0.0
    assert log_e_slower([]) == 0.0
    assert mean_upper_bound([], alpha=0.05) == 1.0


def test_losing_grows_and_winning_shrinks_the_evidence():
    assert log_e_losing(0, 10) > log_e_losing(0, 5) > 0 > log_e_losing(5, 0)
    assert log_e_proportion_above(0, 2000, 0.5) < -1000


def crossed(limit, values, look) -> bool:
    return any(look(values[:n]) >= limit for n in range(5, len(values) + 1, 5))


@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_peeking_all_the_time_keeps_the_promise(alpha):
    """400 runs under the null at its edge; a rate above alpha by more than its binomial noise would fail."""
    source, limit, runs = random.Random(5), math.log(1 / alpha), 400
    false = {"losing": 0, "mean": 0, "late": 0}
    for _ in range(runs):
        coins = [source.random() < 0.5 for _ in range(150)]
        false["losing"] += crossed(limit, coins, lambda c: log_e_losing(len(c) - sum(c), sum(c)))
        shares = [source.betavariate(2, 2) for _ in range(150)]
        false["mean"] += log_e_mean_below(shares, 0.5) >= limit
        late = [source.random() < 0.05 for _ in range(150)]
        false["late"] += crossed(limit, late, lambda c: log_e_proportion_above(sum(c), len(c), 0.05))
    allowed = runs * alpha + 2.4 * math.sqrt(runs * alpha * (1 - alpha))
    assert max(false.values()) <= allowed, false


def test_true_losers_are_found():
    source, limit = random.Random(6), math.log(1 / 0.1)
    found = 0
    for _ in range(50):
        values = [min(max(source.gauss(0.40, 0.15), 0.0), 1.0) for _ in range(150)]
        found += log_e_mean_below(values, 0.5) >= limit
    assert found >= 48


def test_a_slower_candidate_is_told_from_an_equal_one():
    source = random.Random(7)
    noise = [math.exp(source.gauss(0, 0.15)) for _ in range(120)]
    assert log_e_slower(noise) < math.log(10) < log_e_slower([1.4 * r for r in noise])


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0.05, 0.95))
def test_a_bettor_never_goes_bankrupt_and_evidence_grows_with_the_claim(values, mean):
    log_e = log_e_mean_below(values, mean)
    assert 0.0 <= log_e < math.inf


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_the_upper_bound_is_above_the_mean(values):
    assert mean_upper_bound(values, alpha=0.05) >= sum(values) / len(values) - 1e-6
