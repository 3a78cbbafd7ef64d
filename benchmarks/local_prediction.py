"""How well a few runs on this machine foretell the others, on the table that ``live_grid.py`` measured twice.

    python benchmarks/local_prediction.py grid.json --part scored     (60 points, chosen by hash)
    python benchmarks/local_prediction.py grid.json --part rest       (the others: what changes are tried on)
    python benchmarks/local_prediction.py grid.json --part all [--runs 5] [--speed machine-speed.json]

``--runs`` points drawn at random, as measured once, teach the forecaster; the others of the part are foretold and
compared with the mean of their measurements. What one measurement of the same points says about the other is the
ceiling. ``--speed`` holds the machine's peaks (made where it is missing; measure them when the machine is quiet).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

from grid_machine import MODEL, Machine
from live_grid import ITEMS, STREAMS, TOKENS

from llmopt.predict.forecast import Unknown
from llmopt.predict.machine import MachineSpeed, measure_machine
from llmopt.predict.study import Scene, SeenRun, StudyForecast
from llmopt.records import Configuration, InferenceParams
from llmopt.study.foresight import prompts_of, tokens_per_byte

POINTS, DRAWS = 60, 50
PARTS = ("scored", "rest", "all")


def part_of(entries: list[dict], part: str) -> list[dict]:
    """The entries of ``part``; the scored ones have the smallest hashes of what was run."""

    def rank(entry: dict) -> bytes:
        told = {"launch": entry["launch"], "request": entry["request"]}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).digest()

    ordered = sorted(entries, key=rank)
    return {"scored": ordered[:POINTS], "rest": ordered[POINTS:], "all": ordered}[part]


def speed_in(path: Path | None) -> MachineSpeed:
    """This machine's peaks, from ``path`` where they are."""
    if path is not None and path.is_file():
        return MachineSpeed(**json.loads(path.read_text(encoding="utf-8")))
    speed = measure_machine(2)
    if path is not None:
        path.write_text(json.dumps(asdict(speed), indent=1), encoding="utf-8")
    return speed


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


def scene_of(machine: Machine, speed: MachineSpeed) -> Scene:
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


def drawn(
    scene: Scene, configurations: list[Configuration], once: list[float], count: int, seed: int
) -> tuple[list[int], list]:
    """The points that ``count`` others foretell, and what is foretold of each."""
    known = set(random.Random(seed).sample(range(len(once)), count))
    runs = [SeenRun(scene=scene, configuration=configurations[i], answers_per_minute=once[i]) for i in sorted(known)]
    forecast = StudyForecast(scene, runs)
    others = [i for i in range(len(once)) if i not in known]
    figures = []
    for i in others:
        expected = forecast.of(configurations[i])
        assert not isinstance(expected, Unknown), expected
        figures.append(expected.figures["answers_per_minute"])
    return others, figures


def score(given: argparse.Namespace) -> None:
    table = json.loads(given.grid.read_text(encoding="utf-8"))
    machine = Machine(given.home, items=ITEMS, tokens=TOKENS, streams=STREAMS)
    scene = scene_of(machine, speed_in(given.speed))
    chosen = part_of(list(table["points"].values()), given.part)
    entries = [e for e in chosen if e["runs"] and all(r["speed"] for r in e["runs"])]
    configurations = [
        Configuration(engine="llamacpp", launch=e["launch"], request=InferenceParams(**e["request"])) for e in entries
    ]
    once = [e["runs"][0]["speed"] for e in entries]
    true = [math.exp(statistics.mean(math.log(r["speed"]) for r in e["runs"])) for e in entries]
    print(f"{len(entries)} points ({given.part}) of {MODEL}, {table.get('machine')}")
    twice = [(e["runs"][0]["speed"], e["runs"][1]["speed"]) for e in entries if len(e["runs"]) > 1]
    if len(twice) > 1:
        error, order = compared([one for one, _ in twice], [other for _, other in twice])
        print(f"one measurement against the other (n={len(twice)}): MAPE {error:.1%}, rank correlation {order:.3f}")
    errors, orders, inside = [], [], []
    for seed in range(DRAWS):
        others, figures = drawn(scene, configurations, once, given.runs, seed)
        error, order = compared([f.value for f in figures], [true[i] for i in others])
        errors.append(error)
        orders.append(order)
        inside += [f.low <= entries[i]["runs"][-1]["speed"] <= f.high for f, i in zip(figures, others, strict=True)]
    mape = f"MAPE mean {statistics.mean(errors):.1%} median {statistics.median(errors):.1%} worst {max(errors):.1%}"
    rank = f"rank correlation mean {statistics.mean(orders):.3f} worst {min(orders):.3f}"
    print(f"after {given.runs} runs ({DRAWS} draws): {mape}; {rank}; 90% interval covers {statistics.mean(inside):.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--part", choices=PARTS, default="scored")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--speed", type=Path, default=None)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "llmopt-live-grid")
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    score(given)


if __name__ == "__main__":
    main()
