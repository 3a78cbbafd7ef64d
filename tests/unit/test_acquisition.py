"""Expected improvement and hypervolume against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmopt.search.acquisition import expected_hypervolume, expected_improvement, hypervolume, non_dominated


def test_expected_improvement_is_the_expectation():
    draws = np.random.default_rng(0).standard_normal(400_000)
    for mean, spread, best in [(0.0, 1.0, 0.5), (2.0, 0.3, 1.0), (-1.0, 2.0, 1.0)]:
        exact = expected_improvement(np.array([mean]), np.array([spread]), best)[0]
        assert exact == pytest.approx(np.maximum(mean + spread * draws - best, 0).mean(), rel=0.02)


def test_certainty_improves_by_the_difference_or_not_at_all():
    found = expected_improvement(np.array([1.0, 3.0]), np.zeros(2), 2.0)
    assert found == pytest.approx([0.0, 1.0])


POINTS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=12)


def counted(points) -> int:
    """Unit squares of the grid 0..8 that some point covers."""
    return sum(any(x < a and y < b for a, b in points) for x in range(8) for y in range(8))


@given(POINTS)
def test_the_hypervolume_is_the_covered_area(points):
    assert hypervolume(np.array(points, dtype=float), np.zeros(2)) == pytest.approx(counted(points))


@given(POINTS)
def test_the_front_is_what_nothing_beats(points):
    front = {tuple(row) for row in non_dominated(np.array(points, dtype=float))}
    beaten = {p for p in points if any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)}
    assert front == set(map(tuple, np.array(points, dtype=float))) - {tuple(map(float, p)) for p in beaten}


@pytest.mark.parametrize("objectives", [1, 2, 3])
@given(seed=st.integers(0, 1000))
@settings(max_examples=4)
def test_the_expected_hypervolume_is_the_mean_over_draws(objectives, seed):
    source = np.random.default_rng(seed)
    front = source.random((4, objectives))
    reference = np.zeros(objectives)
    mean, spread = source.random((3, objectives)), 0.05 + 0.4 * source.random((3, objectives))
    exact = expected_hypervolume(mean, spread, front, reference)
    before = hypervolume(front, reference)
    for i in range(3):
        draws = mean[i] + spread[i] * source.standard_normal((400, objectives))
        gains = [hypervolume(np.vstack([front, draw]), reference) - before for draw in draws]
        assert exact[i] == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(400) + 1e-3)


def test_without_a_front_everything_above_the_reference_counts():
    found = expected_hypervolume(np.array([[1.0, 2.0]]), np.full((1, 2), 1e-6), np.zeros((0, 2)), np.zeros(2))
    assert found[0] == pytest.approx(2.0, rel=1e-3)
