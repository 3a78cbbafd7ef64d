"""llama-optimus and our search on llama-optimus' own objective: tokens a second of a single stream.

    python benchmarks/llama_optimus.py measure --out bench.json      (about five quiet minutes; continues if cut)
    python benchmarks/llama_optimus.py replay bench.json --seeds 100

No ``llama-bench`` binary comes with the embedded llama.cpp. The table therefore holds what it would measure, measured
through the server: generation (``tg``) and prompt tokens a second (``pp``) of one stream, for threads × flash attention
× batch × micro-batch, two repeats. llama-optimus 0.1.9 is fetched as a wheel, read as a zip file and runs unchanged
through its three stages with its defaults (45 + 2 + 45 trials), except that the function that would call
``llama-bench`` looks the answer up: at the nearest batch sizes of the table, as the mean of its three repetitions with
the noise of ours, for one launch without warm-up and three measurements. Its own long warm-up, its search for GPU
layers and its two last benchmarks are not counted. Ours searches the same settings, one measurement a trial, and pays
its warm-ups.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import io
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from llmopt.objective import parse_objectives
from llmopt.records import InferenceParams, Outcome, Parameter
from llmopt.search.coordinator import Coordinator
from llmopt.search.grid import seeded
from llmopt.search.proposer import Result
from llmopt.search.space import Space

GOAL = parse_objectives("tokens_per_s")
WHEEL = "llama-optimus==0.1.9"
BATCHES, MICRO_BATCHES = (128, 512), (32, 128, 512)
NAMES = ("threads", "flash_attention", "batch", "ubatch")
METRICS = ("tg", "pp", "mean")
TRIALS, TOKENS, REPETITIONS = 45, 192, 3
"""llama-optimus' defaults: of each of its two long stages, and of what it asks ``llama-bench`` for."""


def space(threads, defaults, conflict) -> Space:
    return Space(
        [
            Parameter(name="threads", level="launch", values=threads, ordinal=True),
            Parameter(name="flash_attention", level="launch", values=("on", "off")),
            Parameter(name="batch", level="launch", values=BATCHES, ordinal=True),
            Parameter(name="ubatch", level="launch", values=MICRO_BATCHES, ordinal=True),
        ],
        engine="llamacpp",
        defaults=defaults,
        request_defaults=InferenceParams(temperature=0.0, prompt_form="zero_shot"),
        conflict=conflict,
    )


async def measure(out: Path, home: Path, repeats: int) -> None:
    from grid_machine import Machine  # noqa: PLC0415 - only what measures needs the engine

    from llmopt.runtime.locks import measuring_lock  # noqa: PLC0415 - as above

    machine = Machine(home, items=3, tokens=24, streams=1)
    cores = max(int(machine.prepared.hardware.cpu.usable_cores), 1)
    defaults = {**machine.defaults, "slots": 1, "prefix_cache": False, "cache_type_k": "f16", "cache_type_v": "f16"}
    threads = tuple(sorted({1, 2, cores}))
    points = list(space(threads, defaults, machine.conflict).configurations())
    table: dict = {"threads": threads, "points": {}}
    if out.exists():  # noqa: ASYNC240 - nothing else waits
        table = json.loads(out.read_text())  # noqa: ASYNC240 - as above
    print(f"{len(points)} points, {repeats} repeats")
    with measuring_lock("llama-optimus' objective"):
        for repeat in range(repeats):
            async with machine.bench() as bench:
                order = sorted(points, key=lambda c: seeded(repeat, c.key).random())
                for done, c in enumerate(order, start=1):
                    at = {name: c.launch[name] for name in NAMES}
                    entry = table["points"].setdefault(c.key, {"at": at, "runs": []})
                    if len(entry["runs"]) > repeat:
                        continue
                    run, found = await machine.measure(bench, c)
                    if found is None:
                        raise SystemExit(f"{at} could not be measured: {run}")
                    gap_ms, first_ms, tokens = (
                        found.value(name) for name in ("tpot_p50_ms", "ttft_p50_ms", "prompt_tokens_mean")
                    )
                    if gap_ms is None or first_ms is None or tokens is None:
                        raise SystemExit(f"{at} has no figures: {run}")
                    tg, pp = 1000.0 / gap_ms, 1000.0 * tokens / first_ms
                    entry["runs"].append({"tg": tg, "pp": pp, **run})
                    out.write_text(json.dumps(table, indent=1))  # noqa: ASYNC240 - nothing else waits
                    print(
                        f"repeat {repeat + 1}, {done}/{len(order)}: {at} tg {tg:.1f} pp {pp:.1f} tokens/s", flush=True
                    )


