"""A long record: listing, resuming and reading it in short form stay quick and small beside 100,000 trials."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from llmopt.records import Configuration, Estimate, InferenceParams, Measurement
from llmopt.store import Store
from llmopt.store.encoding import configuration_to_json, measurement_to_json


def fill(path, trials: int) -> None:
    names = [
        "accuracy",
        "answers_per_minute",
        "ttft_p50_ms",
        "ttft_p95_ms",
        "itl_p50_ms",
        "tpot_p50_ms",
        "memory_bytes",
    ]
    estimates = {name: Estimate(value=0.5, unit="", n=16, low=0.1, high=0.9, method="wilson") for name in names}
    measurement = measurement_to_json(Measurement(estimates=estimates, certificate={"streams": 4, "co_load": 0.1}))
    with Store.open(path) as store:
        study = store.create_study("long", {"trials": trials}, fingerprint="f")
        store.create_study("short", {"trials": 1}, fingerprint="g")
        with store.connection.writing() as db:
            for n in range(trials):
                c = Configuration(
                    engine="fake",
                    launch={"threads": n % 64, "slots": n // 64},
                    request=InferenceParams(temperature=0.5),
                )
                db.execute(
                    """INSERT INTO trials (study_id, number, key, launch_key, configuration, origin, phase, position,
                       fidelity, outcome, objectives, violations, score, measurement, hardware, started_s, ended_s)
                       VALUES (?, ?, ?, ?, ?, 'tpe', 'search', ?, 1.0, 'done', '[0.5]', '[-1.0]', ?, ?, '', 0, 1)""",
                    (study, n, c.key, c.launch_key, configuration_to_json(c), n, n % 977, measurement),
                )


READER = """
import sys, time
from pathlib import Path
from llmopt.store import Store
def timed(what):
    began = time.perf_counter(); what(); return time.perf_counter() - began
with Store.open(Path(sys.argv[1])) as store:
    listing = timed(store.studies)
    study = store.find_study("long").id
    resume = timed(lambda: (store.best_and_newest(study), {p.key for p in store.points(study)}))
    report = timed(lambda: sum(p.objectives[0] for p in store.points(study)))
# the peak since this program began; ru_maxrss would still show that of the test run which started it
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(listing, resume, report, int(peak) / 1024)
"""


def read(path) -> tuple[float, ...]:
    done = subprocess.run([sys.executable, "-c", READER, str(path)], capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))


def busy_loop_s() -> float:
    began = time.perf_counter()
    sum(i * i for i in range(1_000_000))
    return time.perf_counter() - began


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_long_study_is_listed_without_reading_it(tmp_path):
    fill(tmp_path / "llmopt.db", 10_000)
    unit = busy_loop_s()
    listing, resume, _, megabytes = read(tmp_path / "llmopt.db")
    # as multiples of a loop of this machine at this moment, so that a busy one does not fail us
    assert listing < 2 * unit
    assert resume < 20 * unit
    assert megabytes < 150


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_hundred_thousand_trials_meet_the_figures(tmp_path):
    fill(tmp_path / "llmopt.db", 100_000)
    listing, resume, report, megabytes = read(tmp_path / "llmopt.db")
    assert listing < 1
    assert resume < 3
    assert report < 5
    assert megabytes < 400
