"""A whole real space measured point by point, then searched: what does it cost to come within 5 % of its best?

    python benchmarks/live_grid.py measure --out grid.json         (an hour on a quiet machine; continues if cut)
    python benchmarks/live_grid.py replay grid.json --seeds 1000   (searches on the table, its noise drawn again)
    python benchmarks/live_grid.py live grid.json --out live.json  (searches on the engine, judged by the table;
                                                                    12 to 20 minutes, continues if cut)
    python benchmarks/live_grid.py plot replay.json --out regret.svg

The space: threads × slots × batch × cache type × flash attention × two prompt forms × two temperatures; llama.cpp and
the 135M model, legal points only, two repeats of each in different orders. The objective is answers per minute. Costs
are engine-seconds: launches with their warm-up (points of one launch share it) and measurements. ``tpe`` and ``random``
are as a user would write them with Optuna: one trial, one configuration, a restart where the launch settings differ.
Ours (``auto``) searches as in the first study on a machine: of a CPU nothing is known but what every configuration must
move and compute, and so an order is guessed, which the table keeps; ``blind`` is the same search without that guess.
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
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from grid_machine import Machine
from grid_table import ARMS, GOAL, Grid, search, space_of
from regret_plot import plot

from llmopt.predict.forecast import Unknown
from llmopt.predict.machine import MachineSpeed, measure_machine
from llmopt.predict.study import Scene, StudyForecast
from llmopt.records import Configuration, InferenceParams, Outcome
from llmopt.search.coordinator import Coordinator
from llmopt.search.grid import seeded
from llmopt.search.proposer import Result
from llmopt.study.foresight import prompts_of, tokens_per_byte

ITEMS, TOKENS, STREAMS, SHOTS = 4, 8, 4, 1
DRAWN = 60
"""Seeds whose course, to a quarter of the grid, is kept for the picture."""


# ── the engine ─────────────────────────────────────────────────────────────────────────────────────────────────────


def machine_at(home: Path) -> Machine:
    machine = Machine(home, items=ITEMS, tokens=TOKENS, streams=STREAMS, shots=SHOTS)
    cores = max(int(machine.prepared.hardware.cpu.usable_cores), 1)
    machine.space = space_of(
        {**machine.defaults, "threads": 1, "ubatch": 64, "cache_type_k": "f16"},
        InferenceParams(temperature=0.0, prompt_form="zero_shot"),
        machine.conflict,
        tuple(sorted({1, 2, cores})),
    )
    return machine


async def run_once(machine: Machine, bench, configuration: Configuration) -> dict:
    run, measurement = await machine.measure(bench, configuration, fresh=False)
    return {"speed": measurement.value("answers_per_minute") if measurement else None, **run}


def plain(configuration: Configuration) -> dict:
    return {"launch": dict(configuration.launch), "request": configuration.request.given()}


def scene_of(machine: Machine, speed: MachineSpeed) -> Scene:
    """What is known of these points before any of them ran."""
    p = machine.prepared
    return Scene(
        model=p.model,
        engine="llamacpp",
        engine_version="",
        hardware=p.hardware,
        task=p.task,
        prompts=prompts_of(p.dataset, p.search_items, tokens_per_byte(p.dataset, p.search_items, None)),
        answer_tokens=float(TOKENS),
        requests=ITEMS,
        speed=speed,
    )


def guessed(forecast: StudyForecast, configuration: Configuration) -> tuple[float, float]:
    """Answers a minute and the spread of their logarithm, where nothing was measured here: only the order is meant."""
    expected = forecast.of(configuration)
    assert not isinstance(expected, Unknown), expected
    figure = expected.figures["answers_per_minute"]
    return round(figure.value, 3), round(figure.spread, 3)


async def measure(out: Path, home: Path, repeats: int, limit: int | None) -> None:
    from llmopt.runtime.locks import measuring_lock  # noqa: PLC0415 - only what measures needs the engine

    machine = machine_at(home)
    points = list(machine.space.configurations())[:limit]
    table = json.loads(out.read_text()) if out.exists() else {"points": {}}  # noqa: ASYNC240 - nothing else waits
    table["space"] = {"threads": machine.space.by_name["threads"].values, "defaults": machine.space.defaults}
    table["machine"] = machine.prepared.hardware.cpu.model
    table["speed"] = table.get("speed") or asdict(measure_machine(2))
    guess = StudyForecast(scene_of(machine, MachineSpeed(**table["speed"])), guess=True)
    print(f"{len(points)} points, {repeats} repeats")
    for configuration in points:
        entry = table["points"].setdefault(configuration.key, {**plain(configuration), "runs": []})
        entry["guess"] = guessed(guess, configuration)
    out.write_text(json.dumps(table, indent=1))  # noqa: ASYNC240 - as above
    with measuring_lock("live grid"):
        for repeat in range(repeats):
            order = sorted(points, key=lambda c: (seeded(repeat, c.launch_key).random(), c.key))
            async with machine.bench() as bench:
                for done, configuration in enumerate(order, start=1):
                    entry = table["points"][configuration.key]
                    if len(entry["runs"]) > repeat:
                        continue
                    entry["runs"].append(await run_once(machine, bench, configuration))
                    out.write_text(json.dumps(table, indent=1))  # noqa: ASYNC240 - as above
                    print(f"repeat {repeat + 1}, {done}/{len(order)}: {entry['runs'][-1]}", flush=True)


# ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────


def replay(path: Path, seeds: int, arms: list[str], out: Path | None, *, first: int = 0) -> None:
    """Every arm with seeds ``first`` … on the table: what it costs until a good point has run.

    An arm that ``out`` has of the seeds before ``first`` is continued, any other is written anew.
    """
    grid = Grid(path)
    whole = grid.whole_cost()
    print(grid.describe())
    known = json.loads(out.read_text())["methods"] if out and out.exists() else {}
    for arm in arms:
        before = known.get(arm) if first and known.get(arm, {}).get("seeds") == first else None
        drawn = 0 if before else DRAWN
        jobs = [(seed, whole / 4 if seed - first < drawn else 0.0) for seed in range(first, first + seeds)]
        with multiprocessing.Pool(os.cpu_count(), initializer=_load, initargs=(path,)) as pool:
            runs = pool.map(partial(_one, arm), jobs, chunksize=10)
        known[arm] = told = _joined(before, runs)
        found, trials = (sorted(math.inf if v is None else v for v in told[name]) for name in ("found_s", "trials"))
        ninth, never, middle = int(0.9 * len(found)), told["never"], statistics.median(found)
        print(
            f"{arm:9} {len(found)} seeds, trials median {statistics.median(trials):g} p90 {trials[ninth]:g}"
            f"   engine-seconds median {middle:.0f} (1/{whole / middle:.1f} of the grid) p90 {found[ninth]:.0f}"
            f", never {never}",
            flush=True,
        )
        if out:  # after every arm: TPE takes minutes
            table = {"whole_s": whole, "noise": grid.noise, "points": len(grid.points), "good": len(grid.good)}
            out.write_text(json.dumps({**table, "seeds_drawn": DRAWN, "methods": known}))


def _joined(before: dict | None, runs: list) -> dict:
    """What the seeds of one arm found, behind those that ran before."""
    curves = [[(round(at_s, 1), round(share, 3)) for at_s, share in run.course] for run in runs[:DRAWN]]
    earlier = before or {"found_s": [], "trials": [], "seeds": 0, "never": 0, "curves": curves}
    return {
        "found_s": [*earlier["found_s"], *(run.found_s for run in runs)],
        "trials": [*earlier["trials"], *(run.found_trials for run in runs)],
        "seeds": earlier["seeds"] + len(runs),
        "never": earlier["never"] + sum(run.found_s is None for run in runs),
        "curves": earlier["curves"],
    }


_TABLE: list[Grid] = []
"""The table of a worker process: a space cannot be sent to it."""


def _load(path: Path) -> None:
    _TABLE[:] = [Grid(path)]


def _one(arm: str, job: tuple[int, float]):
    seed, at_least_s = job
    return search(_TABLE[0], arm, seed, at_least_s=at_least_s)


async def live(grid: Grid, home: Path, seeds: int, out: Path, *, minutes: float | None) -> None:
    """The same on the engine itself; the table judges when a good point was run.

    Every trial is kept in ``out`` as soon as it ended; what is there already is told again, not run again.
    """
    from llmopt.runtime.locks import measuring_lock  # noqa: PLC0415 - only what measures needs the engine

    strange = {c.key for c in grid.space.configurations()} ^ set(grid.points)
    if strange:
        raise SystemExit(f"{len(strange)} points of the table are not those of its space: measure it again")
    machine = machine_at(home)
    ends_s = math.inf if minutes is None else time.monotonic() + 60.0 * minutes
    record = json.loads(out.read_text()) if out.exists() else {}  # noqa: ASYNC240 - nothing else waits
    record = {"whole_s": grid.whole_cost(), "points": len(grid.points), "good": len(grid.good), "seeds": {}} | record
    with measuring_lock("live grid"):
        for seed in range(seeds):
            entry = record["seeds"].setdefault(str(seed), {"found": False, "trials": []})
            if await _live_seed(grid, machine, seed, entry, ends_s=ends_s, save=partial(_save, out, record)):
                print(f"seed {seed}: {_price(entry, grid)}", flush=True)
            else:
                print(f"no time left in seed {seed}: the same command goes on from {out}", flush=True)
                break
    _summary(record, grid)


async def _live_seed(grid: Grid, machine: Machine, seed: int, entry: dict, *, ends_s: float, save) -> bool:
    """One search until a good point has run, or the table's whole cost is spent; False where the time ended first."""
    coordinator = Coordinator(grid.space, GOAL, seed=seed, priors=grid.priors)
    by_key = {c.key: c for c in grid.space.configurations()}
    for trial in entry["trials"]:
        coordinator.ask()
        coordinator.tell(by_key[trial["key"]], _told(trial))
    async with machine.bench() as bench:
        while not entry["found"] and _spent_s(entry) < grid.whole_cost():
            if time.monotonic() > ends_s:
                return False
            proposal = coordinator.ask(bench.launch_key)
            if proposal is None:
                break
            key = proposal.configuration.key
            trial = {"key": key, **await run_once(machine, bench, proposal.configuration)}
            entry["trials"].append(trial)
            entry["found"] = key in grid.good
            save()
            print(
                f"seed {seed}, trial {len(entry['trials'])}: {_shown(trial)}, in the table "
                f"{grid.truth[key]:.0f} of {grid.best:.0f}; {_spent_s(entry):.0f} engine-seconds",
                flush=True,
            )
            coordinator.tell(proposal.configuration, _told(trial))
    return True


