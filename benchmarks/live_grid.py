"""A whole real space measured point by point, then searched: what does it cost to come within 5 % of its best?

    python benchmarks/live_grid.py measure --out grid.json         (an hour on a quiet machine; continues if cut)
    python benchmarks/live_grid.py replay grid.json --seeds 1000   (searches on the table, its noise drawn again)
    python benchmarks/live_grid.py live grid.json --seeds 5        (searches on the engine, judged by the table)
    python benchmarks/live_grid.py plot replay.json --out regret.svg

The space: threads × slots × batch × cache type × flash attention × two prompt forms × two temperatures; llama.cpp and
the 135M model, legal points only, two repeats of each in different orders. The objective is answers per minute. Costs
are engine-seconds: launches with their warm-up, and measurements. ``tpe`` and ``random`` are as a user would write them
with Optuna: one trial, one configuration, a restart where the launch settings differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import tempfile
import warnings
from functools import partial
from pathlib import Path

from llmopt.objective import parse_objectives
from llmopt.records import Configuration, InferenceParams, Outcome, Parameter
from llmopt.search.coordinator import Coordinator
from llmopt.search.grid import seeded
from llmopt.search.proposer import Result
from llmopt.search.space import Space

GOAL = parse_objectives("answers_per_minute")
METHODS = ("grid", "random", "tpe", "auto")
SHARE = 0.95
MODEL, DATASET, ITEMS, TOKENS, STREAMS = "smollm2-135m", "korean_math_easy", 4, 8, 4


def space_of(defaults, request_defaults, conflict, threads) -> Space:
    return Space(
        [
            Parameter(name="threads", level="launch", values=threads, ordinal=True),
            Parameter(name="slots", level="launch", values=(1, 2, 4), ordinal=True),
            Parameter(name="batch", level="launch", values=(64, 512), ordinal=True),
            Parameter(
                name="cache_type_v", level="launch", values=("f16", "q8_0"), only_if={"flash_attention": ("on",)}
            ),
            Parameter(name="flash_attention", level="launch", values=("on", "off")),
            Parameter(name="prompt_form", level="request", values=("zero_shot", "examples")),
            Parameter(name="temperature", level="request", values=(0.0, 0.8), ordinal=True),
        ],
        engine="llamacpp",
        defaults=defaults,
        request_defaults=request_defaults,
        conflict=conflict,
    )


# ── the engine ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Machine:
    """The real engine behind the space."""

    def __init__(self, home: Path) -> None:
        from llmopt.config.settings import load_settings  # noqa: PLC0415 - only what measures needs the engine
        from llmopt.paths import Workspace  # noqa: PLC0415
        from llmopt.study.host import StudyHost  # noqa: PLC0415
        from llmopt.study.prepare import prepare  # noqa: PLC0415
        from llmopt.study.request import StudyRequest  # noqa: PLC0415

        workspace = Workspace(root=home)
        request = StudyRequest(
            model=MODEL, dataset=DATASET, samples=ITEMS, max_tokens=TOKENS, streams=STREAMS, engine="llamacpp"
        )
        self.prepared = prepare(request, workspace=workspace, settings=load_settings(workspace))
        p = self.prepared
        self.host = StudyHost(engine=p.engine, model=p.model, hardware=p.hardware, task=p.task, run_root=home / "runs")
        cores = max(int(p.hardware.cpu.usable_cores), 1)
        context = max(1024, 256 * math.ceil(p.task.context_tokens / 256)) * STREAMS
        defaults = {**p.baseline.launch, "context": context, "threads": 1, "ubatch": 64, "cache_type_k": "f16"}
        self.space = space_of(
            defaults,
            InferenceParams(temperature=0.0, prompt_form="zero_shot"),
            lambda s: p.engine.conflict(s, p.model, p.hardware, p.task),
            tuple(sorted({1, 2, cores})),
        )

    def bench(self):
        from llmopt.search.trial import Bench  # noqa: PLC0415 - only what measures needs the engine

        return Bench(self.host, self.prepared.work)

    async def measure(self, bench, configuration: Configuration) -> dict:
        result = await bench.run(configuration, self.prepared.search_items)
        speed = result.measurement.value("answers_per_minute") if result.measurement else None
        return {
            "outcome": result.outcome.value, "speed": speed, "launch_s": result.launch_s,
            "warmup_s": result.warmup_s, "measure_s": result.measure_s,
            "warnings": list(result.measurement.warnings) if result.measurement else [],
        }  # fmt: skip


def plain(configuration: Configuration) -> dict:
    return {"launch": dict(configuration.launch), "request": configuration.request.given()}


async def measure(out: Path, home: Path, repeats: int, limit: int | None) -> None:
    from llmopt.runtime.locks import measuring_lock  # noqa: PLC0415 - only what measures needs the engine

    machine = Machine(home)
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
                    entry["runs"].append(await machine.measure(bench, configuration))
                    out.write_text(json.dumps(table, indent=1))  # noqa: ASYNC240 - as above
                    print(f"repeat {repeat + 1}, {done}/{len(order)}: {entry['runs'][-1]}", flush=True)


# ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Grid:
    """The measured table as a space, its truth (the mean of the repeats) and its noise (their differences)."""

    def __init__(self, path: Path) -> None:
        table = json.loads(path.read_text())
        self.points = {
            key: entry for key, entry in table["points"].items() if all(run["speed"] for run in entry["runs"])
        }
        self.truth = {
            k: math.exp(statistics.mean(math.log(r["speed"]) for r in e["runs"])) for k, e in self.points.items()
        }
        differences = [
            math.log(e["runs"][0]["speed"] / e["runs"][1]["speed"]) for e in self.points.values() if len(e["runs"]) > 1
        ]
        self.noise = math.sqrt(statistics.mean(d * d for d in differences) / 2) if differences else 0.0
        self.best = max(self.truth.values())
        self.good = {key for key, value in self.truth.items() if value >= SHARE * self.best}
        legal = {json.dumps(entry["launch"], sort_keys=True) for entry in self.points.values()}
        self.space = space_of(
            table["space"]["defaults"],
            InferenceParams(temperature=0.0, prompt_form="zero_shot"),
            lambda s: None if json.dumps(dict(s), sort_keys=True) in legal else "grid.not_measured",
            tuple(table["space"]["threads"]),
        )
        launches = [r["launch_s"] + r["warmup_s"] for e in self.points.values() for r in e["runs"] if r["launch_s"] > 0]
        self.launch_s = statistics.median(launches)

    def run(self, key: str, source: random.Random) -> tuple[float, float]:
        """One trial as it might have gone: speed with the repeats' noise, and its seconds."""
        entry = self.points[key]
        speed = self.truth[key] * math.exp(source.gauss(0, self.noise))
        measure_s = statistics.mean(run["measure_s"] for run in entry["runs"]) * self.truth[key] / speed
        return speed, measure_s

    def whole_cost(self) -> float:
        """Engine-seconds of the whole grid in the best order: one launch for each launch setting."""
        launches = len({json.dumps(entry["launch"], sort_keys=True) for entry in self.points.values()})
        measured = sum(statistics.mean(r["measure_s"] for r in e["runs"]) for e in self.points.values())
        return launches * self.launch_s + measured


