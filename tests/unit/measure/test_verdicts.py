import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.stats.verdicts import limit_of_estimate, limit_verdict, quality_verdict, speed_verdict
from llmopt.records import AnswerStatus, Estimate, Score, VerdictKind

BETTER, WORSE, EQUIVALENT, TIE, UNDECIDED = (
    VerdictKind.BETTER, VerdictKind.WORSE, VerdictKind.EQUIVALENT, VerdictKind.TIE, VerdictKind.UNDECIDED,
)  # fmt: skip
TURNED = {BETTER: WORSE, WORSE: BETTER}


def scores(values, status=AnswerStatus.OK):
    return [Score(item_id=f"q{k}", value=float(v), status=status) for k, v in enumerate(values)]


def test_quality_kinds():
    good, bad = scores([1] * 60), scores([1] * 40 + [0] * 20)
    assert quality_verdict(good, bad).kind is BETTER
    assert quality_verdict(bad, good).kind is WORSE
    assert quality_verdict(scores([1, 0] * 500), scores([1, 0] * 500)).kind is EQUIVALENT
    one_up = quality_verdict(scores([1] * 60), scores([0] * 2 + [1] * 58), margin=0.05)
    assert (one_up.kind, one_up.more_samples is not None) == (TIE, True)
    assert quality_verdict(scores([1, 0] * 15), scores([0, 1] * 15)).kind is UNDECIDED


def test_quality_effect_is_the_paired_difference_with_its_interval():
    verdict = quality_verdict(scores([1] * 60), scores([1] * 40 + [0] * 20))
    assert verdict.effect.value == pytest.approx(1 / 3)
    assert 0 < verdict.effect.low < 1 / 3 < verdict.effect.high
    assert not verdict.relative
    assert "McNemar" in verdict.method


def test_repeats_are_averaged_and_technical_failures_leave_their_item_out():
    a = [*scores([1] * 20), *scores([0] * 20)]
    b = [*scores([1] * 19), Score(item_id="q19", value=0.0, status=AnswerStatus.REQUEST_ERROR)]
    verdict = quality_verdict(a, b)
    assert verdict.effect.n == 19
    assert verdict.effect.value == pytest.approx(-0.5)


def test_a_few_templates_are_a_few_observations():
    a, b = scores([1] * 60), scores([0] * 60)
    same = {f"q{k}": f"t{k % 4}" for k in range(60)}
    verdict = quality_verdict(a, b, clusters=same)
    assert (verdict.kind, verdict.more_samples) == (UNDECIDED, 2)


