import os
import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.load import ClientHealth, LoadRun
from llmopt.measure.validity import CoLoad, CoLoadWatch, certify, drift, mser, steady_window
from llmopt.messages import t
from llmopt.records import Load, Sample

CALM = ClientHealth(lag_p99_s=0.001, lag_max_s=0.002, cpu_share=0.05)


def run_of(rate, *, seconds=100.0, each=20, health=CALM, **more):
    """A closed loop whose tokens come at ``rate(t)`` per second."""
    now, samples, number = 0.0, [], 0
    while now < seconds:
        times = []
        at = now
        for _ in range(each):
            at += 1 / rate(at)
            times.append(at)
        samples.append(Sample(item_id=f"q{number}", planned_s=now, sent_s=now, ended_s=at, token_s=tuple(times), completion_tokens=each))  # fmt: skip
        now, number = at, number + 1
    return LoadRun(load=Load(streams=1), samples=tuple(samples), started_s=0.0, ended_s=now, window_start_s=0.0, window_end_s=now, health=health, **more)  # fmt: skip


def test_a_steady_run_is_valid_and_nothing_is_said_against_it():
    found = certify(run_of(lambda _: 50.0))
    assert (found.valid, found.steady, found.warnings, found.drift) == (True, True, (), 0.0)
    assert found.window.start_s < 10


def test_a_slow_start_is_cut():
    run = run_of(lambda at: 5.0 if at < 20 else 50.0)
    window, steady = steady_window(run)
    assert steady
    assert 15 <= window.start_s <= 30


def test_a_run_that_never_settles_says_so():
    found = certify(run_of(lambda at: 10.0 if at < 80 else 100.0))
    assert found.steady is False
    assert "measure.warn_drift" in found.warnings
    late = certify(run_of(lambda at: 10.0 if at < 60 else 100.0))
    assert late.steady is False
    assert late.window.start_s == 0.0


def test_drift_is_seen_and_noise_is_not():
    rng = random.Random(1)
    assert drift([100 + rng.gauss(0, 10) for _ in range(100)]) == 0.0
    assert drift([100 - k / 4 + rng.gauss(0, 2) for k in range(100)]) == pytest.approx(-0.25, rel=0.3)
    found = certify(run_of(lambda at: 50.0 - at / 10))
    assert "measure.warn_drift" in found.warnings


def test_a_steady_run_loses_nothing_to_the_cut_and_is_not_called_restless():
    """The rule finds a best cut in any series: of a steady one it used to cut three of four, and call one in ten restless."""
    cut = restless = 0
    for seed in range(60):
        rng = random.Random(seed)
        window, steady = steady_window(run_of(lambda _, rng=rng: 50 * rng.lognormvariate(0, 0.5), seconds=20.0))
        cut += window.start_s > 0
        restless += steady is False
    assert cut <= 6
    assert restless <= 3


def test_a_short_run_is_neither_steady_nor_not():
    found = certify(run_of(lambda _: 10.0, seconds=5.0))
    assert (found.steady, found.drift) == (None, None)


@given(st.lists(st.floats(0, 1000), min_size=0, max_size=200))
def test_mser_cuts_at_most_half(series):
    cut = mser(series)
    assert cut is None or 0 <= cut <= len(series) // 2 + 5


def test_mser_finds_the_end_of_a_transient():
    rng = random.Random(2)
    series = [rng.gauss(20, 3) for _ in range(30)] + [rng.gauss(100, 3) for _ in range(170)]
    assert 30 <= mser(series) <= 95
    assert mser([rng.gauss(100, 3) for _ in range(200)]) <= 60


@pytest.mark.parametrize(
    "health",
    [replace(CALM, cpu_share=0.95), replace(CALM, lag_p99_s=0.5)],
)
def test_a_client_at_its_limit_makes_the_result_invalid(health):
    found = certify(run_of(lambda _: 50.0, health=health))
    assert (found.valid, found.client_limited) == (False, True)
    assert "measure.warn_client_limited" in found.warnings


def test_lag_counts_in_proportion_to_what_is_measured():
    """Ten milliseconds matter where the first token takes 20, not where it takes a second."""
    health = replace(CALM, lag_p99_s=0.010)
    assert certify(run_of(lambda _: 1.0, health=health)).valid
    assert not certify(run_of(lambda _: 50.0, health=health)).valid


def test_an_error_known_from_calibration_counts_like_lag():
    run = run_of(lambda _: 50.0)
    assert certify(run, client_error_ms=2.0).valid
    assert not certify(run, client_error_ms=20.0).valid
    assert certify(run_of(lambda _: 1.0), client_error_ms=20.0).valid


def test_late_starts_are_the_clients_fault():
    run = run_of(lambda _: 50.0)
    late = tuple(replace(s, planned_s=s.sent_s - 0.1) if k % 10 == 0 else s for k, s in enumerate(run.samples))
    found = certify(replace(run, samples=late))
    assert found.late_share == pytest.approx(0.1, abs=0.02)
    assert not found.valid


def test_other_warnings():
    run = run_of(lambda _: 50.0)
    failed = tuple(replace(s, error="http_500") if k % 5 == 0 else s for k, s in enumerate(run.samples))
    assert "measure.warn_errors" in certify(replace(run, samples=failed)).warnings
    assert "measure.warn_endpoint_gone" in certify(replace(run, gave_up="refused")).warnings
    assert "measure.warn_co_load" in certify(run, co_load=CoLoad(cores=1.0, share=0.5)).warnings
    assert "measure.warn_few_samples" in certify(run_of(lambda _: 50.0, seconds=1.0)).warnings


def test_every_warning_is_a_sentence_in_both_languages():
    run = run_of(lambda _: 50.0, seconds=1.0, health=replace(CALM, cpu_share=1.0), gave_up="refused")
    for key in certify(run, co_load=CoLoad(cores=1.0, share=0.5)).warnings:
        assert t(key, lang="ko") != t(key, lang="en")


def test_a_certificate_is_plain_data():
    import json

    found = certify(run_of(lambda _: 50.0), co_load=CoLoad(cores=0.1, share=0.05), noise_floor=0.03)
    assert json.loads(json.dumps(found.to_json()))["noise_floor"] == 0.03


def spin(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_our_own_work_is_not_co_load():
    watch = CoLoadWatch(lambda: ())
    spin(0.5)
    mine = watch.stop()
    watch = CoLoadWatch(lambda: [os.getpid()])  # naming ourselves changes nothing
    spin(0.5)
    named = watch.stop()
    for found in (mine, named):
        assert found is not None
        assert 0 <= found.share <= 1
        assert found.cores <= (os.cpu_count() or 1)


def test_another_process_is_co_load_unless_it_is_the_engine():
    import subprocess
    import sys

    code = "import sys, time\nprint('up', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as busy:
        try:
            busy.stdout.readline()
            watches = CoLoadWatch(lambda: ()), CoLoadWatch(lambda: [busy.pid])
            spin(1.0)
            as_other, as_engine = (watch.stop() for watch in watches)
        finally:
            busy.kill()
    assert as_other.cores > as_engine.cores  # however little of a busy machine it was given