def plain_optuna(space: Space, seed: int):
    """TPE as a user would write it: define-by-run, no idea of launches."""
    import optuna  # noqa: PLC0415 - only for this arm

    from llmopt.search.proposer_optuna import distribution, value_of  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    kinds = {parameter.name: distribution(parameter) for parameter in space.parameters}

    def ask():
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trial = study.ask(kinds)
            c = space.configuration({n: value_of(space.by_name[n], v) for n, v in trial.params.items()})
            if space.legal(space.assignment(c)):
                return c, partial(study.tell, trial)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    return ask


def plain_random(space: Space, seed: int):
    """Independent draws without replacement."""
    source, seen = random.Random(f"random:{seed}"), set()
    points = list(space.configurations())

    def ask():
        left = [point for point in points if point.key not in seen]
        chosen = source.choice(left)
        seen.add(chosen.key)
        return chosen, lambda _: None

    return ask


def search(grid: Grid, method: str, seed: int) -> list[tuple[float, float]]:
    """(engine-seconds so far, true speed of the best known so far as a share of the optimum) after each trial."""
    noise = random.Random(f"noise:{seed}")
    running, spent, curve = None, 0.0, []
    best_seen, best_true = -math.inf, 0.0
    coordinator = None
    if method in ("grid", "auto"):
        coordinator = Coordinator(grid.space, GOAL, method=method, seed=seed)
    ask = {"tpe": plain_optuna, "random": plain_random}[method](grid.space, seed) if coordinator is None else None
    for _ in range(len(grid.points)):
        if coordinator is not None:
            proposal = coordinator.ask(running)
            if proposal is None:
                break
            configuration = proposal.configuration
        else:
            configuration, tell = ask()
        if configuration.key not in grid.points:
            continue
        speed, measure_s = grid.run(configuration.key, noise)
        launched = configuration.launch_key != running
        running = configuration.launch_key
        spent += measure_s + (grid.launch_s if launched else 0.0)
        if coordinator is not None:
            result = Result(
                outcome=Outcome.DONE, objectives=(speed,), measure_s=measure_s,
                launch_s=grid.launch_s if launched else None,
            )  # fmt: skip
            coordinator.tell(configuration, result)
        else:
            tell(speed)
        if speed > best_seen:
            best_seen, best_true = speed, grid.truth[configuration.key]
        curve.append((spent, best_true / grid.best))
        if configuration.key in grid.good:
            break
    return curve


