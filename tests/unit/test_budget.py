"""Budgets: durations, plans that reserve the confirmation, the smallest useful one, and stopping early."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import UsageError
from llmopt.objective import parse_objectives
from llmopt.records import Outcome
from llmopt.search.budget import Budget, Prices, Progress, make_plan, parse_duration, resolution
from llmopt.search.proposer import Costs, Result

PRICES = Prices(launch_s=10.0, measure_s=20.0, confirm_s=100.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("40m", 2400),
        ("1h30m", 5400),
        ("90s", 90),
        ("90", 90),
        ("1.5h", 5400),
        ("1시간 30분", 5400),
        (" 2 min ", 120),
        ("1d", 86400),
    ],
)
def test_durations_are_read(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "m", "40x", "1h30", "-5m", "1h -3m", "nan", "1e3", "forty minutes"])
def test_what_is_no_duration_is_a_usage_error(text):
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert caught.value.next_step


def test_zero_is_not_a_duration():
    with pytest.raises(UsageError) as caught:
        parse_duration("0m")
    assert caught.value.key == "search.duration_not_positive"


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert parse_duration(text) > 0


def test_a_plan_reserves_the_confirmation_first():
    plan = make_plan(Budget(seconds=1000), PRICES, spent_s=50)
    assert plan.limited_by == "time"
    assert plan.confirm_s == pytest.approx(115)
    assert plan.trials == int((1000 - 50 - 115) / (1.15 * 30))
    assert 50 + plan.finish_s <= 1000


def test_the_tightest_limit_counts():
    assert make_plan(Budget(seconds=10_000, trials=5), PRICES).limited_by == "trials"
    assert make_plan(Budget(seconds=10_000, trials=50), PRICES, left_in_space=7).trials == 7
    assert make_plan(Budget(trials=5), PRICES, done=9).trials == 0


def test_shared_launches_make_room_for_more_trials():
    dear = Prices(launch_s=90.0, measure_s=10.0, confirm_s=0.0)
    single, shared = (make_plan(Budget(seconds=2000), dear, per_launch=n) for n in (1.0, 4.0))
    assert shared.trials > 2 * single.trials
    assert shared.restarts == -(-shared.trials // 4)


def test_a_budget_that_can_measure_nothing_names_the_smallest_useful_one():
    with pytest.raises(UsageError) as caught:
        make_plan(Budget(seconds=60), PRICES, spent_s=30)
    smallest = caught.value.values["smallest"]
    assert str(smallest) in caught.value.what
    assert make_plan(Budget(seconds=smallest), PRICES, spent_s=30).trials >= 3
    assert make_plan(Budget(seconds=60), PRICES, spent_s=30, done=2).trials == 0  # later it just ends


@given(
    st.floats(1, 1e5), st.floats(0, 200), st.floats(0.1, 200), st.floats(0, 1000), st.floats(0, 1000), st.floats(1, 8)
)
def test_a_plan_never_exceeds_its_time(  # noqa: PLR0917 - drawn
    seconds, launch_s, measure_s, confirm_s, spent_s, per_launch
):
    prices = Prices(launch_s=launch_s, measure_s=measure_s, confirm_s=confirm_s)
    try:
        plan = make_plan(Budget(seconds=seconds), prices, spent_s=spent_s, per_launch=per_launch)
    except UsageError as error:
        smallest = error.values["smallest"]
        plan = make_plan(Budget(seconds=smallest), prices, spent_s=spent_s, per_launch=per_launch)
        seconds = smallest
        assert plan.trials >= 3
    assert spent_s + plan.finish_s <= seconds * (1 + 1e-9)


def test_prices_come_from_measured_costs():
    prices = Prices.of(Costs(launch_s=3.0, measure_s=4.0), confirm_s=5.0)
    assert (prices.launch_s, prices.measure_s, prices.confirm_s) == (3.0, 4.0, 5.0)


def test_resolution_matches_known_power():
    # 10 points at a discordance of .20 are found on 200 items with .87-.90 power, 5 points are not
    assert 0.05 < resolution(items=200, pairs=4, discordance=0.20).quality < 0.10
    found = resolution(items=0, pairs=4, speed_noise=0.05)
    assert found.quality is None
    assert found.speed == pytest.approx(0.0725, abs=0.002)
    assert resolution(items=10, pairs=4).speed is None


SPEED = parse_objectives("answers_per_minute")
BOTH = parse_objectives("quality,answers_per_minute")


def after(values, objectives=SPEED, **options) -> Progress:
    progress = Progress(objectives, **options)
    for value in values:
        figures = value if isinstance(value, tuple) else (value,)
        progress.note(Result(outcome=Outcome.DONE, objectives=figures))
    return progress


def test_a_search_that_still_progresses_goes_on():
    assert not after([]).stalled()
    assert not after(float(n) for n in range(1, 60)).stalled()
    assert not after([1.0] + [0.5] * 8).stalled()


def test_a_search_that_stands_still_stops():
    assert after([1.0, 5.0] + [4.0] * 14).stalled()
    latency = parse_objectives("ttft_p50")
    assert after([5.0, 1.0] + [3.0] * 14, latency).stalled()


def test_with_several_objectives_progress_is_what_nobody_had():
    assert after([(0.5, 10.0)] + [(0.5, 9.0)] * 14, BOTH).stalled()
    front = [(0.5, 10.0), *[(0.5 + 0.02 * n, 10.0 - 0.3 * n) for n in range(1, 15)]]
    assert not after(front, BOTH).stalled()
    assert after([*front, *[(0.5, 9.0)] * 40], BOTH).stalled()


def test_progress_within_the_noise_is_no_progress():
    source = random.Random(1)
    values = [100.0] + [100.0 + source.uniform(-2, 2) for _ in range(20)]
    assert after(values, noise=0.05).stalled()
    assert not after([*values, 110.0], noise=0.05).stalled()


def test_many_small_steps_are_progress_in_the_end():
    assert not after([100.0 * 1.004**n for n in range(40)]).stalled()


def test_what_broke_a_limit_or_was_raced_out_is_no_progress_and_what_failed_counts_for_nothing():
    progress = after([100.0])
    for _ in range(14):
        progress.note(Result(outcome=Outcome.FAILED))
    assert not progress.stalled()
    for _ in range(7):
        progress.note(Result(outcome=Outcome.DONE, objectives=(200.0,), violations=(0.1,)))
        progress.note(Result(outcome=Outcome.RACED_OUT, objectives=(200.0,), fidelity=0.5))
    assert progress.stalled()


def test_a_model_that_expects_something_is_heard():
    values = [1.0, 5.0] + [4.0] * 8
    assert after(values).stalled(expected_gain=0.001)
    assert not after([1.0, 5.0] + [4.0] * 30).stalled(expected_gain=0.1)
    assert not after([1.0, 5.0, 4.0]).stalled(expected_gain=0.0)
