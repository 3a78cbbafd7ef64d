"""Racing: order and rungs, rules for one and several objectives, and the figures of the simulation."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.messages import t
from llmopt.records import Item
from llmopt.search.racing import Answers, Race, SlowLimit, block_order, rungs


def test_rungs_double_up_to_everything():
    assert rungs(100, first=16, factor=2) == (16, 32, 64, 100)
    assert rungs(10, first=16) == (10,)
    assert rungs(64, first=16, factor=2) == (16, 32, 64)
    assert rungs(16) == (8, 9, 10, 11, 12, 13, 14, 16)
    assert rungs(0) == ()


@given(st.integers(1, 5000), st.integers(1, 50), st.floats(1.2, 4))
def test_rungs_grow_and_end_with_everything(total, first, factor):
    sizes = rungs(total, first=first, factor=factor)
    assert sizes[-1] == total
    assert list(sizes) == sorted(set(sizes))


def items(n: int, clusters: int = 10) -> list[Item]:
    return [Item(id=f"i{k}", question="", cluster=f"c{k % clusters}", level=1 + k % 3) for k in range(n)]


def test_every_beginning_of_the_order_is_in_proportion():
    order = block_order(items(300), seed=1)
    assert sorted(item.id for item in order) == sorted(item.id for item in items(300))
    levels = Counter(item.level for item in order[:30])
    clusters = Counter(item.cluster for item in order[:60])
    assert all(8 <= levels[level] <= 12 for level in (1, 2, 3))
    assert all(3 <= count <= 9 for count in clusters.values())
    assert len(clusters) == 10


def test_the_order_follows_from_the_seed():
    assert block_order(items(60), seed=1) == block_order(items(60), seed=1)
    assert block_order(items(60), seed=1) != block_order(items(60), seed=2)


def quality(scores) -> Answers:
    return Answers(quality={f"i{k}": float(score) for k, score in enumerate(scores)})


def test_a_clear_loser_is_dropped_with_a_reason_and_a_winner_never():
    good, bad = quality([1] * 30), quality([0] * 30)
    decision = Race().judge(bad, [good])
    assert decision.drop
    assert decision.items == 30
    assert decision.e_value > 10
    assert t(decision.reason)
    assert not Race().judge(good, [bad]).drop


def test_graded_scores_are_raced_too():
    good = quality([0.8 + 0.1 * (k % 3) for k in range(60)])
    bad = quality([0.4 + 0.1 * (k % 4) for k in range(60)])
    assert Race().judge(bad, [good]).drop
    assert not Race().judge(good, [bad]).drop


def test_only_items_both_answered_are_compared():
    incumbent = Answers(quality={f"x{k}": 1.0 for k in range(50)})
    assert not Race().judge(quality([0] * 50), [incumbent]).drop


def both(scores, seconds) -> Answers:
    return Answers(quality=quality(scores).quality, seconds={f"i{k}": s for k, s in enumerate(seconds)})


def test_with_several_objectives_only_a_loser_in_all_of_them_is_dropped():
    race = Race(objectives=("quality", "speed"))
    front = [both([1] * 40, [2.0] * 40)]
    assert not race.judge(both([0] * 40, [1.0] * 40), front).drop
    assert not race.judge(both([1] * 40, [4.0] * 40), front).drop
    assert race.judge(both([0] * 40, [4.0] * 40), front).drop


def test_losing_to_one_of_the_front_is_enough():
    race = Race(objectives=("quality", "speed"))
    front = [both([0] * 60, [1.0] * 60), both([1] * 60, [2.0] * 60)]
    assert race.judge(both([0] * 60, [4.0] * 60), front).drop


def test_a_hopeless_floor_or_ceiling_ends_a_candidate_without_any_incumbent():
    floor = Race(quality_floor=0.6).judge(quality([0, 0, 0, 1] * 15), [])
    assert (floor.drop, floor.reason) == (True, "search.below_floor")
    assert not Race(quality_floor=0.6).judge(quality([1, 0, 1, 1] * 15), []).drop
    limit = SlowLimit(of="first_token_s", share=0.95, limit_s=0.8)
    slow = Answers(first_token_s={f"i{k}": 0.7 + 0.2 * (k % 2) for k in range(30)})
    fast = Answers(first_token_s={f"i{k}": 0.3 for k in range(30)})
    assert Race(slow_limits=(limit,)).judge(slow, []).reason == "search.too_slow"
    assert not Race(slow_limits=(limit,)).judge(fast, []).drop
    for key in ("search.below_floor", "search.too_slow", "search.raced_out"):
        assert t(key, lang="ko") != t(key, lang="en")


def test_the_possible_quality_shrinks_with_the_answers():
    few, many = quality([0, 1] * 10), quality([0, 1] * 100)
    assert 0.5 < Race().quality_ceiling(many) < Race().quality_ceiling(few) <= 1.0


def _answers(source, difficulty, gap):
    return [float(source.random() < max(min(d - gap, 1.0), 0.0)) for d in difficulty]


def simulate(seeds: int, candidates: int = 12) -> tuple[float, float]:
    """Answers used as a share of all, and how often an equal candidate was dropped: 400 items in 40 clusters."""
    used = full = equal = dropped = 0
    for seed in range(seeds):
        source = random.Random(seed)
        levels = [source.betavariate(3, 2) for _ in range(40)]
        difficulty = [min(max(source.gauss(levels[k % 40], 0.2), 0.02), 0.98) for k in range(400)]
        incumbent = _answers(source, difficulty, 0.0)
        gaps = [0.20] * (candidates // 2) + [0.10] * (candidates // 3)
        gaps += [source.uniform(0, 0.05) for _ in range(candidates - len(gaps))]
        for gap in [*gaps, 0.0, 0.0]:
            answers, race = _answers(source, difficulty, gap), Race()
            stop = 400
            for n in range(12, 401, 4):
                if race.judge(quality(answers[:n]), [quality(incumbent[:n])]).drop:
                    stop = n
                    break
            if gap:
                used, full = used + stop, full + 400
            else:
                equal, dropped = equal + 1, dropped + (stop < 400)
    return used / full, dropped / equal


def test_racing_saves_most_answers():
    used, _ = simulate(6)
    assert used <= 0.45


@pytest.mark.long
def test_racing_reaches_the_figures():
    used, dropped = simulate(100)
    assert used <= 0.40
    assert dropped <= 0.06
