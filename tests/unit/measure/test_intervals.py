import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.stats.intervals import (
    clopper_pearson,
    design_effect,
    mean_interval,
    one_sided_quantile,
    proportion_interval,
    quantile,
    quantile_interval,
    ratio_interval,
    smallest_n,
    wilson,
)
from llmopt.measure.stats.special import t_quantile

floats = st.floats(-1e6, 1e6)


def clustered(rng, clusters, size, *, p=0.7, spread=0.2):
    """0/1 answers whose chance differs from cluster to cluster; their true mean is ``p``."""
    values, labels = [], []
    for cluster in range(clusters):
        chance = p + rng.choice((-1, 1)) * spread
        for _ in range(size):
            values.append(float(rng.random() < chance))
            labels.append(cluster)
    return values, labels


def test_known_values():
    assert wilson(7, 10)[1:] == pytest.approx((0.3968, 0.8922), abs=5e-4)
    assert wilson(0, 20).low == 0.0
    assert clopper_pearson(7, 10)[1:] == pytest.approx((0.3475, 0.9333), abs=5e-4)
    assert clopper_pearson(0, 10) == (0.0, 0.0, pytest.approx(0.3085, abs=5e-4))
    assert clopper_pearson(10, 10).high == 1.0
    assert t_quantile(0.975, 3) == pytest.approx(3.1824, abs=5e-4)


def test_half_widths_at_70_percent():
    for n, half in ((20, 18.7), (30, 15.6), (50, 12.3), (100, 8.8), (200, 6.3), (400, 4.5), (1000, 2.8)):
        found = wilson(0.7 * n, n)
        assert 50 * (found.high - found.low) == pytest.approx(half, abs=0.1)


def test_exact_interval_never_covers_less_than_it_says():
    for n in (5, 20, 50):
        bounds = [clopper_pearson(k, n) for k in range(n + 1)]
        for p in (0.05, 0.3, 0.5, 0.9, 0.97):
            chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
            assert sum(c for c, b in zip(chances, bounds, strict=True) if b.low <= p <= b.high) >= 0.95


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_proportions_stay_in_range_around_their_value(counts):
    successes, n = counts
    for found in (wilson(successes, n), clopper_pearson(successes, n)):
        assert 0 <= found.low <= successes / n <= found.high <= 1


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.9, 36), (0.95, 72), (0.99, 368)])
def test_a_percentile_needs_enough_values(q, n):
    assert smallest_n(q) == n
    assert quantile_interval(range(n), q).high is not None
    assert quantile_interval(range(n - 1), q).low is None


@pytest.mark.parametrize(
    ("n", "q", "ranks"), [(500, 0.99, (490, 500)), (1000, 0.99, (983, 997)), (2000, 0.99, (1971, 1989)), (10_000, 0.99, (9880, 9920)), (300, 0.95, (277, 293)), (1000, 0.95, (936, 964))]
)  # fmt: skip
def test_order_statistic_ranks(n, q, ranks):
    found = quantile_interval(range(1, n + 1), q)
    assert (found.low, found.high) == ranks


def test_a_quantile_interval_covers_whatever_the_population():
    rng = random.Random(1)
    for law, truth in ((rng.random, 0.9), (lambda: rng.expovariate(1), -math.log(0.1))):
        hits = 0
        for _ in range(1000):
            found = quantile_interval(sorted(law() for _ in range(60)), 0.9)
            hits += found.low <= truth <= found.high
        assert hits >= 940


@given(st.lists(floats, min_size=1, max_size=50), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values, q):
    assert quantile(sorted(values), q) == pytest.approx(float(np.quantile(values, q)), abs=1e-6)


@given(st.lists(floats, min_size=6, max_size=80), st.sampled_from([0.5, 0.9]), st.floats(1, 20))
def test_dependence_only_widens_a_quantile_interval(values, q, effect):
    ordered = sorted(values)
    plain, wider = quantile_interval(ordered, q), quantile_interval(ordered, q, effect=effect)
    if wider.low is not None:
        assert wider.low <= plain.low <= plain.value <= plain.high <= wider.high


def test_one_sided_bounds_need_fewer_values():
    assert one_sided_quantile(range(59), 0.95).high == 58
    assert one_sided_quantile(range(58), 0.95).high is None
    assert one_sided_quantile(range(299), 0.99).high == 298


