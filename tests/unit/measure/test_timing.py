import pytest

from llmopt.measure import timing
from llmopt.records import Sample


def sample(**more):
    given = {"item_id": "a", "planned_s": 9.0, "sent_s": 10.0, "ended_s": 11.2, "token_s": (10.2, 10.5, 11.1), "completion_tokens": 7, "token_counts": (1, 3, 3)}  # fmt: skip
    return Sample(**{**given, **more})


def test_times_follow_their_formulas():
    one = sample(first_answer_s=10.5)
    assert timing.ttft_s(one) == pytest.approx(0.2)
    assert timing.ttft_s(one, planned=True) == pytest.approx(1.2)
    assert timing.ttfot_s(one) == pytest.approx(0.5)
    assert timing.e2e_s(one) == pytest.approx(1.1)
    assert timing.e2e_s(one, planned=True) == pytest.approx(2.1)
    assert timing.tpot_s(one) == pytest.approx(0.9 / 6)
    assert timing.chunk_gaps_s(one) == pytest.approx((0.3, 0.6))
    assert timing.token_gaps_s(one) == pytest.approx((0.1, 0.1, 0.1, 0.2, 0.2, 0.2))
    assert timing.lateness_s(one) == pytest.approx(1.0)


def test_gaps_are_per_event_where_counts_are_not_known():
    one = sample(token_counts=(), completion_tokens=None)
    assert timing.token_gaps_s(one) == timing.chunk_gaps_s(one)
    assert timing.tpot_s(one) == pytest.approx(0.9 / 2)


def test_what_does_not_exist_is_none_never_zero():
    assert timing.tpot_s(sample(token_s=(10.2,), token_counts=(), completion_tokens=1)) is None
    empty = sample(token_s=(), token_counts=(), completion_tokens=0)
    assert (timing.ttft_s(empty), timing.e2e_s(empty), timing.ttfot_s(empty)) == (None, None, None)
    assert timing.token_gaps_s(empty) == ()


def test_a_failed_request_has_no_times():
    failed = sample(error="timed_out")
    assert timing.ttft_s(failed) is timing.e2e_s(failed) is timing.tpot_s(failed) is None
    assert timing.chunk_gaps_s(failed) == ()
