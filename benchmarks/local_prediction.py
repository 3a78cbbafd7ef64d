"""How well a few runs on this machine foretell the others: sixty llama.cpp configurations, each measured twice.

    python benchmarks/local_prediction.py measure --out grid60.json [--seconds 280]     (continues where it was cut)
    python benchmarks/local_prediction.py score grid60.json [--runs 5]

The points are those of ``live_grid.py`` (threads × slots × batch × cache type × attention × prompt form × temperature,
135M model) with the smallest hashes. Scored: ``--runs`` drawn at random, as measured once, teach the forecaster; the
other points are foretold and compared with the mean of their two measurements. What one measurement of the same points
says about the other is the ceiling. ``score`` also reads a table of ``live_grid.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from live_grid import MODEL, Machine, plain

from llmopt.predict.forecast import Unknown
from llmopt.predict.machine import MachineSpeed, measure_machine
from llmopt.predict.study import Scene, SeenRun, StudyForecast
from llmopt.records import Configuration, InferenceParams
from llmopt.study.foresight import prompts_of, tokens_per_byte

POINTS, SEEDS = 60, 50
GOOD = ("accuracy", "prompt_tokens_mean", "output_tokens_mean")


def chosen(points: list[Configuration]) -> list[Configuration]:
    return sorted(points, key=lambda c: hashlib.sha256(json.dumps(plain(c), sort_keys=True).encode()).digest())[:POINTS]


async def measure(out: Path, home: Path, seconds: float) -> None:
    from llmopt.runtime.locks import measuring_lock  # noqa: PLC0415 - only what measures needs the engine

    machine = Machine(home)
    table = json.loads(out.read_text()) if out.exists() else {"points": {}}  # noqa: ASYNC240 - nothing else waits
    if "speed" not in table:
        table["speed"] = asdict(measure_machine(max(1, int(machine.prepared.hardware.cpu.usable_cores))))
    table["machine"] = machine.prepared.hardware.cpu.model
    ends_s = time.monotonic() + seconds
    with measuring_lock("local prediction"):
        for repeat in range(2):
            order = sorted(chosen(list(machine.space.configurations())), key=lambda c: (c.launch_key, c.key))
            random.Random(repeat).shuffle(order)
            async with machine.bench() as bench:
                for configuration in order:
                    entry = table["points"].setdefault(configuration.key, {**plain(configuration), "runs": []})
                    if len(entry["runs"]) > repeat or time.monotonic() > ends_s:
                        continue
                    result = await bench.run(configuration, machine.prepared.search_items)
                    found = result.measurement
                    run = {"speed": found.value("answers_per_minute") if found else None}
                    run |= {name: found.value(name) if found else None for name in GOOD}
                    run["warnings"] = list(found.warnings) if found else []
                    entry["runs"].append(run)
                    out.write_text(json.dumps(table, indent=1))  # noqa: ASYNC240 - as above
    counts = [len(entry["runs"]) for entry in table["points"].values()]
    print(f"{sum(counts)} runs of {2 * POINTS}")


def ranks(values: list[float]) -> list[float]:
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    for place, index in enumerate(order):
        found[index] = float(place)
    return found


def compared(said: list[float], true: list[float]) -> tuple[float, float]:
    """(mean absolute percentage error, rank correlation)."""
    error = statistics.mean(abs(s / t - 1) for s, t in zip(said, true, strict=True))
    return error, statistics.correlation(ranks(said), ranks(true))


def scene_of(machine: Machine, table: dict, answer_tokens: float, prompt_tokens: float | None) -> Scene:
    p = machine.prepared
    per_byte = tokens_per_byte(p.dataset, p.search_items, prompt_tokens)
    return Scene(
        model=p.model,
        engine="llamacpp",
        engine_version="",
        hardware=p.hardware,
        task=p.task,
        prompts=prompts_of(p.dataset, p.search_items, per_byte),
        answer_tokens=answer_tokens,
        speed=MachineSpeed(**table["speed"]) if "speed" in table else measure_machine(2),
    )


def score(path: Path, home: Path, count: int) -> None:
    table = json.loads(path.read_text())
    machine = Machine(home)
    entries = [e for e in table["points"].values() if len(e["runs"]) > 1 and all(r["speed"] for r in e["runs"])]
    configurations = [
        Configuration(engine="llamacpp", launch=e["launch"], request=InferenceParams(**e["request"])) for e in entries
    ]
    once = [[e["runs"][i]["speed"] for e in entries] for i in (0, 1)]
    true = [math.sqrt(a * b) for a, b in zip(*once, strict=True)]
    plain_run = next((e["runs"][0] for e in entries if e["request"]["prompt_form"] == "zero_shot"), {})
    scene = scene_of(machine, table, plain_run.get("output_tokens_mean") or 16.0, plain_run.get("prompt_tokens_mean"))
    print(f"{len(entries)} points of {MODEL}, {table.get('machine')}")
    ceiling = compared(once[0], once[1])
    print(f"one measurement against the other: MAPE {ceiling[0]:.1%}, rank correlation {ceiling[1]:.3f}")
    errors, orders, inside = [], [], []
    for seed in range(SEEDS):
        known = set(random.Random(seed).sample(range(len(entries)), count))
        runs = [
            SeenRun(
                scene=scene,
                configuration=configurations[i],
                answers_per_minute=once[0][i],
                prompt_tokens=entries[i]["runs"][0].get("prompt_tokens_mean"),
                answer_tokens=entries[i]["runs"][0].get("output_tokens_mean"),
            )
            for i in known
        ]
        forecast = StudyForecast(scene, runs)
        others = [i for i in range(len(entries)) if i not in known]
        figures = []
        for i in others:
            expected = forecast.of(configurations[i])
            assert not isinstance(expected, Unknown), expected
            figures.append(expected.figures["answers_per_minute"])
        error, order = compared([f.value for f in figures], [true[i] for i in others])
        errors.append(error)
        orders.append(order)
        inside += [f.low <= once[1][i] <= f.high for f, i in zip(figures, others, strict=True)]
    mape = f"MAPE mean {statistics.mean(errors):.1%} median {statistics.median(errors):.1%} worst {max(errors):.1%}"
    rank = f"rank correlation mean {statistics.mean(orders):.3f} worst {min(orders):.3f}"
    print(f"after {count} runs ({SEEDS} draws): {mape}; {rank}; 90% interval covers {statistics.mean(inside):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--out", type=Path, required=True)
    measuring.add_argument("--seconds", type=float, default=math.inf)
    scoring = commands.add_parser("score")
    scoring.add_argument("grid", type=Path)
    scoring.add_argument("--runs", type=int, default=5)
    for command in (measuring, scoring):
        command.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "llmopt-live-grid")
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    if given.command == "measure":
        asyncio.run(measure(given.out, given.home, given.seconds))
    else:
        score(given.grid, given.home, given.runs)


if __name__ == "__main__":
    main()