def key_of(at) -> tuple:
    return tuple(at[name] for name in NAMES)


def _prices(runs: list[dict]) -> dict[str, float]:
    return {name: statistics.mean(run[name] for run in runs) for name in ("launch_s", "warmup_s", "measure_s")}


class Bench:
    """The table as ``llama-bench``: tokens a second of settings, with noise; counts what it was asked."""

    def __init__(self, table: dict, metric: str) -> None:
        entries = list(table["points"].values())
        self.points = [entry["at"] for entry in entries]
        self.prices = {key_of(e["at"]): _prices(e["runs"]) for e in entries}
        figures = {key_of(e["at"]): [self._figure(r, metric) for r in e["runs"]] for e in entries}
        self.truth = {key: math.exp(statistics.mean(map(math.log, runs))) for key, runs in figures.items()}
        self.residuals = [
            sign * math.log(runs[0] / runs[1]) / math.sqrt(2) for runs in figures.values() for sign in (1, -1)
        ]
        self.best = max(self.truth.values())
        self.good = {key for key, value in self.truth.items() if value >= 0.95 * self.best}
        self.begin(0)

    @staticmethod
    def _figure(run: dict, metric: str) -> float:
        return (run["tg"] + run["pp"]) / 2 if metric == "mean" else run[metric]

    def begin(self, seed: int) -> None:
        self.source, self.spent_s, self.asked = random.Random(f"noise:{seed}"), 0.0, 0
        self.found_s: float | None = None

    def nearest(self, threads: int, flash: str, batch: int, ubatch: int) -> dict:
        """llama.cpp itself lowers a micro-batch above the batch."""
        wanted = (math.log2(max(batch, 1)), math.log2(max(min(ubatch, batch), 1)))
        rows = [at for at in self.points if at["threads"] == threads and at["flash_attention"] == flash]
        return min(rows, key=lambda at: math.dist(wanted, (math.log2(at["batch"]), math.log2(at["ubatch"]))))

    def run(self, at: dict, *, repetitions: int = 1, warm: bool = True) -> tuple[float, float]:
        """Tokens a second, the mean of so many measurements on one launch, and the seconds it took."""
        key, price = key_of(at), self.prices[key_of(at)]
        seconds = price["launch_s"] + (price["warmup_s"] if warm else 0.0) + repetitions * price["measure_s"]
        self.spent_s += seconds
        self.asked += 1
        if key in self.good and self.found_s is None:
            self.found_s = self.spent_s
        drawn = [math.exp(self.source.choice(self.residuals)) for _ in range(repetitions)]
        return self.truth[key] * statistics.mean(drawn), seconds

    def share(self, at: dict) -> float:
        return self.truth[key_of(at)] / self.best


# ── the two searches ───────────────────────────────────────────────────────────────────────────────────────────────


def optimus(cache: Path):
    """The module ``llama_optimus.core`` out of its wheel; pandas, which only reads a CSV file, is not needed."""
    found = sorted(cache.glob("llama_optimus-0.1.9-*.whl"))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(cache), WHEEL]
        subprocess.run(command, check=True)
        found = sorted(cache.glob("llama_optimus-0.1.9-*.whl"))
    sys.path.insert(0, str(found[0]))
    sys.modules.setdefault("pandas", types.ModuleType("pandas"))
    import optuna  # noqa: PLC0415 - only here

    core: Any = importlib.import_module("llama_optimus.core")

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    core.subprocess = types.SimpleNamespace(run=lambda *_, **__: None)
    return core


