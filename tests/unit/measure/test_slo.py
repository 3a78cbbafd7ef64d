import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import UsageError
from llmopt.measure.slo import MEASURES, UNITS_S, parse_slo
from llmopt.records import Sample


def sample(ttft=0.2, gap=0.03, tokens=10, **more):
    times = tuple(ttft + k * gap for k in range(tokens))
    given = {"item_id": "a", "planned_s": 0.0, "sent_s": 0.0, "ended_s": times[-1], "token_s": times, "first_answer_s": ttft, "completion_tokens": tokens}  # fmt: skip
    return Sample(**{**given, **more})


def test_limits_are_read_with_their_units():
    slo = parse_slo("ttft<500ms, itl<=50ms,e2e < 1.5s, complete")
    assert [(limit.name, limit.seconds) for limit in slo.limits] == [("ttft", 0.5), ("itl", 0.05), ("e2e", 1.5)]
    assert slo.complete


def test_a_request_is_good_only_where_every_limit_holds():
    slo = parse_slo("ttft<500ms,itl<50ms,e2e<10s")
    assert slo.met(sample())
    assert not slo.met(sample(ttft=0.6))
    assert not slo.met(sample(gap=0.06))
    assert not slo.met(sample(tokens=400))
    assert not slo.met(sample(error="http_503"))
    assert not slo.met(sample(token_s=()))


def test_limits_count_from_the_planned_start():
    assert not parse_slo("ttft<500ms").met(sample(planned_s=-1.0))


def test_one_token_breaks_no_gap_limit_and_a_cut_answer_breaks_complete():
    assert parse_slo("tpot<1ms,stall<1ms").met(sample(tokens=1))
    assert not parse_slo("complete").met(sample(finish_reason="length"))
    assert parse_slo("complete").met(sample(finish_reason="stop"))


def test_a_stall_is_the_longest_gap():
    one = sample()
    late = tuple(at + (0.3 if k > 4 else 0) for k, at in enumerate(one.token_s))
    assert parse_slo("stall<100ms").met(one)
    assert not parse_slo("stall<100ms").met(sample(token_s=late))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tfft<500ms", "slo_name"), ("ttft<500", "slo_unit"), ("ttft<5parsec", "slo_unit"), ("ttft>500ms", "slo_part"),
        ("", "slo_part"), ("ttft<500ms,", "slo_part"), ("ttft<0ms", "slo_part"), ("ttft", "slo_part"), ("<5ms", "slo_part"),
    ],
)  # fmt: skip
def test_a_slip_is_one_clear_sentence(text, key):
    with pytest.raises(UsageError) as error:
        parse_slo(text)
    assert error.value.key == f"measure.{key}"
    assert str(error.value)


def test_a_misspelt_name_is_answered_with_the_near_one():
    with pytest.raises(UsageError, match="ttft"):
        parse_slo("tftt<5ms")


@given(st.lists(st.tuples(st.sampled_from(sorted(MEASURES)), st.integers(1, 10_000), st.sampled_from(sorted(UNITS_S))), min_size=1))  # fmt: skip
def test_whatever_is_written_properly_is_read_back(parts):
    slo = parse_slo(",".join(f"{name}<{number}{unit}" for name, number, unit in parts))
    assert [(limit.name, limit.seconds) for limit in slo.limits] == [
        (name, pytest.approx(number * UNITS_S[unit])) for name, number, unit in parts
    ]


@given(st.text(max_size=30))
def test_any_other_text_is_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert parse_slo(text).limits or parse_slo(text).complete
