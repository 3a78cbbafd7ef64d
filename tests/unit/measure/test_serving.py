import heapq
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.load import ClientHealth, LoadRun
from llmopt.measure.metrics import speed
from llmopt.measure.serving import full_until, places_seen, services
from llmopt.measure.slo import parse_slo
from llmopt.records import Load, Sample

CALM = ClientHealth(lag_p99_s=0.0, lag_max_s=0.0, cpu_share=0.1)
TOKENS = 8


def served_by(places, streams, times_s):
    """A closed loop on a server with so many places, and when each answer was truly worked on."""
    ready, free, samples, truth = [0.0] * streams, [0.0] * places, [], []
    for number, took_s in enumerate(times_s):
        sent_s = heapq.heappop(ready)
        start_s = max(sent_s, heapq.heappop(free))
        ended_s = start_s + took_s
        heapq.heappush(free, ended_s)
        heapq.heappush(ready, ended_s)
        tokens = tuple(start_s + took_s * (0.2 + 0.1 * (k + 1)) for k in range(TOKENS))
        samples.append(
            Sample(item_id=f"q{number}", planned_s=sent_s, sent_s=sent_s, ended_s=ended_s, token_s=tokens,
                   text="가" * TOKENS, prompt_tokens=9, completion_tokens=TOKENS)
        )  # fmt: skip
        truth.append(start_s)
    return samples, truth, min(ready)


def run_of(samples, streams, window_end_s, **more):
    end_s = max(sample.ended_s for sample in samples)
    return LoadRun(load=Load(streams=streams), samples=tuple(samples), started_s=0.0, ended_s=end_s,
                   window_start_s=0.0, window_end_s=window_end_s, health=CALM, **more)  # fmt: skip


@pytest.mark.parametrize("places", [1, 2, 4])
@pytest.mark.parametrize("count", [4, 6, 40])
def test_a_rate_is_that_of_the_server_however_many_requests_wait_for_it(places, count):
    """Four streams, half a second an answer: the first stream is out of work while others still wait for a place."""
    samples, _, first_idle_s = served_by(places, 4, [0.5] * count)
    found = speed(run_of(samples, 4, first_idle_s), parse_slo("e2e<60s"))
    assert places_seen(samples) == places
    assert found["answers_per_minute"].value == pytest.approx(60 * places / 0.5)
    assert found["requests_per_s"].value == pytest.approx(places / 0.5)
    assert found["goodput_per_s"].value == pytest.approx(places / 0.5)
    assert found["token_goodput_per_s"].value == pytest.approx(TOKENS * places / 0.5)
    assert found["output_tokens_per_s"].value == pytest.approx(TOKENS * places / 0.5)


def test_what_is_cut_off_ends_the_window_where_it_was_cut():
    samples, _, _ = served_by(1, 4, [0.5] * 4)
    cut = speed(run_of(samples[:2], 4, 1.0, cut=2))
    assert cut["answers_per_minute"].value == pytest.approx(120)


@given(
    places=st.integers(1, 6),
    streams=st.integers(1, 8),
    times_s=st.lists(st.floats(0.1, 10.0), min_size=1, max_size=60),
)
def test_services_are_when_the_server_was_at_work(places, streams, times_s):
    samples, truth, first_idle_s = served_by(places, streams, times_s)
    seen = places_seen(samples)
    found = services(samples, seen)
    assert 1 <= seen <= min(places, streams, len(times_s))
    assert all(s.sent_s <= one.start_s <= s.token_s[0] for s, one in zip(samples, found, strict=True))
    firsts = [sample.token_s[0] for sample in samples]
    if seen == min(places, streams) and firsts == sorted(firsts):  # else who had waited longer cannot be seen
        assert [one.start_s for one in found] == pytest.approx(truth, abs=0.051)
        if len(times_s) >= streams:
            assert full_until(found, seen) >= first_idle_s - 0.051


def test_what_was_sent_at_one_moment_is_served_in_any_order():
    samples, _, _ = served_by(1, 4, [0.5] * 4)
    swapped = [replace(sample, sent_s=0.001 * k) for k, sample in zip((0, 3, 1, 2), samples, strict=True)]
    assert [one.start_s for one in services(swapped, 1)] == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_what_failed_takes_no_place():
    samples, _, _ = served_by(1, 2, [0.5] * 2)
    refused = Sample(item_id="no", planned_s=0.1, sent_s=0.1, ended_s=9.0, error="http_503")
    assert [one.start_s for one in services([*samples, refused], 1)] == [0.0, 0.5, 0.1]