def run_optimus(core, bench: Bench, metric: str, seed: int) -> float:
    """Its whole course; the true share of the optimum that the settings it prints have."""
    bench.begin(seed)
    printed: list[dict] = []

    def answer(command: list[str], _metric: str) -> float:
        def of(flag: str, default: str) -> str:
            return command[command.index(flag) + 1] if flag in command else default

        flash = "on" if of("--flash-attn", "0") == "1" else "off"
        numbers = int(of("--threads", "1")), int(of("--batch-size", "512")), int(of("--ubatch-size", "512"))
        at = bench.nearest(numbers[0], flash, *numbers[1:])
        speed, _ = bench.run(at, repetitions=REPETITIONS, warm=False)
        printed.append({"numbers": numbers, "flash": flash, "speed": speed})
        return speed

    core.run_llama_bench_with_csv = answer
    core.SEARCH_SPACE["gpu_layers"]["high"] = 0
    core.SEARCH_SPACE["threads"]["high"] = max(at["threads"] for at in bench.points)
    core.TPESampler = lambda **given: _sampler(seed, given)
    with contextlib.redirect_stdout(io.StringIO()):
        core.run_optimization(TRIALS, TOKENS, metric, REPETITIONS, "llama-bench", "model.gguf", ".", "none")
    # what it prints: the numbers of its third stage, the flash attention of its second
    second = max(printed[TRIALS : TRIALS + 2], key=lambda one: one["speed"])
    third = max(printed[TRIALS + 2 :], key=lambda one: one["speed"])
    return bench.share(bench.nearest(third["numbers"][0], second["flash"], *third["numbers"][1:]))


def _sampler(seed: int, given: dict):
    import optuna  # noqa: PLC0415 - only here

    return optuna.samplers.TPESampler(seed=seed, **given)


def run_ours(bench: Bench, threads, seed: int, *, trials: int) -> float:
    """So many trials of our coordinator; the true share of the optimum of the best it saw."""
    bench.begin(seed)
    known = {key_of(at): at for at in bench.points}

    def conflict(launch) -> str | None:
        return None if key_of(launch) in known else "table"

    coordinator = Coordinator(space(threads, {}, conflict), GOAL, seed=seed)
    best, best_at = -math.inf, None
    for _ in range(trials):
        proposal = coordinator.ask()
        if proposal is None:
            break
        at = known[key_of(proposal.configuration.launch)]
        speed, seconds = bench.run(at)
        told = Result(outcome=Outcome.DONE, objectives=(speed,), launch_s=0.0, measure_s=seconds)
        coordinator.tell(proposal.configuration, told)
        if speed > best:
            best, best_at = speed, at
    assert best_at is not None
    return bench.share(best_at)


def replay(path: Path, seeds: int, cache: Path, trials: int, out: Path | None) -> None:
    table = json.loads(path.read_text())
    cache.mkdir(parents=True, exist_ok=True)
    core = optimus(cache)
    raw: dict = {}
    for metric in METRICS:
        bench = Bench(table, metric)
        print(
            f"{metric}: {len(bench.points)} points, {len(bench.good)} within 5 % of the best, "
            f"noise of one run {100 * statistics.pstdev(bench.residuals):.1f} %"
        )
        arms: dict[str, Callable[[int], float]] = {
            "llama-optimus": partial(run_optimus, core, bench, metric),
            "ours": partial(run_ours, bench, tuple(table["threads"]), trials=trials),
        }
        for name, arm in arms.items():
            rows: list[dict[str, Any]] = []
            for seed in range(seeds):
                share = arm(seed)
                rows.append({"share": share, "found_s": bench.found_s, "runs": bench.asked, "spent_s": bench.spent_s})
            found = [math.inf if row["found_s"] is None else row["found_s"] for row in rows]
            shares = [row["share"] for row in rows]
            good = statistics.mean(share >= 0.95 for share in shares)
            raw[f"{metric}-{name}"] = rows
            print(
                f"  {name:13} {statistics.mean(r['runs'] for r in rows):.0f} runs, "
                f"{statistics.mean(r['spent_s'] for r in rows):.0f} engine-seconds; first good point after "
                f"{statistics.median(found):.0f} s (median); advice within 5 % of the best in "
                f"{100 * good:.0f} % of seeds, mean {statistics.mean(shares):.3f}",
                flush=True,
            )
            if out:
                out.write_text(json.dumps(raw))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--repeats", type=int, default=2)
    measuring.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "llmopt-live-grid")
    replaying = commands.add_parser("replay")
    replaying.add_argument("table", type=Path)
    replaying.add_argument("--seeds", type=int, default=100)
    replaying.add_argument("--trials", type=int, default=12, help="of our search")
    replaying.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "llmopt-benchmark-tables")
    replaying.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.command == "measure":
        asyncio.run(measure(given.out, given.home, given.repeats))
    else:
        replay(given.table, given.seeds, given.cache, given.trials, given.out)


if __name__ == "__main__":
    main()
