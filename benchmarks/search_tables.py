"""Trials to a configuration within 5 % of the best, replayed on serving measurements by others.

    python benchmarks/search_tables.py [--limit-ms 20] [--seeds 10] [--methods …] [--out tables.json]

For every group (model × GPU × engine × lengths) the goal is the highest throughput per GPU under a limit on the time
per token: ``--limit-ms`` for all groups, 0 for each group's median. A trial returns what was measured. Counted is how
many
trials it takes until one within 5 % of the best allowed one has run. ``prior`` follows the prediction without learning;
``scrambled`` gets the same predictions, dealt to the wrong configurations.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from serving_tables import CONFIGURATION, Point, fetch, groups, predictions

from llmopt.objective import parse_objectives
from llmopt.records import Outcome, Parameter
from llmopt.search.coordinator import Coordinator
from llmopt.search.proposer import Prediction, Prior, Proposal, Result
from llmopt.search.space import Space
from llmopt.search.transfer import Circumstances, Earlier, History, first_trials

GOAL = parse_objectives("answers_per_minute")
METHODS = ("random", "tpe", "gp", "prior", "auto", "scrambled", "foreign", "reversed")
EARLIER = 20
"""Trials of the earlier study that is remembered."""


Group = tuple[str, ...]


class Table:
    """One group as a space and its answers."""

    def __init__(self, group: Group, found: list[Point], predicted: list[float], limit_ms: float) -> None:
        self.group = group
        names = [n for i, n in enumerate(CONFIGURATION) if len({p.settings[i] for p in found}) > 1]
        places = [CONFIGURATION.index(n) for n in names]
        self.points = {tuple(_value(p.settings[i]) for i in places): p for p in found}
        self.predicted = dict(zip(self.points, predicted, strict=True))
        self.names = names
        parameters = []
        for n, i in zip(names, places, strict=True):
            values = sorted({_value(p.settings[i]) for p in found}, key=lambda v: (isinstance(v, str), v))
            ordinal = all(isinstance(v, int) for v in values)
            parameters.append(Parameter(name=n, level="launch", values=tuple(values), ordinal=ordinal))
        self.space = Space(
            parameters,
            engine="table",
            conflict=lambda s: None if tuple(s.get(n) for n in names) in self.points else "table.not_measured",
        )
        times = sorted(p.tpot_ms for p in found)
        self.limit_ms = limit_ms or times[(len(times) - 1) // 2]
        allowed = [p.throughput(p.tpot_ms) for p in found if p.tpot_ms <= self.limit_ms]
        self.goal = 0.95 * max(allowed)

    def key(self, configuration) -> tuple:
        return tuple(configuration.launch[n] for n in self.names)

    def reached(self, point: Point) -> bool:
        return point.tpot_ms <= self.limit_ms and point.throughput(point.tpot_ms) >= self.goal

    def result(self, point: Point) -> Result:
        return Result(
            outcome=Outcome.DONE,
            objectives=(point.throughput(point.tpot_ms),),
            violations=(math.log(point.tpot_ms / self.limit_ms),),
        )

    def configuration(self, point: Point):
        """The point of this or another table as this space has it."""
        return self.space.configuration({n: _value(point.settings[CONFIGURATION.index(n)]) for n in self.names})

    def circumstances(self, *, machine: str | None = None) -> Circumstances:
        model, system, engine, isl, osl = self.group
        return Circumstances(
            engine=engine, model=model, hardware=machine or system, processor=machine or system, dataset=f"{isl}/{osl}"
        )

    def prediction(self, key: tuple) -> Prediction:
        ms = self.predicted[key]
        return Prediction(
            objectives=(self.points[key].throughput(ms),), spread=(0.3,), violations=(math.log(ms / self.limit_ms),)
        )


def _value(text: str):
    return int(text) if text.lstrip("-").isdigit() else text


class TablePrior:
    def __init__(self, table: Table, *, scrambled: random.Random | None = None) -> None:
        self.table = table
        keys = list(table.points)
        dealt = list(keys)
        if scrambled is not None:
            scrambled.shuffle(dealt)
        self.dealt = dict(zip(keys, dealt, strict=True))

    def predict(self, configuration) -> Prediction:
        return self.table.prediction(self.dealt[self.table.key(configuration)])


def foreign(table: Table, tables: dict[Group, Table]) -> Table:
    """The table of another GPU (and the same engine) that is most like this one."""
    others = [
        other for other in tables.values() if other.group[1] != table.group[1] and other.group[2] == table.group[2]
    ]
    others = others or [other for other in tables.values() if other.group[1] != table.group[1]]
    return max(others, key=lambda o: (o.group[0] == table.group[0], o.group[3:] == table.group[3:], len(o.points)))


def remembered(table: Table, method: str, tables: dict[Group, Table], seed: int) -> Earlier:
    """Another machine's study: what its trials were and what they found."""
    source = random.Random(f"{method}:{seed}")
    if method == "foreign":
        other = foreign(table, tables)
        points = source.sample(list(other.points.values()), min(EARLIER, len(other.points)))
        found = tuple((table.configuration(point), other.result(point)) for point in points)
        return Earlier(name="earlier", circumstances=other.circumstances(), trials=found)
    points = source.sample(list(table.points.values()), min(EARLIER, len(table.points)))
    order = sorted(points, key=lambda p: (p.tpot_ms > table.limit_ms, -p.throughput(p.tpot_ms)))
    turned = zip(order, map(table.result, reversed(order)), strict=True)
    found = tuple((table.configuration(point), result) for point, result in turned)
    return Earlier(name="earlier", circumstances=table.circumstances(machine="another"), trials=found)


