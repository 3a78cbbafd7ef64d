"""What a speed costs: the price of the hours it takes, with the speed's interval turned over."""

import math

from hypothesis import given
from hypothesis import strategies as st

from llmopt.records import Estimate
from llmopt.study.costs import costs

RATES = st.floats(0.01, 1e5)


def speed(value, low=None, high=None):
    return Estimate(value=value, unit="1/min", n=4, low=low, high=high)


@given(rate=RATES, price=st.floats(0.01, 1000), below=st.floats(0.1, 1), above=st.floats(1, 10))
def test_a_thousand_answers_cost_the_hours_they_take(rate, price, below, above):
    figures = {"answers_per_minute": speed(rate, rate * below, rate * above)}
    (found,) = costs(figures, price).values()
    assert math.isclose(found.value, price * 1000 / rate / 60)
    assert found.low <= found.value * (1 + 1e-9)
    assert found.high >= found.value * (1 - 1e-9)
    assert math.isclose(found.low * above, found.value)
    assert math.isclose(found.high * below, found.value)
    assert found.n == 4


def test_a_million_tokens_by_the_tokens_of_a_second():
    found = costs({"output_tokens_per_s": speed(100.0)}, 3.6)
    assert math.isclose(found["cost_per_million_tokens"].value, 10.0)
    assert found["cost_per_million_tokens"].low is None


def test_no_price_no_speed_and_no_bound_give_none():
    figures = {"answers_per_minute": speed(10.0, 0.0, 20.0)}
    assert costs(figures, None) == {}
    assert costs({}, 1.0) == {}
    assert costs({"answers_per_minute": speed(0.0)}, 1.0) == {}
    (found,) = costs(figures, 1.0).values()
    assert (found.low, found.high) == (None, None), "an interval that holds 0 gives no highest cost"
