"""What the search itself costs a trial: proposal, result and its commit to disk, over 1,000 trials.

    python benchmarks/search_overhead.py [--trials 1000] [--methods …] [--out overhead.json]

Eight mixed parameters (three without order, five sizes), one and three objectives, no engine. Milliseconds of wall time
and of processor time, the median and the 95th percentile over all trials.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from pathlib import Path

from llmopt.objective import parse_objectives
from llmopt.records import Estimate, Measurement, Outcome, Parameter
from llmopt.search.coordinator import Coordinator
from llmopt.search.proposer import Result
from llmopt.search.space import Space
from llmopt.store import Store

METHODS = ("auto", "tpe", "nsga2", "random", "grid")
GOALS = {1: "answers_per_minute", 3: "quality,answers_per_minute,ttft_p95"}


def space() -> Space:
    return Space(
        [
            Parameter(name="kv", level="launch", values=("f16", "q8_0", "q4_0")),
            Parameter(name="flash", level="launch", values=("on", "off")),
            Parameter(name="poll", level="launch", values=("a", "b", "c", "d")),
            Parameter(name="threads", level="launch", values=(1, 2, 4, 8, 16, 32), ordinal=True),
            Parameter(name="slots", level="launch", values=(1, 2, 4, 8, 16, 32, 64), ordinal=True),
            Parameter(name="batch", level="launch", values=(64, 128, 256, 512, 1024, 2048), ordinal=True),
            Parameter(name="top_k", level="request", values=(1, 10, 40, 100), ordinal=True),
            Parameter(name="temperature", level="request", low=0.0, high=1.5),
        ],
        engine="none",
    )


def figures(configuration, noise: random.Random) -> tuple[float, float, float]:
    s = configuration.launch
    speed = 60 * math.exp(-0.2 * (math.log2(s["threads"]) - 3) ** 2 - 0.1 * (math.log2(s["slots"]) - 4) ** 2)
    quality = 0.7 - 0.1 * configuration.request.temperature - (0.05 if s["kv"] == "q4_0" else 0.0)
    return quality, speed * math.exp(noise.gauss(0, 0.03)), 8000 / speed * math.exp(noise.gauss(0, 0.05))


def run(method: str, objectives: int, trials: int, folder: Path) -> tuple[list[float], list[float]]:
    """Wall and processor seconds of each trial."""
    goals, noise = parse_objectives(GOALS[objectives]), random.Random(1)
    coordinator = Coordinator(space(), goals, method=method, seed=1, limits=["memory<2GB"])
    wall, busy = [], []
    with Store.open(folder / "llmopt.db") as store:
        study = store.create_study(f"{method}-{objectives}", {}, fingerprint="f")
        running = None
        for _ in range(trials):
            before, used = time.perf_counter(), time.process_time()
            proposal = coordinator.ask(running)
            assert proposal is not None
            number = store.start_trial(
                study,
                proposal.configuration,
                origin=proposal.origin,
                position=proposal.position,
                sampler=proposal.sampler,
            )
            wall_s, busy_s = time.perf_counter() - before, time.process_time() - used
            every = figures(proposal.configuration, noise)
            values = (every[1],) if objectives == 1 else every
            estimates = {goal.estimate: Estimate(value=v, unit="", n=16) for goal, v in zip(goals, values, strict=True)}
            result = Result(
                outcome=Outcome.DONE, objectives=values, violations=(-0.5,), launch_s=3.0, warmup_s=1.0, measure_s=10.0
            )
            before, used = time.perf_counter(), time.process_time()
            store.finish_trial(
                study, number, Outcome.DONE, measurement=Measurement(estimates=estimates), objectives=values,
                violations=(-0.5,), score=values[0], launch_s=3.0, warmup_s=1.0, measure_s=10.0,
            )  # fmt: skip
            coordinator.tell(proposal.configuration, result)
            running = proposal.configuration.launch_key
            wall.append(wall_s + time.perf_counter() - before)
            busy.append(busy_s + time.process_time() - used)
    return wall, busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    raw = {}
    for objectives in GOALS:
        for method in given.methods:
            with tempfile.TemporaryDirectory() as folder:
                wall, busy = run(method, objectives, given.trials, Path(folder))
            raw[f"{method}-{objectives}"] = {"wall_s": wall, "busy_s": busy}
            wall_ms, busy_ms = (sorted(1000 * s for s in found) for found in (wall, busy))
            middle, high = len(wall) // 2, int(0.95 * len(wall))
            print(
                f"{objectives} objective(s), {method:7} wall p50 {wall_ms[middle]:6.1f} p95 {wall_ms[high]:6.1f} ms"
                f"   processor p50 {busy_ms[middle]:6.1f} p95 {busy_ms[high]:6.1f} ms",
                flush=True,
            )
    if given.out:
        given.out.write_text(json.dumps(raw))


if __name__ == "__main__":
    main()
