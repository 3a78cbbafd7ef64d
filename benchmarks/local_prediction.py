"""How well a few runs on this machine foretell the others, on the table that ``live_grid.py`` measured twice.

    python benchmarks/local_prediction.py grid.json --part scored     (60 points, chosen by hash)
    python benchmarks/local_prediction.py grid.json --part rest       (the others: what changes are tried on)
    python benchmarks/local_prediction.py grid.json --part all [--runs 5] [--teachers first] [--speed speed.json]

``--runs`` points, as measured once, teach the forecaster: drawn at random from the part, or (``--teachers first``)
those that the program's own search tries first. The others of the part are foretold and compared with the mean of
their measurements. What one measurement of the same points says about the other is the ceiling. ``--speed`` holds the
machine's peaks (made where it is missing; measure them when the machine is quiet).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from grid_machine import MODEL, Machine
from grid_table import Grid, ours
from live_grid import ITEMS, SHOTS, STREAMS, TOKENS, scene_of

from llmopt.predict.forecast import Unknown
from llmopt.predict.machine import MachineSpeed, measure_machine
from llmopt.predict.study import Figure, Scene, SeenRun, StudyForecast
from llmopt.records import Configuration, InferenceParams, Outcome
from llmopt.search.proposer import Result

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


@dataclass(frozen=True, kw_only=True)
class Point:
    """One configuration and what its measurements gave."""

    key: str
    configuration: Configuration
    speeds: tuple[float, ...]

    @property
    def true(self) -> float:
        """The geometric mean of all measurements."""
        return math.exp(statistics.mean(math.log(speed) for speed in self.speeds))


def points_of(table: dict, part: str) -> list[Point]:
    """The points of ``part`` that have speeds, in a fixed order."""
    keys = {id(entry): key for key, entry in table["points"].items()}
    return [
        Point(
            key=keys[id(e)],
            configuration=Configuration(engine="llamacpp", launch=e["launch"], request=InferenceParams(**e["request"])),
            speeds=tuple(run["speed"] for run in e["runs"]),
        )
        for e in part_of(list(table["points"].values()), part)
        if e["runs"] and all(run["speed"] for run in e["runs"])
    ]


def first_trials(grid: Grid, once: dict[str, float], count: int, seed: int) -> list[str]:
    """The configurations that the program's own search tries first, told what one measurement of each gave."""
    ask = ours(grid.space, "auto", seed, grid.priors)
    found: dict[str, None] = {}
    while len(found) < count and (asked := ask(None)) is not None:
        configuration, tell = asked
        found[configuration.key] = None
        tell(Result(outcome=Outcome.DONE, objectives=(once[configuration.key],)))
    return list(found)


def foretold(scene: Scene, teachers: list[Point], others: list[Point]) -> list[Figure]:
    """What the teachers' first measurements say of the others."""
    runs = [SeenRun(scene=scene, configuration=p.configuration, answers_per_minute=p.speeds[0]) for p in teachers]
    forecast = StudyForecast(scene, runs)
    figures = []
    for point in others:
        expected = forecast.of(point.configuration)
        assert not isinstance(expected, Unknown), expected
        figures.append(expected.figures["answers_per_minute"])
    return figures


def teachers_of(given: argparse.Namespace, everything: list[Point], part: list[Point], seed: int) -> list[Point]:
    """The runs that are known: drawn at random from the part, or the first trials of the program's own search."""
    if given.teachers == "random":
        return random.Random(seed).sample(part, given.runs)
    by_key = {point.key: point for point in everything}
    once = {point.key: point.speeds[0] for point in everything}
    return [by_key[key] for key in first_trials(Grid(given.grid), once, given.runs, seed)]


def score(given: argparse.Namespace) -> None:
    table = json.loads(given.grid.read_text(encoding="utf-8"))
    scene = scene_of(
        Machine(given.home, items=ITEMS, tokens=TOKENS, streams=STREAMS, shots=SHOTS), speed_in(given.speed)
    )
    everything, part = points_of(table, "all"), points_of(table, given.part)
    print(f"{len(part)} points ({given.part}) of {MODEL}, {table.get('machine')}")
    twice = [point.speeds for point in part if len(point.speeds) > 1]
    if len(twice) > 1:
        error, order = compared([speeds[0] for speeds in twice], [speeds[1] for speeds in twice])
        print(f"one measurement against the other (n={len(twice)}): MAPE {error:.1%}, rank correlation {order:.3f}")
    errors, orders, inside = [], [], []
    for seed in range(DRAWS):
        teachers = teachers_of(given, everything, part, seed)
        taught = {point.key for point in teachers}
        others = [point for point in part if point.key not in taught]
        figures = foretold(scene, teachers, others)
        error, order = compared([figure.value for figure in figures], [point.true for point in others])
        errors.append(error)
        orders.append(order)
        inside += [figure.low <= point.speeds[-1] <= figure.high for figure, point in zip(figures, others, strict=True)]
    mape = f"MAPE mean {statistics.mean(errors):.1%} median {statistics.median(errors):.1%} worst {max(errors):.1%}"
    rank = f"rank correlation mean {statistics.mean(orders):.3f} worst {min(orders):.3f}"
    print(
        f"after {given.runs} {given.teachers} runs ({DRAWS} times): {mape}; {rank}; "
        f"90% interval covers {statistics.mean(inside):.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--part", choices=PARTS, default="scored")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--teachers", choices=("random", "first"), default="random")
    parser.add_argument("--speed", type=Path, default=None)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "llmopt-live-grid")
    given = parser.parse_args()
    given.home.mkdir(parents=True, exist_ok=True)
    score(given)


if __name__ == "__main__":
    main()
