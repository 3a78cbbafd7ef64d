"""How well a study scales over a Ray cluster: simulated nodes, scripted trials, a node lost, the coordinator killed.

    pip install 'llmopt[ray]' && python benchmarks/ray_scaling.py [--nodes 4] [--slots 2] [--trials 64] [--seconds 2]

Every trial takes ``--seconds`` and each launch half of that, as a scripted engine would; nothing is computed, so that
many slots fit a small machine. Speed is that of the search, after the baseline that every study measures alone (the
slots' processes start meanwhile), compared with the same trials on one slot. A second run loses a node in the
middle; a third is killed with the coordinator's process and continued from its database.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from llmopt.errors import StorageError
from llmopt.objective import parse_objectives
from llmopt.records import Outcome, Parameter
from llmopt.search.conduct import conduct
from llmopt.search.coordinator import Coordinator
from llmopt.search.executor import Group, Resources
from llmopt.search.executor_ray import RayExecutor
from llmopt.search.proposer import PastTrial, Result
from llmopt.search.space import Space
from llmopt.store import Store

GOAL = parse_objectives("answers_per_minute")
WORK = "ray_scaling:Scripted"


class Scripted:
    """A launch and trials that only take their time."""

    hardware = "simulated"

    def __init__(self, spec) -> None:
        self.seconds = spec["seconds"]
        time.sleep(self.seconds / 2)

    def run(self, trial):
        time.sleep(self.seconds)
        return {"speed": float(trial["launch"]["threads"])}

    def close(self) -> None: ...


def space() -> Space:
    return Space(
        [
            Parameter(name="threads", level="launch", values=tuple(range(1, 65)), ordinal=True),
            Parameter(name="top_k", level="request", values=(1, 2, 3, 4), ordinal=True),
        ],
        engine="scripted",
    )


class Ledger:
    """The store as the conductor's ledger."""

    def __init__(self, store: Store, study: int) -> None:
        self.store, self.study = store, study
        self.finished_count = 0

    def started(self, proposal) -> int:
        return self.store.start_trial(
            self.study, proposal.configuration, origin=proposal.origin, position=proposal.position
        )

    def finished(self, number, value, *, hardware):
        speed = (value["speed"],)
        first = self.store.finish_trial(
            self.study, number, Outcome.DONE, objectives=speed, score=speed[0], hardware=hardware
        )
        self.finished_count += first
        return Result(outcome=Outcome.DONE, objectives=speed) if first else None

    def failed(self, number, why, *, hardware):
        self.store.finish_trial(self.study, number, Outcome.FAILED, failure={"why": why}, hardware=hardware)
        return Result(outcome=Outcome.FAILED)

    def abandoned(self, number, why) -> None:
        self.store.finish_trial(self.study, number, Outcome.ABANDONED, failure={"why": why})


def baseline(executor: RayExecutor, seconds: float) -> None:
    """A study's first trial: alone on one slot, in the time that the processes of the others need to start."""
    executor.start(Group(id="baseline", work=WORK, spec={"seconds": seconds}, trials={"0": {"launch": {"threads": 1}}}))
    while not any(report.kind == "ended" for report in executor.reports(1.0)):
        pass


def study_run(database: Path, address: str, *, slots: int, trials: int, seconds: float, between=lambda _: None):
    """Begin or continue the study in ``database``; seconds it took and what was done."""
    with Store.open(database) as store:
        row = store.find_study("scaling")
        coordinator = Coordinator(space(), GOAL, method="grid", seed=1)
        if row is None:
            study = store.create_study("scaling", {}, fingerprint="f")
        else:
            study = row.id
            store.claim_study(study)
            coordinator.resume(
                PastTrial(
                    configuration=t.configuration, origin=t.origin, position=t.position,
                    result=Result(outcome=t.outcome, objectives=t.objectives),
                )
                for t in store.trials(study)
            )  # fmt: skip
        ledger = Ledger(store, study)
        finished = sum(1 for t in store.trials(study, outcomes=[Outcome.DONE]))
        executor = RayExecutor(address, slots=slots)
        executor.warm_up(Resources(), work=WORK)  # as a study does: the baseline is measured meanwhile
        baseline(executor, seconds)

        def may_start() -> bool:
            between(ledger)
            return True

        began = time.monotonic()
        done = conduct(
            coordinator, executor, ledger, study="scaling", work=WORK, trials=trials - finished,
            per_group=4, spec=lambda c: {"seconds": seconds, "threads": c.launch["threads"]}, may_start=may_start,
        )  # fmt: skip
        took = time.monotonic() - began
        executor.close()
        keys = [t.configuration.key for t in store.trials(study, outcomes=[Outcome.DONE])]
        return took, {
            "finished": len(keys), "twice": len(keys) - len(set(keys)), "lost_groups": done.lost_groups,
            "abandoned": sum(1 for _ in store.trials(study, outcomes=[Outcome.ABANDONED])),
        }  # fmt: skip


