"""Objectives, limits and dominance."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import UsageError
from llmopt.objective import (
    LimitStatus,
    dominates,
    named_points,
    objective_names,
    objective_values,
    pareto_front,
    parse_constraint,
    parse_constraints,
    parse_objectives,
    strategy_goal,
)
from llmopt.records import Estimate, Measurement, Strategy

BOTH = parse_objectives("quality,answers_per_minute")


def measured(**values: float | tuple[float, float, float]) -> Measurement:
    estimates = {}
    for name, value in values.items():
        low, mid, high = value if isinstance(value, tuple) else (None, value, None)
        estimates[name] = Estimate(value=mid, unit="", n=10, low=low, high=high)
    return Measurement(estimates=estimates)


def test_objectives_are_read_in_order_with_aliases():
    first, second, third = parse_objectives(" accuracy, answers_per_minute ,ttft_p95_ms")
    assert (first.estimate, first.maximize) == ("accuracy", True)
    assert second.unit == "/min"
    assert (third.estimate, third.maximize) == ("ttft_p95_ms", False)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "objective.empty"),
        (" , ", "objective.empty"),
        ("quality,accuracy", "objective.twice"),
        ("qualty", "objective.unknown"),
    ],
)
def test_bad_objectives_are_one_usage_error(text, key):
    with pytest.raises(UsageError) as caught:
        parse_objectives(text)
    assert caught.value.key == key
    assert caught.value.next_step


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError) as caught:
        parse_objectives("answer_per_minute")
    assert "answers_per_minute" in caught.value.next_step


def test_a_measurement_without_a_finite_value_has_no_objective_values():
    assert objective_values(measured(accuracy=0.5), BOTH) is None
    assert objective_values(measured(accuracy=0.5, answers_per_minute=float("nan")), BOTH) is None
    assert objective_values(measured(accuracy=0.5, answers_per_minute=9.0), BOTH) == (0.5, 9.0)


@pytest.mark.parametrize(
    ("text", "estimate", "upper", "limit"),
    [
        ("ttft_p95<800ms", "ttft_p95_ms", True, 800.0),
        ("ttft_p95 <= 0.8 s", "ttft_p95_ms", True, 800.0),
        ("memory<2GB", "memory_bytes", True, 2e9),
        ("memory<2GiB", "memory_bytes", True, 2.0 * 2**30),
        ("accuracy>=0.30", "accuracy", False, 0.3),
        ("quality≥30%", "accuracy", False, 0.3),
        ("answers_per_minute>2/s", "answers_per_minute", False, 120.0),
        ("tokens/s>=1e1", "output_tokens_per_s", False, 10.0),
    ],
)
def test_limits_are_read_with_their_units(text, estimate, upper, limit):
    constraint = parse_constraint(text)
    assert constraint.metric.estimate == estimate
    assert constraint.upper is upper
    assert constraint.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ttft_p95=800ms", "objective.limit_form"),
        ("ttft_p95<", "objective.limit_form"),
        ("", "objective.limit_form"),
        ("<5", "objective.limit_form"),
        ("tftt_p95<800ms", "objective.unknown"),
        ("ttft_p95<800GB", "objective.limit_unit"),
        ("memory<-2GB", "objective.limit_negative"),
        ("accuracy>=30", "objective.limit_share"),
        ("accuracy>1", "objective.limit_impossible"),
        ("memory<0", "objective.limit_impossible"),
    ],
)
def test_bad_limits_are_one_usage_error(text, key):
    with pytest.raises(UsageError) as caught:
        parse_constraint(text)
    assert caught.value.key == key
    assert caught.value.what
    assert caught.value.next_step


@pytest.mark.parametrize(
    "texts", [("ttft<100ms", "ttft>200ms"), ("accuracy>=0.5", "accuracy<0.5"), ("memory>1GB", "memory<=1GB")]
)
def test_limits_that_exclude_each_other_are_refused(texts):
    with pytest.raises(UsageError) as caught:
        parse_constraints(texts)
    assert caught.value.key == "objective.limit_conflict"


def test_limits_that_touch_or_overlap_are_accepted():
    assert len(parse_constraints(["ttft>=100ms", "ttft<=100ms", "memory<2GB"])) == 3


def test_a_limit_is_met_only_by_its_bound():
    limit = parse_constraint("ttft_p95<800ms")
    met = limit.check(measured(ttft_p95_ms=(600.0, 700.0, 750.0)))
    open_ = limit.check(measured(ttft_p95_ms=(600.0, 700.0, 900.0)))
    broken = limit.check(measured(ttft_p95_ms=(850.0, 900.0, 950.0)))
    assert [met.status, open_.status, broken.status] == [LimitStatus.MET, LimitStatus.UNDECIDED, LimitStatus.VIOLATED]
    assert met.violation <= 0 < open_.violation < broken.violation
    assert open_.point_violation < 0


def test_the_bound_of_a_limit_is_one_sided():
    limit = parse_constraint("ttft_p95<=800ms")
    check = limit.check(measured(ttft_p95_ms=(None, 700.0, 800.0)))
    assert 700 < check.bound < 800


def test_a_strict_limit_is_not_met_at_its_edge():
    estimate = measured(memory_bytes=2e9)
    assert parse_constraint("memory<=2GB").check(estimate).violation <= 0
    assert parse_constraint("memory<2GB").check(estimate).violation > 0


def test_a_figure_that_was_not_measured_decides_nothing():
    check = parse_constraint("memory<2GB").check(measured(accuracy=1.0))
    assert (check.status, check.value) == (LimitStatus.UNDECIDED, None)
    assert check.violation > 0


def test_strategies_carry_their_floor_from_the_baseline():
    baseline = measured(accuracy=0.6, answers_per_minute=10.0)
    speed = strategy_goal(Strategy.SPEED)
    assert speed.objectives[0].name == "answers_per_minute"
    floor = speed.floors[0].at(baseline)
    assert floor is not None
    assert floor.limit == pytest.approx(0.58)
    assert parse_constraint(floor.text).limit == pytest.approx(0.58)
    accuracy_floor = strategy_goal(Strategy.ACCURACY).floors[0].at(baseline)
    assert accuracy_floor is not None
    assert accuracy_floor.limit == pytest.approx(5.0)
    assert strategy_goal(Strategy.CREATIVITY).objectives[0].name == "diversity"
    assert speed.floors[0].at(measured(memory_bytes=1.0)) is None


POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=25)


@given(POINTS)
def test_the_front_dominates_everything_outside_it_and_nothing_inside(points):
    front = pareto_front(points, BOTH)
    inside = [points[i] for i in front]
    assert len(set(inside)) == len(inside)
    assert not any(dominates(a, b, BOTH) for a in inside for b in inside)
    for point in points:
        assert point in inside or any(dominates(other, point, BOTH) for other in inside)


@given(POINTS, st.sampled_from(["memory", "ttft_p95"]))
def test_minimised_objectives_mirror_the_front(points, name):
    objectives = parse_objectives(f"quality,{name}")
    mirrored = [(a, -b) for a, b in points]
    assert pareto_front(points, objectives) == pareto_front(mirrored, BOTH)


@given(st.text(max_size=30))
def test_any_text_is_a_limit_or_a_usage_error(text):
    constraint = None
    with contextlib.suppress(UsageError):
        constraint = parse_constraint(text)
    assert constraint is None or constraint.limit >= 0


def test_named_points():
    front = [
        measured(accuracy=0.9, answers_per_minute=2.0, memory_bytes=5e8),
        measured(accuracy=0.8, answers_per_minute=9.0, memory_bytes=6e8),
        measured(accuracy=0.2, answers_per_minute=10.0, memory_bytes=4e8),
        measured(accuracy=0.95),
    ]
    assert named_points(front, BOTH) == {"recommended": 1, "best_quality": 0, "fastest": 2, "smallest": 2}
    assert named_points(front, parse_objectives("quality"))["recommended"] == 3
    assert named_points([measured(memory_bytes=1.0)], BOTH) == {}


def test_the_names_a_user_may_give_include_the_issue_examples():
    assert {"quality", "answers_per_minute", "ttft_p95", "memory", "accuracy", "diversity"} <= set(objective_names())
