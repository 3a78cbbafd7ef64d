"""The greedy token-match rate between two configurations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.consistency import pieces, token_match
from llmopt.records import Sample


def sample(name, text, **rest):
    return Sample(item_id=name, planned_s=0, sent_s=0, ended_s=1, text=text, **rest)


@pytest.mark.parametrize(
    ("left", "right", "rate"),
    [
        ("가나다라", "가나다라", 1.0),
        ("가나다라", "가나마라", 0.5),
        ("가나", "가나다라", 0.5),
        ("가나다라", "나나다라", 0.0),
        ("", "", 1.0),
        ("", "가", 0.0),
    ],
)
def test_the_common_beginning_counts(left, right, rate):
    found = token_match([sample("a", left)], [sample("a", right)])
    assert found.rate.value == rate
    assert found.identical.value == float(left == right)


def test_only_items_answered_under_both_count():
    left = [sample("a", "같다"), sample("b", "다르다"), sample("c", "x", error="timed_out"), sample("d", "x")]
    right = [sample("a", "같다"), sample("b", "틀리다"), sample("c", "x")]
    found = token_match(left, right)
    assert found.identical.n == 2
    assert found.identical.value == 0.5
    assert token_match([], right) is None


def test_a_tokenizer_can_be_given():
    found = token_match([sample("a", "ab cd")], [sample("a", "ab ce")], tokenize=str.split)
    assert found.rate.value == 0.5


@given(st.text(max_size=60))
def test_pieces_lose_nothing(text):
    assert "".join(pieces(text)) == text


@given(st.text(max_size=30), st.text(max_size=30))
def test_the_rate_is_symmetric_and_a_share(one, two):
    there = token_match([sample("a", one)], [sample("a", two)]).rate.value
    back = token_match([sample("a", two)], [sample("a", one)]).rate.value
    assert 0 <= there == back <= 1
