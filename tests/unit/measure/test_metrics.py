import random

import pytest

from llmopt.errors import EngineError
from llmopt.measure.load import ClientHealth, LoadRun
from llmopt.measure.metrics import Window, provisional, speed
from llmopt.measure.slo import parse_slo
from llmopt.records import Load, Sample

CALM = ClientHealth(lag_p99_s=0.0, lag_max_s=0.0, cpu_share=0.1)


def answer(start, *, ttft=0.1, gap=0.02, tokens=11, number=0, **more):
    times = tuple(start + ttft + k * gap for k in range(tokens))
    given = {
        "item_id": f"q{number}", "planned_s": start, "sent_s": start, "ended_s": times[-1] if times else start + ttft,
        "token_s": times, "first_answer_s": times[0] if times else None, "text": "가" * 2 * tokens,
        "finish_reason": "stop", "prompt_tokens": 9, "completion_tokens": tokens,
    }  # fmt: skip
    return Sample(**{**given, **more})


def run_of(samples, load=None, *, start=0.0, end=None):
    end = max(sample.ended_s for sample in samples) if end is None else end
    return LoadRun(load=load or Load(streams=1), samples=tuple(samples), started_s=start, ended_s=end, window_start_s=start, window_end_s=end, health=CALM)  # fmt: skip


def closed(streams=4, each=50, took=0.3, **more):
    """A server that answers every request in exactly ``took`` seconds."""
    return [answer(took * k, number=k, **more) for k in range(each) for _ in range(streams)]


def test_figures_of_a_server_of_known_timing():
    found = speed(run_of(closed(), Load(streams=4)))
    assert found["ttft_p50_ms"].value == pytest.approx(100)
    assert found["itl_p50_ms"].value == pytest.approx(20)
    assert found["tpot_p50_ms"].value == pytest.approx(20)
    assert found["e2e_p50_ms"].value == pytest.approx(300)
    assert found["answers_per_minute"].value == pytest.approx(4 / 0.3 * 60)
    assert found["output_tokens_per_s"].value == pytest.approx(4 * 11 / 0.3)
    assert found["total_tokens_per_s"].value == pytest.approx(4 * 20 / 0.3)
    assert found["characters_per_s"].value == pytest.approx(4 * 22 / 0.3)
    assert found["requests_per_s"].value == pytest.approx(4 / 0.3)
    assert found["error_rate"].value == 0
    assert found["prompt_tokens_mean"].value == 9
    assert {found[name].unit for name in ("ttft_p50_ms", "e2e_p99_ms" if "e2e_p99_ms" in found else "e2e_p95_ms")} == {
        "ms"
    }


def test_percentiles_appear_only_where_the_sample_supports_them():
    for count, supported in ((5, "p50"), (40, "p90"), (80, "p95"), (400, "p99")):
        found = speed(run_of(closed(streams=1, each=count)))
        have = [name for name in ("p50", "p90", "p95", "p99") if f"ttft_{name}_ms" in found]
        assert have[-1] == supported
        assert "ttft_max_ms" in found
    few = speed(run_of(closed(streams=1, each=5)))["ttft_p50_ms"]
    assert (few.low, few.high) == (None, None)


def test_what_is_too_small_to_print_is_provisional_and_says_so():
    run = run_of(closed(streams=1, each=16))
    found = provisional(run)
    assert set(found) & set(speed(run)) <= {"ttft_p50_ms", "itl_p50_ms"}
    assert found["ttft_p95_ms"].value == pytest.approx(100)
    assert (found["ttft_p95_ms"].low, found["ttft_p95_ms"].method) == (None, "provisional, n < 72")


def test_pooled_gaps_count_by_requests_not_by_tokens():
    rng = random.Random(1)
    paces = [rng.uniform(0.01, 0.03) for _ in range(80)]
    samples = [answer(float(k), gap=pace, tokens=100, number=k) for k, pace in enumerate(paces)]
    pooled = speed(run_of(samples))["itl_p50_ms"]
    width = pooled.high - pooled.low
    assert pooled.n == 80 * 99
    assert width > 1  # 7,920 independent gaps would give 0.4; 80 requests with one pace each give about 4.5
    assert "itl_p99_ms" not in speed(run_of(samples))


def test_failures_count_as_misses_and_errors_but_never_as_latencies():
    samples = [answer(float(k), number=k, **({"error": "http_503"} if k % 4 == 0 else {})) for k in range(40)]
    found = speed(run_of(samples), parse_slo("ttft<500ms"))
    assert found["error_rate"].value == pytest.approx(0.25)
    assert found["attainment"].value == pytest.approx(0.75)
    assert found["goodput_per_s"].value == pytest.approx(found["requests_per_s"].value * 0.75)
    assert found["ttft_p50_ms"].n == 30


def test_token_goodput_counts_the_tokens_of_good_requests():
    samples = [answer(float(k), ttft=0.1 if k % 2 else 0.9, number=k) for k in range(40)]
    found = speed(run_of(samples, end=40.0), parse_slo("ttft<500ms"))
    assert found["token_goodput_per_s"].value == pytest.approx(20 * 11 / 40)


def test_planned_start_is_what_an_open_loop_is_judged_by():
    load = Load(streams=None, rate=10.0, arrival="constant")
    samples = [answer(k / 10 + 0.5, planned_s=k / 10, number=k) for k in range(100)]
    found = speed(run_of(samples, load, end=9.9), parse_slo("ttft<500ms"))
    assert found["ttft_p50_ms"].value == pytest.approx(100)
    assert found["ttft_plan_p50_ms"].value == pytest.approx(600)
    assert found["lateness_p50_ms"].value == pytest.approx(500)
    assert found["attainment"].value == 0