def replay(grid: Grid, seeds: int, methods: list[str], out: Path | None) -> None:
    whole = grid.whole_cost()
    count = len(grid.points)
    print(
        f"{count} points, {100 * len(grid.good) / count:.1f} % within 5 % of the best, noise {100 * grid.noise:.1f} %, "
        f"launch {grid.launch_s:.1f} s, whole grid {whole:.0f} engine-seconds"
    )
    raw = {}
    for method in methods:
        curves = [search(grid, method, seed) for seed in range(seeds)]
        costs = sorted(curve[-1][0] for curve in curves)
        trials = sorted(len(curve) for curve in curves)
        raw[method] = {"seconds": costs, "trials": trials, "curves": curves[:50]}
        print(
            f"{method:7} trials median {statistics.median(trials):g} mean {statistics.mean(trials):.1f}   "
            f"engine-seconds median {statistics.median(costs):.0f} "
            f"(grid: {whole / statistics.median(costs):.1f} times that), "
            f"p90 {costs[int(0.9 * len(costs))]:.0f}",
            flush=True,
        )
    if out:
        out.write_text(json.dumps({"whole_s": whole, "noise": grid.noise, "methods": raw}))


async def live(grid: Grid, home: Path, seeds: int) -> None:
    """The same on the engine itself; the table judges when a good point was run."""
    from llmopt.runtime.locks import measuring_lock  # noqa: PLC0415 - only what measures needs the engine

    machine = Machine(home)
    with measuring_lock("live grid"):
        for seed in range(seeds):
            coordinator = Coordinator(machine.space, GOAL, method="auto", seed=seed)
            spent = trials = 0.0
            async with machine.bench() as bench:
                while (proposal := coordinator.ask(bench.launch_key)) is not None:
                    found = await machine.measure(bench, proposal.configuration)
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


def plot(replayed: Path, out: Path) -> None:
    """Regret (distance to the optimum) of the best known so far against engine-seconds, medians, as SVG."""
    found = json.loads(replayed.read_text())
    width, height, left, low = 640, 360, 60, 40
    longest = max(curve[-1][0] for arm in found["methods"].values() for curve in arm["curves"])
    colours = {"grid": "#888888", "random": "#d9822b", "tpe": "#3f7fbf", "auto": "#2a9d5c"}
    parts = []
    for row, (method, arm) in enumerate(found["methods"].items()):
        path = []
        for step in range(81):
            at = longest * step / 80
            regrets = []
            for curve in arm["curves"]:
                reached = [share for seconds, share in curve if seconds <= at]
                regrets.append(1 - (reached[-1] if reached else 0.0))
            x = left + (width - left - 10) * step / 80
            path.append(f"{x:.1f},{height - low - (height - low - 10) * statistics.median(regrets):.1f}")
        parts.append(f'<polyline fill="none" stroke="{colours[method]}" stroke-width="2" points="{" ".join(path)}"/>')
        parts.append(
            f'<text x="{width - 120}" y="{30 + 18 * row}" fill="{colours[method]}" font-size="13">{method}</text>'
        )
    axes = f'<path d="M{left} 10V{height - low}H{width - 10}" stroke="#444" fill="none"/>'
    labels = (
        f'<text x="{width / 2}" y="{height - 8}" font-size="13">engine-seconds (0 – {longest:.0f})</text>'
        f'<text x="8" y="24" font-size="13">regret 100 %</text>'
        f'<text x="26" y="{height - low}" font-size="13">0 %</text>'
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    out.write_text(f"{svg}{axes}{''.join(parts)}{labels}</svg>\n")


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
    replaying.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
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
        replay(Grid(given.grid), given.seeds, list(given.methods), given.out)
    elif given.command == "live":
        asyncio.run(live(Grid(given.grid), given.home, given.seeds))
    else:
        plot(given.replayed, given.out)


if __name__ == "__main__":
    main()
