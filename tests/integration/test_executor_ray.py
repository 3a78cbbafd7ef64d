"""Groups on a real Ray cluster of simulated nodes: results, refusals, a node that dies in mid-run.

Needs the extra ``ray``: ``python -m pytest -m heavy tests/integration/test_executor_ray.py``.
"""

from __future__ import annotations

import gc
import os
import time
import warnings
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

from llmopt.errors import UsageError  # noqa: E402
from llmopt.objective import parse_objectives  # noqa: E402
from llmopt.records import Outcome, Parameter  # noqa: E402
from llmopt.search.conduct import conduct  # noqa: E402
from llmopt.search.coordinator import Coordinator  # noqa: E402
from llmopt.search.executor import Group, Resources  # noqa: E402
from llmopt.search.executor_ray import RayExecutor  # noqa: E402
from llmopt.search.proposer import Result  # noqa: E402
from llmopt.search.space import Space  # noqa: E402

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(280), pytest.mark.filterwarnings("ignore")]

WORKER = """
import os, time
class Worker:
    hardware = "simulated"
    def __init__(self, spec):
        self.spec = spec
        if spec.get("broken"):
            raise RuntimeError("no such engine")
    def run(self, trial):
        time.sleep(self.spec.get("seconds", 0.0))
        if self.spec.get("raises"):
            raise ValueError("it died")
        path = self.spec.get("log")
        if path:
            with open(path, "a") as log:
                log.write(f"{trial['launch']} {trial['request']}\\n")
        return {"speed": float(trial["launch"]["threads"]), "pid": os.getpid()}
    def close(self):
        pass
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("modules")
    (folder / "llmopt_ray_worker.py").write_text(WORKER)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), str(Path.cwd()), before]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        made.add_node(num_cpus=2)
        ray.init(address=made.address, namespace="llmopt", log_to_driver=False, logging_level="error")
        yield made
        ray.shutdown()
        made.shutdown()
        del made
        gc.collect()  # Ray leaves processes it started to the collector, which warns
    os.environ["PYTHONPATH"] = before


def group(spec, trials=3, **options) -> Group:
    return Group(
        id=f"g{time.monotonic_ns()}", work="llmopt_ray_worker:Worker", spec=spec,
        trials={f"k{n}": {"launch": {"threads": n}, "request": {}} for n in range(trials)}, **options,
    )  # fmt: skip


def drain(executor, timeout_s=90):
    found, deadline = [], time.monotonic() + timeout_s
    while not any(report.kind != "result" for report in found):
        assert time.monotonic() < deadline, found
        found += executor.reports(1.0)
    return found


def test_a_group_runs_on_one_actor_in_order(cluster, wait_for):
    executor = RayExecutor(placement_s=60)
    wait_for(lambda: executor.capacity() == 2)  # Ray tells of freed places a moment later
    executor.start(group({}))
    found = drain(executor)
    assert [(r.kind, r.key) for r in found] == [("result", "k0"), ("result", "k1"), ("result", "k2"), ("ended", "")]
    assert len({r.value["pid"] for r in found[:3]}) == 1
    assert found[0].value["pid"] != os.getpid()
    assert {r.hardware for r in found} == {"simulated"}
    executor.close()


def test_a_seat_stays_for_the_next_group_of_its_size_and_makes_room_for_another(cluster, wait_for):
    executor = RayExecutor(placement_s=60)
    wait_for(lambda: executor.capacity() == 2)  # Ray tells late what an earlier test gave back
    executor.warm_up(Resources(), work="llmopt_ray_worker:Worker")
    wait_for(lambda: executor.capacity() == 2)  # and what it has just given
    seen = []
    for _ in range(3):
        executor.start(group({}, trials=1))
        (result, ended) = drain(executor)
        assert ended.kind == "ended"
        seen.append(result.value["pid"])
    assert len(set(seen)) == 2  # the two that were started before
    executor.start(group({}, trials=1, resources=Resources(cpus=2)))
    assert [report.kind for report in drain(executor)] == ["result", "ended"]
    executor.close()


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_group_that_waits_is_given_the_place_of_one_that_ends(cluster, wait_for, cpus):
    executor = RayExecutor(placement_s=60)
    wait_for(lambda: executor.capacity() == 2)
    for _ in range(2):
        executor.start(group({"seconds": 0.5}, trials=1))
    seen = [executor.reports(30.0)]  # both places are taken before the third asks for one
    executor.start(group({}, trials=1, resources=Resources(cpus=cpus)))
    deadline = time.monotonic() + 50  # less than a place is waited for
    while sum(report.kind != "result" for found in seen for report in found) < 3:
        assert time.monotonic() < deadline, seen
        seen.append(executor.reports(1.0))
    assert sorted(report.kind for found in seen for report in found) == ["ended"] * 3 + ["result"] * 3
    executor.close()


def test_a_seat_whose_worker_raised_is_not_used_again(cluster):
    executor = RayExecutor(slots=1, placement_s=60)
    executor.start(group({"raises": True}))
    assert [report.kind for report in drain(executor)] == ["failed"]
    executor.start(group({}, trials=1))
    assert [report.kind for report in drain(executor)] == ["result", "ended"]
    executor.close()


@pytest.mark.parametrize(("spec", "why"), [({"broken": True}, "no such engine"), ({"raises": True}, "it died")])
def test_a_worker_that_raises_has_failed_and_no_machine_is_blamed(cluster, spec, why):
    executor = RayExecutor(placement_s=60)
    executor.start(group(spec))
    (report,) = drain(executor)
    assert report.kind == "failed"
    assert why in report.why
    executor.close()


def test_what_no_node_can_hold_is_refused_in_time(cluster):
    executor = RayExecutor(placement_s=2)
    executor.start(group({}, resources=Resources(gpus=4, cpus=1)))
    (report,) = drain(executor)
    assert report.kind == "refused"
    assert "4 GPU" in report.why
    executor.close()


def test_an_address_that_is_silent_is_one_usage_error(cluster, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UsageError) as caught:
        RayExecutor("127.0.0.1:1")
    assert caught.value.key == "search.ray_unreachable"
    assert "127.0.0.1:1" in caught.value.what


def test_a_machine_of_other_hardware_is_passed_over_by_name(cluster, wait_for):
    executor = RayExecutor(placement_s=60, hardware="another")
    executor.start(group({}))
    (report,) = drain(executor)
    assert report.kind == "unsuitable"
    assert "simulated, not another" in report.why
    wait_for(lambda: executor.capacity() == 1)  # its place stays taken
    executor.close()


class Ledger:
    def __init__(self):
        self.trials, self.state = [], {}

    def started(self, proposal):
        self.trials.append(proposal.configuration)
        self.state[len(self.trials) - 1] = "running"
        return len(self.trials) - 1

    def finished(self, number, value, *, hardware):
        assert self.state[number] == "running"
        self.state[number] = "done"
        return Result(outcome=Outcome.DONE, objectives=(value["speed"],))

    def failed(self, number, why, *, hardware):
        self.state[number] = f"failed: {why}"
        return Result(outcome=Outcome.FAILED)

    def abandoned(self, number, why):
        self.state[number] = "abandoned"


def test_a_node_that_dies_in_mid_run_loses_no_finished_trial_and_runs_none_twice(cluster, tmp_path):
    space = Space(
        [
            Parameter(name="threads", level="launch", values=tuple(range(1, 9)), ordinal=True),
            Parameter(name="top_k", level="request", values=(1, 2, 3), ordinal=True),
        ],
        engine="fake",
    )
    coordinator = Coordinator(space, parse_objectives("answers_per_minute"), method="grid")
    ledger, executor = Ledger(), RayExecutor(slots=4, placement_s=60)
    doomed = cluster.add_node(num_cpus=2)
    state = {"killed": False}

    def may_start() -> bool:
        # once trials are under way on both nodes, one of them goes away
        if not state["killed"] and list(ledger.state.values()).count("done") >= 4:
            state["killed"] = True
            cluster.remove_node(doomed, allow_graceful=False)
        return True

    log = tmp_path / "log"
    done = conduct(
        coordinator, executor, ledger, study="s", work="llmopt_ray_worker:Worker", trials=24, per_group=3,
        spec=lambda c: {"seconds": 1.0, "log": str(log), "threads": c.launch["threads"]}, may_start=may_start,
    )  # fmt: skip
    executor.close()
    assert state["killed"]
    finished = [ledger.trials[n].key for n, s in ledger.state.items() if s == "done"]
    assert done.finished == len(finished) == len(set(finished)) == 24, ledger.state
    assert done.lost_groups >= 1
    abandoned = [ledger.trials[n].key for n, s in ledger.state.items() if s == "abandoned"]
    assert abandoned
    assert set(abandoned) <= set(finished)