@pytest.mark.parametrize("items", [4, 8, 40])
def test_so_many_further_equal_items_as_it_says_show_that_they_are_equal(items):
    few = quality_verdict(scores([1] * items), scores([1] * items))
    assert few.kind is UNDECIDED
    needed = items + few.more_samples
    assert quality_verdict(scores([1] * (needed // 2)), scores([1] * (needed // 2))).kind is not EQUIVALENT
    enough = round(1.1 * needed)
    assert quality_verdict(scores([1] * enough), scores([1] * enough)).kind is EQUIVALENT


def test_too_few_launches_say_what_would_decide_and_not_only_what_makes_it_possible():
    assert speed_verdict([100.0, 140.0, 90.0], [110.0, 90.0, 105.0]).more_samples > 10


def test_picking_the_best_of_many_costs_confidence():
    a, b = scores([1] * 100), scores([0] * 7 + [1] * 93)
    alone, picked = quality_verdict(a, b), quality_verdict(a, b, comparisons=20)
    assert alone.kind is BETTER
    assert picked.kind is not BETTER
    assert picked.effect.high - picked.effect.low > alone.effect.high - alone.effect.low


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=6, max_size=80))
def test_a_quality_verdict_turns_with_its_sides(pairs):
    a, b = scores([x for x, _ in pairs]), scores([y for _, y in pairs])
    forth, back = quality_verdict(a, b), quality_verdict(b, a)
    assert forth.effect.value == pytest.approx(-back.effect.value)
    if forth.kind in TURNED:
        assert back.kind is TURNED[forth.kind]


def test_speed_kinds():
    base = [100.0, 104.0, 97.0, 101.0]
    assert speed_verdict([v * 1.5 for v in base], base).kind is BETTER
    assert speed_verdict(base, [v * 1.5 for v in base]).kind is WORSE
    assert speed_verdict([100.1, 104.1, 96.9, 100.9], base).kind is EQUIVALENT
    assert speed_verdict([150.0, 90.0, 120.0, 80.0], base).kind is UNDECIDED
    assert speed_verdict([107.0, 104.5, 103.0, 101.5], base).kind is TIE
    lower = speed_verdict([v * 1.5 for v in base], base, higher_is_better=False, objective="ttft_p50_ms")
    assert (lower.kind, lower.effect.value) == (WORSE, pytest.approx(1.5))


def test_fewer_than_four_launch_pairs_are_undecided():
    verdict = speed_verdict([200.0] * 3, [100.0] * 3)
    assert (verdict.kind, verdict.more_samples) == (UNDECIDED, 1)
    assert speed_verdict([], []).kind is UNDECIDED
    with pytest.raises(ValueError, match="pairs"):
        speed_verdict([1.0], [])


@given(st.lists(st.tuples(st.floats(1, 1000), st.floats(1, 1000)), min_size=4, max_size=10), st.booleans())
def test_a_speed_verdict_turns_with_its_sides_and_with_the_direction(pairs, higher):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    forth = speed_verdict(a, b, higher_is_better=higher)
    for other in (speed_verdict(b, a, higher_is_better=higher), speed_verdict(a, b, higher_is_better=not higher)):
        if forth.kind in TURNED:
            assert other.kind is TURNED[forth.kind]


def test_a_share_of_the_error_widens_the_interval():
    base = [100.0, 104.0, 97.0, 101.0]
    once, thrice = (
        speed_verdict([v * 1.2 for v in base], base),
        speed_verdict([v * 1.2 for v in base[::-1]], base, confidence=0.98),
    )
    assert once.effect.high - once.effect.low < thrice.effect.high - thrice.effect.low


def test_a_limit_is_met_only_by_its_bound():
    assert limit_verdict([1.0, 1.1, 0.9, 1.0], 2.0, below=True).kind is BETTER
    assert limit_verdict([1.9, 2.1, 1.8, 2.1], 2.0, below=True).kind is UNDECIDED
    assert limit_verdict([3.0, 3.1, 2.9, 3.0], 2.0, below=True).kind is WORSE
    assert limit_verdict([3.0, 3.1, 2.9, 3.0], 2.0, below=False).kind is BETTER
    one = limit_verdict([1.0], 2.0, below=True)
    assert (one.kind, one.more_samples) == (UNDECIDED, 3)
    assert limit_verdict([], 2.0, below=True).kind is UNDECIDED


def test_a_limit_on_a_percentile_needs_the_requests_for_it():
    assert limit_verdict([0.1] * 59, 0.5, below=True, quantile=0.95).kind is BETTER
    few = limit_verdict([0.1] * 40, 0.5, below=True, quantile=0.95)
    assert (few.kind, few.more_samples) == (UNDECIDED, 19)
    assert limit_verdict([0.1] * 50 + [0.9] * 10, 0.5, below=True, quantile=0.95).kind is WORSE


def test_a_limit_on_a_share():
    assert limit_verdict([1.0] * 50 + [0.0] * 50, 0.30, below=False, proportion=True).kind is BETTER
    close = limit_verdict([1.0] * 32 + [0.0] * 68, 0.30, below=False, proportion=True)
    assert close.kind is UNDECIDED
    assert close.more_samples > 100


def test_a_limit_from_an_estimate_uses_its_bounds():
    estimate = Estimate(value=100.0, unit="ms", n=50, low=90.0, high=110.0)
    assert limit_of_estimate(estimate, 120.0, below=True).kind is BETTER
    assert limit_of_estimate(estimate, 105.0, below=True).kind is UNDECIDED
    assert limit_of_estimate(estimate, 80.0, below=True).kind is WORSE
    assert limit_of_estimate(Estimate(value=1.0, unit="", n=1), 80.0, below=True).kind is UNDECIDED


# A/A honesty: how often identical configurations are called different, how often a real difference is found.


def launches(rng, pairs, *, ratio=1.0, between=0.04, drift=0.01):
    """Speeds of an ABBA run: launches vary, the machine drifts."""
    a, b = [], []
    for k in range(pairs):
        for side in "AB" if k % 2 == 0 else "BA":
            value = 100 * math.exp(rng.gauss(0, between) + drift * 2 * k) * (ratio if side == "A" else 1)
            (a if side == "A" else b).append(value)
    return a, b


@pytest.mark.parametrize("pairs", [4, 6])
def test_identical_launches_are_rarely_called_different(pairs):
    rng = random.Random(pairs)
    called = sum(speed_verdict(*launches(rng, pairs)).kind in {BETTER, WORSE} for _ in range(200))
    assert called <= 15  # an exact one-sided 95 % test does not reject 5 % of 200


def test_identical_answers_are_rarely_called_different():
    rng = random.Random(11)
    called = 0
    for _ in range(200):
        clusters = {f"q{k}": f"t{k // 3}" for k in range(120)}
        chance = {f"t{k}": rng.uniform(0.2, 0.9) for k in range(40)}
        a, b = (scores([rng.random() < chance[clusters[f"q{k}"]] for k in range(120)]) for _ in range(2))
        called += quality_verdict(a, b, clusters=clusters).kind in {BETTER, WORSE}
    assert called <= 15


def test_twice_the_noise_floor_is_found():
    from llmopt.measure.stats.special import t_quantile

    rng = random.Random(12)
    pairs, spread = 4, 0.04 * math.sqrt(2)
    floor = t_quantile(0.975, pairs - 1) * spread / math.sqrt(pairs)
    found = sum(
        speed_verdict(*launches(rng, pairs, ratio=math.exp(2 * floor), drift=0.0)).kind is BETTER for _ in range(200)
    )
    assert found >= 160
