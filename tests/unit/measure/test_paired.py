import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.stats.many import holm, joint_confidence
from llmopt.measure.stats.paired import (
    abba,
    bootstrap_difference,
    mcnemar,
    paired_difference,
    pairs_needed,
    ratio_of_pairs,
)
from llmopt.measure.stats.special import t_quantile


def test_mid_p_is_the_exact_value_less_half_the_seen_point():
    assert mcnemar(5, 0) == pytest.approx(2 * (1 / 32) - 1 / 32)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(3, 3) == pytest.approx(1.0, abs=1e-9)
    assert mcnemar(15, 5) == pytest.approx(0.0266, abs=5e-4)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mid_p_is_symmetric_and_a_probability(wins, losses):
    assert 0 <= mcnemar(wins, losses) == mcnemar(losses, wins) <= 1


def test_mid_p_keeps_its_level():
    for n in (10, 20, 40, 80):
        level = sum(math.comb(n, w) / 2**n for w in range(n + 1) if mcnemar(w, n - w) <= 0.05)
        assert level <= 0.06  # at one number of disagreements; over their spread it is 0.043 to 0.052


def outcomes(rng, clusters, size, *, gap, disagree, spread=0.2):
    """Paired 0/1 differences with mean ``gap``: a template may favour one side."""
    values, labels = [], []
    for cluster in range(clusters):
        win = (1 + gap / disagree) / 2 + rng.choice((-1, 1)) * spread
        for _ in range(size):
            values.append((1.0 if rng.random() < win else -1.0) if rng.random() < disagree else 0.0)
            labels.append(cluster)
    return values, labels


@pytest.mark.parametrize(
    ("clusters", "size", "gap", "disagree"), [(40, 3, 0.0, 0.2), (60, 2, 0.1, 0.25), (100, 1, 0.05, 0.15)]
)
def test_paired_intervals_cover_93_to_97_percent(clusters, size, gap, disagree):
    rng = random.Random(f"{clusters} {gap}")
    rounds, hits = 2000, 0
    for _ in range(rounds):
        values, labels = outcomes(rng, clusters, size, gap=gap, disagree=disagree)
        interval, _ = paired_difference(values, clusters=labels)
        hits += interval.low <= gap <= interval.high
    assert 0.92 <= hits / rounds <= 0.98


@pytest.mark.parametrize("clusters", [30, 60])
def test_the_bootstrap_covers_skewed_graded_scores(clusters):
    rng = random.Random(clusters)
    rounds, hits = 300, 0
    for number in range(rounds):
        values = [min(rng.expovariate(5), 1.0) - 0.1 for _ in range(clusters)]
        truth = (1 - math.exp(-5)) / 5 - 0.1
        interval = bootstrap_difference(values, resamples=1000, seed=number)
        hits += interval.low <= truth <= interval.high
    assert hits / rounds >= 0.90


def test_the_bootstrap_resamples_clusters_not_items():
    rng = random.Random(4)
    per_cluster = [rng.uniform(-0.5, 0.5) for _ in range(40)]
    values = [v for v in per_cluster for _ in range(10)]
    labels = [k for k in range(40) for _ in range(10)]
    by_cluster, by_item = bootstrap_difference(values, clusters=labels), bootstrap_difference(values)
    assert by_cluster.high - by_cluster.low > 2 * (by_item.high - by_item.low)


def test_a_few_equal_differences_are_no_certainty():
    """Nine items in ten gain a little and one loses much, which is no gain: eight of them often show the gain alone."""
    interval, method = paired_difference([0.05] * 8)
    assert "Bonett-Price" in method
    assert interval.low < 0 < interval.value < interval.high
    assert paired_difference([1.0] * 8)[0].low > 0
    wrong = 0
    for number in range(200):
        rng = random.Random(number)
        low, high = paired_difference([-0.45 if rng.random() < 0.1 else 0.05 for _ in range(8)])[0][1:]
        wrong += not low <= 0 <= high
    assert wrong <= 15


def test_graded_scores_are_bootstrapped_and_few_differences_are_padded():
    rng = random.Random(6)
    assert "bootstrap" in paired_difference([rng.uniform(-1, 1) for _ in range(50)])[1]
    interval, method = paired_difference([0.0] * 20)
    assert "Bonett" in method
    assert interval.low < -0.05 < 0.05 < interval.high
    assert paired_difference([0.0] * 2000)[0].high < 0.005


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60))
def test_an_interval_holds_its_value_and_turns_with_the_sign(values):
    interval, _ = paired_difference(values)
    turned, _ = paired_difference([-v for v in values])
    assert interval.low <= interval.value <= interval.high
    assert turned == pytest.approx((-interval.value, -interval.high, -interval.low))


@given(st.lists(st.tuples(st.floats(0.1, 1e4), st.floats(0.1, 1e4)), min_size=2, max_size=12))
def test_a_ratio_turns_over_with_its_sides(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    forth, back = ratio_of_pairs(a, b), ratio_of_pairs(b, a)
    assert forth.value * back.value == pytest.approx(1)
    assert forth.low * back.high == pytest.approx(1)
    scaled = ratio_of_pairs([3 * x for x in a], b)
    assert scaled.value == pytest.approx(3 * forth.value)


def test_a_ratio_needs_positive_values_and_pairs():
    with pytest.raises(ValueError, match="positive"):
        ratio_of_pairs([1.0, 0.0], [1.0, 1.0])
    with pytest.raises(ValueError):
        ratio_of_pairs([1.0, 2.0], [1.0])
    assert ratio_of_pairs([2.0], [1.0]) == (pytest.approx(2.0), None, None)


@given(st.integers(1, 40))
def test_abba_is_balanced_in_every_two_pairs(pairs):
    order = abba(pairs)
    assert order.count("A") == order.count("B") == pairs
    places = {side: sum(k for k, s in enumerate(order[: len(order) // 4 * 4]) if s == side) for side in "AB"}
    assert places["A"] == places["B"]  # a steady drift hits both alike


def test_pairs_needed_reach_their_power():
    rng = random.Random(8)
    n = pairs_needed(0.05, 0.06)
    found, edge = 0, t_quantile(0.975, n - 1)
    for _ in range(2000):
        logs = [rng.gauss(0.06, 0.05) for _ in range(n)]
        mean = sum(logs) / n
        error = math.sqrt(sum((x - mean) ** 2 for x in logs) / (n - 1) / n)
        found += mean / error > edge
    assert 0.77 <= found / 2000 <= 0.93
    assert pairs_needed(0.01, 1.0) == 4
    assert pairs_needed(0.10, 0.06) > n


def test_holm_is_the_stepwise_bonferroni():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_a_value_nor_changes_the_order(values):
    adjusted = holm(values)
    assert all(p <= q <= 1 for p, q in zip(values, adjusted, strict=True))
    ranked = sorted(range(len(values)), key=lambda k: values[k])
    assert [adjusted[k] for k in ranked] == sorted(adjusted)


def test_joint_confidence():
    assert joint_confidence(1) == pytest.approx(0.95)
    assert joint_confidence(5) == pytest.approx(0.99)
    with pytest.raises(ValueError):
        joint_confidence(0)
