"""A study on a Ray cluster from outside: nodes simulated on this machine, the scripted engine on each of them."""

from __future__ import annotations

import gc
import json
import os
import signal
import sqlite3
import warnings
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="the optional extra llmopt[ray]")

DRY = ("optimize", "--dry-run", "--dataset", "korean_math_easy", "--samples", "4", "--json")
FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.02"}


@pytest.fixture
def cluster(cli):
    from ray.cluster_utils import Cluster

    kept = dict(os.environ)
    os.environ.update(cli.environment({**FAST, "PYTHONPATH": str(Path.cwd())}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            made.add_node(num_cpus=2)
        try:
            yield made
        finally:
            made.shutdown()
            del made
            gc.collect()  # Ray leaves processes it started to the collector, which warns
            os.environ.clear()
            os.environ.update(kept)


def test_a_study_runs_on_a_cluster_and_ends_with_a_verdict(cli, cluster):
    ran = cli.run(*DRY, "--name", "far", "--trials", "8", "--cluster", cluster.address, env=FAST)
    assert ran.code == 0, ran.err
    events = [json.loads(line) for line in ran.out.splitlines()]
    notes = {event["key"]: event["values"] for event in events if event["event"] == "note"}
    assert notes["study.cluster"]["machines"] == 2
    result = events[-1]["result"]
    trials = [trial for trial in result["trials"] if trial["phase"] != "confirm"]
    done = [trial for trial in trials if trial["outcome"] in {"done", "raced_out"}]
    assert len(done) == 8, trials
    assert len({trial["configuration"]["key"] for trial in done}) == 8
    assert result["verdict"]["interval"] or result["verdict"]["sentence"] == "study.verdict_baseline_best"


def finished(cli):
    """(number, key, measurement) of every trial of the search that ended with a measurement."""
    path = cli.folder / "optimization_results" / "llmopt.db"
    if not path.exists():
        return []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = db.execute("SELECT number, key, measurement, outcome, phase FROM trials ORDER BY number").fetchall()
    except sqlite3.OperationalError:
        return []  # its tables are being made at this moment
    finally:
        db.close()
    return [row[:3] for row in rows if row[3] in {"done", "raced_out"} and row[4] == "search"]


def test_a_coordinator_that_is_killed_loses_nothing_and_its_continuation_repeats_nothing(cli, cluster, wait_for):
    slower = {"LLMOPT_FAKE_TIME_SCALE": "0.05"}
    process = cli.start(*DRY, "--name", "killed", "--trials", "12", "--cluster", cluster.address, env=slower)
    wait_for(lambda: len(finished(cli)) >= 3)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    before = finished(cli)
    ran = cli.run("optimize", "--resume", "killed", "--json", env=slower)
    assert ran.code == 0, ran.err
    after = finished(cli)
    assert after[: len(before)] == before
    assert len(after) == len({key for _, key, _ in after}) == 11  # and the baseline
    assert [json.loads(line) for line in ran.out.splitlines()][-1]["result"]["study"] == "killed"


@pytest.mark.parametrize(("language", "words"), [("en", "No Ray cluster answers"), ("ko", "연결할 수 없습니다")])
def test_an_address_that_does_not_answer_is_one_sentence(cli, language, words):
    env = {**FAST, "LLMOPT_LANG": language}
    refused = cli.run(*DRY, "--name", "gpu", "--trials", "4", "--cluster", "127.0.0.1:1", env=env)
    assert refused.code == 2
    assert "127.0.0.1:1" in refused.err
    assert words in refused.err
    assert "Traceback" not in refused.err
