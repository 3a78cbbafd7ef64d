"""The Gaussian process: gradients, calibration, trends that help or mislead, and classification."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmopt.search.gaussian import Classifier, Hyper, Regression, distances, expit, normal_cdf

ORDERED = (False, False, False)


def data(seed: int, n: int = 30, noise: float = 0.05):
    source = np.random.default_rng(seed)
    x = source.random((n, 3))
    truth = np.sin(4 * x[:, 0]) + 0.5 * x[:, 1]
    return x, truth, truth + noise * source.standard_normal(n), source


def test_distances_know_what_has_no_order():
    first, second = np.array([[0.0, 1.0]]), np.array([[0.5, 1.0], [0.0, 2.0]])
    assert distances(first, second, (False, True)).tolist() == [[[0.25, 0.0]], [[0.0, 1.0]]]


def test_the_slope_of_the_evidence_is_its_slope():
    x, _, y, source = data(1)
    trends = source.random((len(y), 1))
    model = Regression(
        x, y, unordered=ORDERED, trends=trends, doubt=1 + source.random(len(y)), hyper=Hyper.usual(3, trend=True)
    )
    hyper = Hyper(inverse_lengths=(0.3, -0.2, 0.1), amplitude=-0.3, noise=-1.5)
    value, slope = model._loss(hyper)
    point = np.array([*hyper.inverse_lengths, hyper.amplitude, hyper.noise])
    for k in range(len(point)):
        moved = point.copy()
        moved[k] += 1e-5
        shifted = Hyper(inverse_lengths=tuple(moved[:3]), amplitude=moved[3], noise=moved[4])
        assert (model._loss(shifted)[0] - value) / 1e-5 == pytest.approx(slope[k], rel=1e-3, abs=1e-3)


def test_a_fit_raises_the_evidence_and_finds_what_matters():
    x, _, y, _ = data(2, n=60)
    usual = Regression(x, y, unordered=ORDERED, hyper=Hyper.usual(3, trend=False))
    fitted = Regression(x, y, unordered=ORDERED)
    assert fitted.evidence > usual.evidence
    first, _, third = fitted.hyper.inverse_lengths
    assert first > third  # the wave has a shorter length than the parameter that does nothing


def test_intervals_cover_about_as_promised():
    inside = total = 0
    for seed in range(12):
        x, _, y, source = data(seed, n=40)
        model = Regression(x, y, unordered=ORDERED)
        new = source.random((100, 3))
        mean, spread = model.predict(new)
        truth = np.sin(4 * new[:, 0]) + 0.5 * new[:, 1]
        inside += int((np.abs(truth - mean) <= 1.96 * spread).sum())
        total += 100
    assert inside / total > 0.85


def test_mean_and_spread_agree_with_the_joint_distribution():
    x, _, y, source = data(3)
    trends = y[:, None] + 0.1
    model = Regression(x, y, unordered=ORDERED, trends=trends)
    new, new_trends = source.random((7, 3)), source.random((7, 1))
    mean, spread = model.predict(new, trends=new_trends)
    joint_mean, covariance = model.joint(new, trends=new_trends)
    assert joint_mean == pytest.approx(mean)
    assert np.sqrt(np.diag(covariance)) == pytest.approx(spread, rel=1e-4)


def error(model, new, truth, trends=None) -> float:
    return float(np.sqrt(np.mean((model.predict(new, trends=trends)[0] - truth) ** 2)))


def test_a_good_trend_helps_and_a_scrambled_one_hardly_harms():
    helped = harmed = plain = 0.0
    for seed in range(10):
        x, truth, y, source = data(seed, n=12)
        new = source.random((200, 3))
        target = np.sin(4 * new[:, 0]) + 0.5 * new[:, 1]
        bias, scramble = 3.0, source.standard_normal(212)
        plain += error(Regression(x, y, unordered=ORDERED), new, target)
        good = Regression(x, y, unordered=ORDERED, trends=(truth * 0.8 + bias)[:, None])
        helped += error(good, new, target, (target * 0.8 + bias)[:, None])
        bad = Regression(x, y, unordered=ORDERED, trends=scramble[:12, None])
        harmed += error(bad, new, target, scramble[12:, None])
    assert helped < 0.5 * plain
    assert harmed < 1.6 * plain


def test_few_items_count_less():
    x = np.array([[0.0, 0, 0], [0.01, 0, 0], [1.0, 1, 1]])
    y = np.array([0.0, 1.0, 0.5])
    sure = Regression(x, y, unordered=ORDERED, doubt=np.array([1.0, 10.0, 1.0]), hyper=Hyper.usual(3, trend=False))
    assert sure.predict(x[:1])[0][0] < 0.3


def test_one_and_two_observations_are_enough_to_predict():
    for n in (1, 2):
        x, _, y, _ = data(4, n=n)
        mean, spread = Regression(x, y, unordered=ORDERED).predict(x)
        assert np.isfinite(mean).all()
        assert (spread > 0).all()


def test_the_classifier_learns_a_boundary_and_keeps_its_prior_far_away():
    source = np.random.default_rng(0)
    x = source.random((60, 2))
    ran = (x[:, 0] < 0.5).astype(float)
    model = Classifier(x, ran, np.full(60, 1.0), unordered=(False, False))
    new = np.array([[0.1, 0.5], [0.9, 0.5]])
    good, bad = model.predict(new, np.full(2, 1.0))
    assert good > 0.9
    assert bad < 0.1
    one = Classifier(np.array([[0.0, 0.0]]), np.array([0.0]), np.array([3.0]), unordered=(False, False))
    far, near = one.predict(np.array([[9.0, 9.0], [0.0, 0.0]]), np.full(2, 3.0))
    assert far > 0.7 > near


@pytest.mark.parametrize("logit", [-6.0, 0.0, 6.0])
def test_the_classifier_is_stable_against_every_belief(logit):
    x = np.linspace(0, 1, 20)[:, None]
    for ran in (np.zeros(20), np.ones(20), np.arange(20) % 2.0):
        found = Classifier(x, ran, np.full(20, logit), unordered=(False,)).predict(x, np.full(20, logit))
        assert np.isfinite(found).all()
        if ran.std() == 0:
            assert abs(found.mean() - ran[0]) < 0.35


def test_small_functions():
    assert normal_cdf(np.array([0.0, 1.96])) == pytest.approx([0.5, 0.975], abs=1e-3)
    assert expit(np.array([0.0, math.log(3), -800.0])) == pytest.approx([0.5, 0.75, 0.0])