def test_a_request_counts_towards_a_rate_by_its_share_of_the_window():
    samples = [answer(0.0, ttft=0.0, gap=1.0, tokens=11), answer(5.0, ttft=0.0, gap=1.0, tokens=11)]
    found = speed(run_of(samples), window=Window(start_s=0.0, end_s=10.0))
    assert found["answers_per_minute"].value == pytest.approx((1 + 0.5) / 10 * 60)
    assert found["output_tokens_per_s"].value == pytest.approx((11 + 6) / 10)


def test_the_window_of_a_cut_start_leaves_out_what_was_planned_before():
    samples = [answer(float(k), ttft=0.9 if k < 10 else 0.1, number=k) for k in range(50)]
    cut = speed(run_of(samples), window=Window(start_s=10.0, end_s=50.0))
    assert cut["ttft_max_ms"].value == pytest.approx(100)
    assert cut["ttft_p50_ms"].n == 40


def test_tokens_counted_as_chunks_are_called_chunks():
    samples = [answer(float(k), number=k, tokens_counted_by="chunks") for k in range(10)]
    assert speed(run_of(samples))["output_tokens_per_s"].unit == "chunks/s"


def test_the_interval_of_a_closed_rate_covers_it():
    rng = random.Random(3)
    hits, rounds = 0, 200
    for _ in range(rounds):
        now, samples = 0.0, []
        for k in range(40):
            took = rng.expovariate(1.0) + 0.5
            samples.append(answer(now, ttft=took, tokens=1, number=k))
            now += took
        rate = speed(run_of(samples))["answers_per_minute"]
        hits += rate.low <= 60 / 1.5 <= rate.high
    assert hits / rounds > 0.90


def test_an_open_rate_has_an_interval_from_slices_of_its_window():
    load = Load(streams=None, rate=10.0, arrival="poisson")
    samples = [answer(k / 10, number=k) for k in range(200)]
    rate = speed(run_of(samples, load, end=19.9))["answers_per_minute"]
    assert rate.low <= 600 <= rate.high
    few = speed(run_of(samples[:10], load, end=0.9))["answers_per_minute"]
    assert few.low is None


@pytest.mark.parametrize("more", [{"error": "refused"}, {"token_s": (), "completion_tokens": 0}])
def test_no_valid_sample_is_one_clear_error(more):
    with pytest.raises(EngineError) as error:
        speed(run_of([answer(0.0, **more)]))
    assert error.value.key == "measure.no_valid_samples"
    assert str(error.value)


def test_an_empty_answer_is_no_error_but_has_no_first_token():
    samples = [*closed(streams=1, each=10), answer(3.0, tokens=0, token_s=(), number=99)]
    found = speed(run_of(samples))
    assert found["error_rate"].value == 0
    assert found["ttft_p50_ms"].n == 10


def test_cached_prompt_tokens_are_reported_as_a_share():
    samples = [answer(float(k), number=k, cached_tokens=3) for k in range(6)]
    assert speed(run_of(samples))["cached_prompt_share"].value == pytest.approx(1 / 3)


def stepping(rng, *, streams, count):
    """An engine that makes one token for each request at work in every step; a step takes longer with more of them."""
    now, asked, working, samples = 0.0, 0, [], []
    while len(samples) < count:
        while asked < count and len(working) < streams:
            working.append((now, asked, max(int(rng.lognormvariate(3, 0.5)), 2), []))
            asked += 1
        now += (0.02 + 0.005 * len(working)) * rng.lognormvariate(0, 0.1)
        for _, _, _, times in working:
            times.append(now)
        for start, number, tokens, times in [one for one in working if len(one[3]) == one[2]]:
            samples.append(answer(start, number=number, tokens=tokens, token_s=tuple(times), ended_s=now))
        working = [one for one in working if len(one[3]) < one[2]]
    started = [sample.planned_s for sample in samples]
    first_idle = min(sample.ended_s for sample in samples if sample.ended_s > max(started))
    return run_of(samples, Load(streams=streams), end=first_idle)


def test_gaps_are_those_of_the_load_and_not_of_its_running_down():
    """Eight streams, two requests each: half of the time fewer and fewer run, and each the faster for it."""
    runs = [stepping(random.Random(seed), streams=8, count=16) for seed in range(20)]
    found = [speed(run)["itl_mean_ms"].value for run in runs]
    assert sum(found) / len(found) == pytest.approx((0.02 + 0.005 * 8) * 1e3, rel=0.02)


def test_what_all_requests_share_is_in_the_interval_of_tokens_per_second():
    """Requests at work at once share their steps: as independent ones they knew the rate too well."""
    rates = [speed(stepping(random.Random(seed), streams=4, count=64))["output_tokens_per_s"] for seed in range(60)]
    truth = sum(rate.value for rate in rates) / len(rates)
    assert sum(rate.low <= truth <= rate.high for rate in rates) >= 54


def test_an_open_rate_counts_gaps_and_not_requests():
    samples = [answer(k / 10, number=k) for k in range(21)]
    found = speed(run_of(samples, Load(streams=None, rate=10.0, arrival="constant"), end=2.0), parse_slo("ttft<5s"))
    assert found["requests_per_s"].value == pytest.approx(10)
    assert found["goodput_per_s"].value == pytest.approx(10)
    assert found["token_goodput_per_s"].value == pytest.approx(110)


def test_goodput_in_a_closed_loop_varies_with_its_rate():
    """Where every request is good, what is left of its spread is that of the rate."""
    found = speed(stepping(random.Random(1), streams=4, count=64), parse_slo("e2e<60s"))
    answers, good = found["answers_per_minute"], found["goodput_per_s"]
    assert good.value == pytest.approx(answers.value / 60)
    assert (good.low, good.high) == pytest.approx((answers.low / 60, answers.high / 60))
