"""The second solver: linear systems by elimination, small searches by trying."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.workload.korean_math.second_solver import UnsolvableError, solve


@pytest.mark.parametrize(
    ("equations", "values", "x"),
    [
        (("x + b == a",), {"a": 12, "b": 4}, 8),
        (("2 * (a + x) == p",), {"a": 7, "p": 40}, 13),
        (("elder == x + d", "elder + x == s"), {"d": 4, "s": 30}, 13),
        (("x * b == 100 * a",), {"a": 3, "b": 8}, Fraction(75, 2)),
        (("red + yellow == t", "red * b == yellow * a", "x == red"), {"t": 35, "a": 2, "b": 5}, 10),
        (("x - 1 == (a - 2) / 3",), {"a": 11}, 4),
    ],
)
def test_equations_are_solved(equations, values, x):
    assert solve(equations, values) == x


@pytest.mark.parametrize(
    ("condition", "values", "k"),
    [
        ("k * s >= a", {"s": 7, "a": 50}, 8),
        ("k * s >= a", {"s": 7, "a": 49}, 7),
        ("(k + 1) * s > a", {"s": 7, "a": 50}, 7),
    ],
)
def test_searches_find_the_smallest(condition, values, k):
    assert solve(("x == k",), values, search={"k": condition}) == k


@pytest.mark.parametrize(
    "equations",
    [
        ("x == y",),
        ("a == a",),
        ("x == a", "x == a + 1"),
        ("x * y == a", "y == 2 * z"),
        ("x * x == a",),
        ("a / x == 2",),
        ("x == a ** 2",),
        ("x > a",),
    ],
)
def test_what_does_not_determine_x_is_refused(equations):
    with pytest.raises(UnsolvableError):
        solve(equations, {"a": 9})


def test_a_search_without_an_end_is_refused():
    with pytest.raises(UnsolvableError, match="nothing below"):
        solve(("x == k",), {"a": 9}, search={"k": "0 * k > a"})


@given(st.lists(st.integers(-50, 50), min_size=6, max_size=6), st.integers(-50, 50), st.integers(-50, 50))
def test_any_regular_system_gives_back_its_solution(c, x, y):
    a, b, d, e = c[:4]
    if a * e == b * d:
        return
    values = {"a": a, "b": b, "d": d, "e": e, "p": a * x + b * y, "q": d * x + e * y}
    assert solve(("a * x + b * y == p", "d * x + e * y == q"), values) == x
