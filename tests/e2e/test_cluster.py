"""A study on a Ray cluster from outside: nodes simulated on this machine, the scripted engine on each of them."""

from __future__ import annotations

import gc
import json
import os
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


def test_an_address_that_does_not_answer_is_one_sentence(cli):
    refused = cli.run(*DRY, "--name", "gpu", "--trials", "4", "--cluster", "127.0.0.1:1", env=FAST)
    assert refused.code == 2
    assert "127.0.0.1:1" in refused.err
    assert "Traceback" not in refused.err