def test_a_design_effect_sees_groups():
    values = [float(k // 10) for k in range(200)]
    assert design_effect([[value] for value in values], 9.5) == pytest.approx(1.0, abs=0.05)
    assert design_effect([values[k : k + 10] for k in range(0, 200, 10)], 9.5) == pytest.approx(10, rel=0.1)
    assert design_effect([values], 9.5) == 200


@given(st.lists(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=8), min_size=2, max_size=8))
def test_a_design_effect_is_the_clustered_variance_over_the_plain_one(groups):
    effect = design_effect([sorted(group) for group in groups], 2.0)
    below = [float(value <= 2.0) for group in groups for value in group]
    labels = [k for k, group in enumerate(groups) for _ in group]
    p, n = statistics.fmean(below), len(below)
    if 0 < p < 1:
        interval = mean_interval(below, clusters=labels)
        error = (interval.high - interval.low) / 2 / t_quantile(0.975, len(groups) - 1)
        assert effect >= error**2 * n / (p * (1 - p)) - 1e-9
    assert effect >= 1


@given(st.lists(floats, min_size=2, max_size=40))
def test_a_mean_interval_without_clusters_is_that_of_every_item_its_own_cluster(values):
    plain, own = mean_interval(values), mean_interval(values, clusters=list(range(len(values))))
    assert plain.low == pytest.approx(own.low, abs=1e-6, rel=1e-6)
    assert plain.low <= statistics.fmean(values) + 1e-9


def test_copies_of_an_item_add_nothing():
    rng = random.Random(2)
    values = [rng.random() for _ in range(30)]
    once = mean_interval(values, clusters=list(range(30)))
    five = mean_interval([v for v in values for _ in range(5)], clusters=[k for k in range(30) for _ in range(5)])
    assert five == pytest.approx(once)


@pytest.mark.parametrize(("clusters", "size"), [(20, 5), (40, 3), (60, 5)])
def test_clustered_intervals_cover_93_to_97_percent(clusters, size):
    rng = random.Random(f"{clusters} {size}")
    rounds, means, shares = 2000, 0, 0
    for _ in range(rounds):
        values, labels = clustered(rng, clusters, size)
        mean, share = mean_interval(values, clusters=labels), proportion_interval(values, clusters=labels)
        means += mean.low <= 0.7 <= mean.high
        shares += share.low <= 0.7 <= share.high
    slack = 0.01  # two standard errors of 2,000 rounds
    assert 0.93 - slack <= means / rounds <= 0.97 + slack
    assert 0.93 - slack <= shares / rounds <= 0.97 + slack


@pytest.mark.long
@pytest.mark.parametrize("p", [0.5, 0.7, 0.75])
@pytest.mark.parametrize(("clusters", "size"), [(20, 5), (40, 3), (60, 5), (100, 2)])
def test_clustered_intervals_cover_93_to_97_percent_in_full(clusters, size, p):
    rng = random.Random(f"{clusters} {size} {p}")
    rounds, hits = 20_000, 0
    for _ in range(rounds):
        values, labels = clustered(rng, clusters, size, p=p)
        share = proportion_interval(values, clusters=labels)
        hits += share.low <= p <= share.high
    assert 0.93 <= hits / rounds <= 0.97


def test_ignoring_clusters_would_be_wrong():
    rng = random.Random(5)
    hits = 0
    for _ in range(500):
        values, _ = clustered(rng, 20, 10)
        found = proportion_interval(values)
        hits += found.low <= 0.7 <= found.high
    assert hits / 500 < 0.92


def test_all_right_in_few_clusters_is_not_certainty():
    assert proportion_interval([1.0] * 50, clusters=[k // 10 for k in range(50)]).low < 0.55
    assert proportion_interval([1.0] * 50).low > 0.9


def test_a_ratio_of_sums_covers():
    rng = random.Random(7)
    hits = 0
    for _ in range(1000):
        times = [rng.expovariate(1) + 0.5 for _ in range(40)]
        found = ratio_interval([2.0 * t + rng.gauss(0, 0.3) for t in times], times)
        hits += found.low <= 2.0 <= found.high
    assert 0.92 <= hits / 1000 <= 0.975


@pytest.mark.parametrize(
    "bad",
    [
        lambda: wilson(0, 0),
        lambda: clopper_pearson(3, 2),
        lambda: mean_interval([]),
        lambda: ratio_interval([1.0], [0.0]),
    ],
)
def test_nothing_comes_from_nothing(bad):
    with pytest.raises(ValueError):
        bad()


def test_one_value_or_one_cluster_has_no_interval():
    assert mean_interval([3.0]) == (3.0, None, None)
    assert mean_interval([1.0, 2.0], clusters=["a", "a"]).low is None
    assert ratio_interval([1.0, 2.0], [1.0, 1.0]).low is None
