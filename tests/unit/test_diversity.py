"""Diversity: 0 for the same answer again, more the less answers share, never beyond 1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.diversity import diversity, diversity_by_item
from llmopt.records import Item, Sample

ITEMS = [Item(id="a", question="?"), Item(id="b", question="?")]


def said(name, *texts, **rest):
    return [Sample(item_id=name, planned_s=0.0, sent_s=0.0, ended_s=1.0, text=text, **rest) for text in texts]


def test_the_same_answer_again_is_no_diversity_and_others_are():
    same = said("a", "가을 하늘이 높다.", "가을 하늘이 높다.", "가을 하늘이 높다.")
    near = said("b", "가을 하늘이 높다.", "가을 하늘이 푸르다.", "가을 들판이 넓다.")
    found = diversity_by_item([*same, *near])
    assert found["a"] == 0.0
    assert 0.2 < found["b"] < 0.9
    far = diversity_by_item(said("b", "봄비가 온다", "멀리 기차 소리", "커피 한 잔"))["b"]
    assert far > found["b"]


def test_one_answer_shows_none_and_failed_ones_do_not_count():
    assert diversity_by_item(said("a", "하나")) == {}
    assert diversity(ITEMS, [*said("a", "하나"), *said("a", "둘", error="timed_out")]) == {}


def test_greedy_answers_would_come_again():
    found = diversity(ITEMS, [*said("a", "하나"), *said("b", "둘")], greedy=True)["diversity"]
    assert (found.value, found.n) == (0.0, 2)


def test_the_interval_is_over_items():
    samples = [s for n, item in enumerate(ITEMS) for s in said(item.id, "가나다라", "가나다라" if n else "마바사아")]
    found = diversity(ITEMS, samples)["diversity"]
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high, found.n) == (0.0, 1.0, 2)


@given(st.lists(st.text(max_size=30), min_size=2, max_size=5))
def test_it_is_a_share_whatever_is_said(texts):
    value = diversity_by_item(said("a", *texts))["a"]
    assert 0.0 <= value <= 1.0
    assert diversity_by_item(said("a", *reversed(texts)))["a"] == pytest.approx(value)
