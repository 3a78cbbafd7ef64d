import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import UsageError
from llmopt.measure.arrivals import Ramp, arrival_times, open_load
from llmopt.records import Load


def load(arrival="poisson", rate=10.0, **more):
    return Load(streams=None, rate=rate, arrival=arrival, **more)


def gaps(times):
    return [after - before for before, after in itertools.pairwise((0.0, *times))]


def test_constant_arrivals_are_evenly_spaced_from_the_start():
    assert arrival_times(load("constant", 4.0), 5) == (0.0, 0.25, 0.5, 0.75, 1.0)


@given(st.sampled_from(["constant", "poisson", "gamma"]), st.floats(0.1, 100), st.integers(0, 5), st.integers(0, 50))
def test_schedules_never_go_back_and_depend_on_the_seed_alone(arrival, rate, seed, count):
    times = arrival_times(load(arrival, rate, seed=seed), count)
    assert len(times) == count
    assert list(times) == sorted(times)
    assert times == arrival_times(load(arrival, rate, seed=seed), count)


def test_another_rate_is_the_same_series_stretched():
    slow, fast = arrival_times(load(rate=5.0), 100), arrival_times(load(rate=50.0), 100)
    assert slow == pytest.approx([10 * t for t in fast])


def test_another_seed_is_another_series():
    assert arrival_times(load(seed=1), 5) != arrival_times(load(seed=2), 5)


@pytest.mark.parametrize(
    ("arrival", "burstiness", "cv"), [("poisson", 1.0, 1.0), ("gamma", 0.25, 2.0), ("gamma", 4.0, 0.5)]
)
def test_gaps_have_the_mean_and_spread_of_their_law(arrival, burstiness, cv):
    found = gaps(arrival_times(load(arrival, 20.0, burstiness=burstiness), 20_000))
    assert statistics.fmean(found) == pytest.approx(0.05, rel=0.05)
    assert statistics.stdev(found) / statistics.fmean(found) == pytest.approx(cv, rel=0.05)


def test_poisson_gaps_are_exponential():
    found = sorted(gaps(arrival_times(load(rate=1.0), 20_000)))
    distance = max(abs((k + 1) / len(found) - (1 - math.exp(-gap))) for k, gap in enumerate(found))
    assert distance < 1.63 / math.sqrt(len(found))  # Kolmogorov-Smirnov at 1 %


@pytest.mark.parametrize("shape", ["linear", "exponential"])
@given(a=st.floats(0.1, 100), b=st.floats(0.1, 100), count=st.floats(0, 5000))
def test_a_ramp_and_its_inverse_agree(shape, a, b, count):
    ramp = Ramp(from_rate=a, to_rate=b, seconds=20.0, shape=shape)
    assert ramp.expected(ramp.when(count)) == pytest.approx(count, rel=1e-6, abs=1e-6)


def test_a_ramp_reaches_its_rates():
    times = arrival_times(open_load(10.0, arrival="constant", ramp="2:10"), 200)
    assert sum(t < 1 for t in times) == pytest.approx(2.4, abs=1)
    assert sum(11 <= t < 12 for t in times) == pytest.approx(10, abs=1)
    assert Ramp(from_rate=2.0, to_rate=10.0, seconds=10.0).expected(10.0) == 60.0


@pytest.mark.parametrize("rate", [None, 0.0, -1.0])
def test_an_open_loop_needs_a_rate(rate):
    with pytest.raises(ValueError, match="rate"):
        arrival_times(load(rate=rate), 1)


@pytest.mark.parametrize(
    ("rate", "words", "flags"),
    [
        (2.0, {}, "--rate 2 --arrival poisson"),
        (2.0, {"arrival": "constant"}, "--rate 2 --arrival constant"),
        (2.5, {"burstiness": 0.5}, "--rate 2.5 --arrival gamma --burstiness 0.5"),
        (8.0, {"ramp": "1:60s"}, "--rate 8 --arrival poisson --ramp 1:60"),
        (8.0, {"ramp": "1:60:exponential"}, "--rate 8 --arrival poisson --ramp 1:60:exponential"),
    ],
)
def test_an_open_load_is_read_from_its_words_and_shown_as_them(rate, words, flags):
    assert open_load(rate, **words).flags == flags


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"rate": -1.0}, "-1"),
        ({"rate": math.nan}, "nan"),
        ({"arrival": "gama"}, "gama"),
        ({"burstiness": 0.0}, "--burstiness"),
        ({"arrival": "poisson", "burstiness": 2.0}, "gamma"),
        ({"ramp": "60"}, "60"),
        ({"ramp": "0:60"}, "0:60"),
        ({"ramp": "1:inf"}, "1:inf"),
        ({"ramp": "1:60:steep"}, "steep"),
    ],
)
def test_words_that_are_no_load_are_refused(words, named):
    with pytest.raises(UsageError, match=named):
        open_load(**{"rate": 2.0, **words})


def test_a_ramp_needs_positive_numbers():
    with pytest.raises(ValueError, match="positive"):
        Ramp(from_rate=0.0, to_rate=1.0, seconds=1.0)