def trials(table: Table, method: str, seed: int, tables: dict[Group, Table]) -> int:
    if method == "prior":
        order = sorted(
            table.points,
            key=lambda key: (table.predicted[key] > table.limit_ms, -table.prediction(key).objectives[0]),
        )
        return next(n for n, key in enumerate(order, start=1) if table.reached(table.points[key]))
    priors: tuple[Prior, ...] = ()
    first: Sequence[Proposal] = ()
    if method in ("foreign", "reversed"):
        earlier, now = [remembered(table, method, tables, seed)], table.circumstances()
        history = History(table.space, GOAL, earlier, now)
        priors = (history,) if history.used else ()
        first = first_trials(table.space, GOAL, earlier, now)
    if method in ("auto", "scrambled"):
        source = random.Random(f"scrambled:{seed}") if method == "scrambled" else None
        priors = (TablePrior(table, scrambled=source),)
    coordinator = Coordinator(
        table.space, GOAL, limits=["tpot"], seed=seed, priors=priors, first=first,
        method=method if method in ("random", "tpe") else "gp",
    )  # fmt: skip
    for n in range(1, len(table.points) + 1):
        proposal = coordinator.ask()
        assert proposal is not None
        point = table.points[table.key(proposal.configuration)]
        if table.reached(point):
            return n
        coordinator.tell(proposal.configuration, table.result(point))
    raise AssertionError("the goal is in the table")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-ms", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "llmopt-benchmark-tables")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    given.cache.mkdir(parents=True, exist_ok=True)
    wheel = fetch(given.cache)
    chosen = groups(wheel)
    predicted = predictions(wheel, chosen)
    tables = {group: Table(group, found, predicted[group], given.limit_ms) for group, found in chosen.items()}
    sizes = [len(table.points) for table in tables.values()]
    errors = [abs(predicted[g][i] / p.tpot_ms - 1) for g in chosen for i, p in enumerate(chosen[g])]
    print(f"{len(tables)} groups, median {statistics.median(sizes):g} configurations")
    print(f"prediction of unseen model families: {100 * statistics.mean(errors):.1f} % mean error")
    raw: dict[str, dict[str, list[int]]] = {}
    for method in given.methods:
        began = time.monotonic()
        raw[method] = {}
        for group, table in tables.items():
            seeds = 1 if method == "prior" else given.seeds
            raw[method]["/".join(group)] = [trials(table, method, seed, tables) for seed in range(seeds)]
        per_seed = [
            statistics.mean(found[s % len(found)] for found in raw[method].values()) for s in range(given.seeds)
        ]
        everything = sorted(n for found in raw[method].values() for n in found)
        print(
            f"{method:10} mean {statistics.mean(per_seed):5.2f}  (seeds {min(per_seed):.2f}–{max(per_seed):.2f})"
            f"  median {statistics.median(everything):g}  p90 {everything[int(0.9 * len(everything))]}"
            f"  worst {everything[-1]}  [{time.monotonic() - began:.0f} s]",
            flush=True,
        )
    if given.out:
        given.out.write_text(
            json.dumps({"limit_ms": given.limit_ms, "groups": len(tables), "sizes": sizes, "trials": raw}, indent=1)
        )


if __name__ == "__main__":
    main()