def _save(out: Path, record: dict) -> None:
    out.write_text(json.dumps(record, indent=1))


def _shown(trial: dict) -> str:
    return trial["outcome"] if trial["speed"] is None else f"{trial['speed']:.0f} answers/min"


def _told(trial: dict) -> Result:
    return Result(
        outcome=Outcome.FAILED if trial["speed"] is None else Outcome.DONE,
        objectives=None if trial["speed"] is None else (trial["speed"],),
        launch_s=trial["launch_s"] or None,
        warmup_s=trial["warmup_s"],
        measure_s=trial["measure_s"],
    )


def _spent_s(entry: dict) -> float:
    return sum(trial["launch_s"] + trial["warmup_s"] + trial["measure_s"] for trial in entry["trials"])


def _price(entry: dict, grid: Grid) -> str:
    spent = _spent_s(entry)
    reached, times = "found" if entry["found"] else "NOT found", grid.whole_cost() / spent
    return f"{reached} after {len(entry['trials'])} trials, {spent:.0f} engine-seconds = 1/{times:.1f} of the grid"


def _summary(record: dict, grid: Grid) -> None:
    over = [e for e in record["seeds"].values() if e["found"] or _spent_s(e) >= grid.whole_cost()]
    if not over:
        return
    spent = sorted(_spent_s(entry) if entry["found"] else math.inf for entry in over)
    middle = statistics.median(spent)
    print(
        f"{len(over)} seeds: median {middle:.0f} engine-seconds = 1/{grid.whole_cost() / middle:.1f} of the grid's "
        f"{grid.whole_cost():.0f}; each: {', '.join(f'{s:.0f}' for s in spent)}"
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
    living.add_argument("--out", type=Path, help="every trial, kept at once (default: live.json beside the table)")
    living.add_argument("--minutes", type=float, help="stop after so long; the same command goes on")
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
        out = given.out or given.grid.with_name("live.json")
        asyncio.run(live(Grid(given.grid), given.home, given.seeds, out, minutes=given.minutes))
    else:
        plot(given.replayed, given.out)


if __name__ == "__main__":
    main()