def warm(address: str, slots: int) -> None:
    """Start the cluster's worker processes, which a long study would not notice."""
    with tempfile.TemporaryDirectory() as folder:
        study_run(Path(folder) / "warm.db", address, slots=slots, trials=4 * slots, seconds=0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--continue-in", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    given = parser.parse_args()
    everything = given.nodes * given.slots
    if given.continue_in:  # the coordinator that is going to be killed
        study_run(given.continue_in, given.address, slots=everything, trials=given.trials, seconds=given.seconds)
        return

    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    import ray  # noqa: PLC0415 - after the path its workers inherit
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - as above

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=given.slots) for _ in range(given.nodes)]
    ray.init(address=cluster.address, namespace="llmopt", log_to_driver=False, logging_level="error")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        warm(cluster.address, everything)
        options = {"trials": given.trials, "seconds": given.seconds}
        # one slot runs its share of the trials: the same launches and measurements for each
        one_s, _ = study_run(
            folder / "one.db", cluster.address, slots=1, trials=given.trials // everything, seconds=given.seconds
        )
        all_s, found = study_run(folder / "all.db", cluster.address, slots=everything, **options)
        _keep(given.out, all={"one_slot_s": one_s, "all_slots_s": all_s, "share_of_linear": one_s / all_s, **found})
        print(f"{everything} slots: {one_s / all_s:.2f} of linear speed, {found}", flush=True)

        def lose(ledger: Ledger) -> None:
            if nodes and ledger.finished_count >= given.trials // 4:
                cluster.remove_node(nodes.pop(), allow_graceful=False)
                nodes.clear()

        _, found = study_run(folder / "lost.db", cluster.address, slots=everything, between=lose, **options)
        _keep(given.out, node_lost=found)
        print(f"a node lost in the middle: {found}", flush=True)

        command = [
            sys.executable, __file__, "--continue-in", str(folder / "killed.db"), "--address", cluster.address,
            "--nodes", str(given.nodes - 1), "--slots", str(given.slots),
            "--trials", str(given.trials), "--seconds", str(given.seconds),
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = _finished_when(folder / "killed.db", given.trials // 3, process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        _, found = study_run(folder / "killed.db", cluster.address, slots=(given.nodes - 1) * given.slots, **options)
        _keep(given.out, coordinator_killed={"finished_before": before, **found})
        print(f"the coordinator killed after {before} trials: {found}", flush=True)
    ray.shutdown()
    cluster.shutdown()


def _keep(out: Path | None, **figures) -> None:
    """Add figures to those in ``out``: what was measured stays if a later part is cut."""
    if out:
        known = json.loads(out.read_text()) if out.exists() else {}
        out.write_text(json.dumps({**known, **figures}, indent=1))


def _finished_when(database: Path, wanted: int, process: subprocess.Popen) -> int:
    """Wait until so many trials are on disk; how many there are."""
    while True:
        if process.poll() is not None:
            raise RuntimeError("the coordinator ended by itself")
        done = 0
        if database.exists():
            # the coordinator may be making its tables at this very moment
            with suppress(StorageError), Store.open(database, read_only=True) as store:
                row = store.find_study("scaling")
                done = 0 if row is None else row.counts.get("done", 0)
        if done >= wanted:
            return done
        time.sleep(0.2)


if __name__ == "__main__":
    main()
