"""A whole real space measured point by point, then searched: what does it cost to come within 5 % of its best?

    python benchmarks/live_grid.py measure --out grid.json         (an hour on a quiet machine; continues if cut)
    python benchmarks/live_grid.py replay grid.json --seeds 1000   (searches on the table, its noise drawn again)
    python benchmarks/live_grid.py live grid.json --seeds 5        (searches on the engine, judged by the table)
    python benchmarks/live_grid.py plot replay.json --out regret.svg

The space: threads × slots × batch × cache type × flash attention × two prompt forms × two temperatures; llama.cpp and
the 135M model, legal points only, two repeats of each in different orders. The objective is answers per minute. Costs
are engine-seconds: launches with their warm-up, and measurements. ``tpe`` and ``random`` are as a user would write them
with Optuna: one trial, one configuration, a restart where the launch settings differ. Ours searches as in the
first study on a machine: without earlier runs nothing is foretold of a CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from grid_machine import Machine
from grid_table import ARMS, GOAL, Grid, search, space_of
from regret_plot import plot

from llmopt.records import Configuration, InferenceParams, Outcome
from llmopt.search.coordinator import Coordinator
from llmopt.search.grid import seeded
from llmopt.search.proposer import Result

ITEMS, TOKENS, STREAMS = 4, 8, 4
DRAWN = 60
"""Seeds whose course, to a quarter of the grid, is kept for the picture."""


# ── the engine ─────────────────────────────────────────────────────────────────────────────────────────────────────


def machine_at(home: Path) -> Machine:
    machine = Machine(home, items=ITEMS, tokens=TOKENS, streams=STREAMS)
    cores = max(int(machine.prepared.hardware.cpu.usable_cores), 1)
    machine.space = space_of(
        {**machine.defaults, "threads": 1, "ubatch": 64, "cache_type_k": "f16"},
        InferenceParams(temperature=0.0, prompt_form="zero_shot"),
        machine.conflict,
        tuple(sorted({1, 2, cores})),
    )
    return machine


async def run_once(machine: Machine, bench, configuration: Configuration) -> dict:
    run, measurement = await machine.measure(bench, configuration)
    return {"speed": measurement.value("answers_per_minute") if measurement else None, **run}


def plain(configuration: Configuration) -> dict:
    return {"launch": dict(configuration.launch), "request": configuration.request.given()}


async def measure(out: Path, home: Path, repeats: int, limit: int | None) -> None:
    from llmopt.runtime.locks import measuring_lock  # noqa: PLC0415 - only what measures needs the engine

    machine = machine_at(home)
    points = list(machine.space.configurations())[:limit]
    table = json.loads(out.read_text()) if out.exists() else {"points": {}}  # noqa: ASYNC240 - nothing else waits
    table["space"] = {"threads": machine.space.by_name["threads"].values, "defaults": machine.space.defaults}
    table["machine"] = machine.prepared.hardware.cpu.model
    print(f"{len(points)} points, {repeats} repeats")
    with measuring_lock("live grid"):
        for repeat in range(repeats):
            order = sorted(points, key=lambda c: (seeded(repeat, c.launch_key).random(), c.key))
            async with machine.bench() as bench:
                for done, configuration in enumerate(order, start=1):
                    entry = table["points"].setdefault(configuration.key, {**plain(configuration), "runs": []})
                    if len(entry["runs"]) > repeat:
                        continue
                    entry["runs"].append(await run_once(machine, bench, configuration))
                    out.write_text(json.dumps(table, indent=1))  # noqa: ASYNC240 - as above
                    print(f"repeat {repeat + 1}, {done}/{len(order)}: {entry['runs'][-1]}", flush=True)


# ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────


def replay(path: Path, seeds: int, arms: list[str], out: Path | None, *, first: int = 0) -> None:
    """Every arm with seeds ``first`` … on the table: what it costs until a good point has run."""
    grid = Grid(path)
    whole = grid.whole_cost()
    print(grid.describe())
    raw: dict = {}
    for arm in arms:
        jobs = [(seed, whole / 4 if seed - first < DRAWN else 0.0) for seed in range(first, first + seeds)]
        with multiprocessing.Pool(os.cpu_count(), initializer=_load, initargs=(path,)) as pool:
            runs = pool.map(partial(_one, arm), jobs, chunksize=10)
        never = sum(run.found_s is None for run in runs)
        found = sorted(math.inf if run.found_s is None else run.found_s for run in runs)
        trials = sorted(math.inf if run.found_trials is None else run.found_trials for run in runs)
        curves = [run.course for run in runs[:DRAWN]]
        columns = {"found_s": found, "trials": trials}
        finite = {name: [v if math.isfinite(v) else None for v in column] for name, column in columns.items()}
        rounded = [[(round(at_s, 1), round(share, 3)) for at_s, share in curve] for curve in curves]
        raw[arm] = {**finite, "seeds": seeds, "never": never, "curves": rounded}
        middle, high = statistics.median(found), found[int(0.9 * seeds)]
        print(
            f"{arm:9} trials median {statistics.median(trials):g} p90 {trials[int(0.9 * seeds)]:g}"
            f"   engine-seconds median {middle:.0f} (1/{whole / middle:.1f} of the grid) p90 {high:.0f}, never {never}",
            flush=True,
        )
        if out:  # after every arm: TPE takes minutes
            table = {"whole_s": whole, "noise": grid.noise, "points": len(grid.points), "good": len(grid.good)}
            known = json.loads(out.read_text())["methods"] if out.exists() else {}
            out.write_text(json.dumps({**table, "seeds_drawn": DRAWN, "methods": {**known, **raw}}))


_TABLE: list[Grid] = []
"""The table of a worker process: a space cannot be sent to it."""


def _load(path: Path) -> None:
    _TABLE[:] = [Grid(path)]


def _one(arm: str, job: tuple[int, float]):
    seed, at_least_s = job
    return search(_TABLE[0], arm, seed, at_least_s=at_least_s)


async def live(grid: Grid, home: Path, seeds: int) -> None:
    """The same on the engine itself; the table judges when a good point was run."""
    from llmopt.runtime.locks import measuring_lock  # noqa: PLC0415 - only what measures needs the engine

    machine = machine_at(home)
    with measuring_lock("live grid"):
        for seed in range(seeds):
            coordinator = Coordinator(machine.space, GOAL, seed=seed)
            spent = trials = 0.0
            async with machine.bench() as bench:
                while (proposal := coordinator.ask(bench.launch_key)) is not None:
                    found = await run_once(machine, bench, proposal.configuration)
                    spent += found["launch_s"] + found["warmup_s"] + found["measure_s"]
                    trials += 1
                    if proposal.configuration.key in grid.good:
                        break
                    done = found["speed"] is not None
                    coordinator.tell(
                        proposal.configuration,
                        Result(
                            outcome=Outcome.DONE if done else Outcome.FAILED,
                            objectives=(found["speed"],) if done else None,
                            launch_s=found["launch_s"] or None,
                            warmup_s=found["warmup_s"], measure_s=found["measure_s"],
                        ),
                    )  # fmt: skip
            print(
                f"seed {seed}: {trials:g} trials, {spent:.0f} engine-seconds = 1/{grid.whole_cost() / spent:.1f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--repeats", type=int, default=2)
    measuring.add_argument("--limit", type=int)
    replaying = commands.add_parser("replay")
    replaying.add_argument("grid", type=Path)
    replaying.add_argument("--seeds", type=int, default=1000)
    replaying.add_argument("--first", type=int, default=0, help="the first seed: others were used for tuning")
    replaying.add_argument("--methods", nargs="+", default=ARMS, choices=ARMS)
    replaying.add_argument("--out", type=Path)
    living = commands.add_parser("live")
    living.add_argument("grid", type=Path)
    living.add_argument("--seeds", type=int, default=5)
    plotting = commands.add_parser("plot")
    plotting.add_argument("replayed", type=Path)
    plotting.add_argument("--out", type=Path, required=True)
    for command in (measuring, living):
        command.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "llmopt-live-grid")
    given = parser.parse_args()
    if given.command == "measure":
        given.home.mkdir(parents=True, exist_ok=True)
        asyncio.run(measure(given.out, given.home, given.repeats, given.limit))
    elif given.command == "replay":
        replay(given.grid, given.seeds, list(given.methods), given.out, first=given.first)
    elif given.command == "live":
        asyncio.run(live(Grid(given.grid), given.home, given.seeds))
    else:
        plot(given.replayed, given.out)


if __name__ == "__main__":
    main()
