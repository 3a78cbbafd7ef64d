"""The measured table of ``live_grid.py`` as a space that can be searched again, with its noise and its prices.

The truth of a point is the geometric mean of its repeats; the noise of one run is drawn from all differences between
repeats, so that its tails are the measured ones. A trial costs what the point's measurement took, and a launch with its
warm-up where the launch settings differ from those that run (always, in a table whose every point was a launch).
"""

from __future__ import annotations

import json
import math
import random
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llmopt.objective import parse_objectives
from llmopt.records import Configuration, InferenceParams, Outcome, Parameter, SettingValue
from llmopt.search.coordinator import Coordinator
from llmopt.search.proposer import Prediction, Prior, Result
from llmopt.search.space import Space

GOAL = parse_objectives("answers_per_minute")
SHARE = 0.95
ARMS = ("grid", "random", "tpe", "blind", "auto")


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


class Guess:
    """The order that was guessed before anything ran, as the search is given it: a value and its spread."""

    def __init__(self, points: Mapping[str, dict]) -> None:
        self._points = points

    def predict(self, configuration: Configuration) -> Prediction | None:
        value, spread = self._points[configuration.key]["guess"]
        return Prediction(objectives=(value,), spread=(spread,))


class Grid:
    """The measured points, their truth, noise and prices."""

    def __init__(self, path: Path) -> None:
        table = json.loads(path.read_text())
        self.points = {k: e for k, e in table["points"].items() if e["runs"] and all(r["speed"] for r in e["runs"])}
        launches = Counter(json.dumps(entry["launch"], sort_keys=True) for entry in self.points.values())
        # of a table that is not complete, the launches that are
        legal = {launch for launch, count in launches.items() if count == max(launches.values())}
        self.points = {k: e for k, e in self.points.items() if json.dumps(e["launch"], sort_keys=True) in legal}
        self.truth = {
            k: math.exp(statistics.mean(math.log(r["speed"]) for r in e["runs"])) for k, e in self.points.items()
        }
        self.residuals = [
            sign * math.log(e["runs"][0]["speed"] / e["runs"][1]["speed"]) / math.sqrt(2)
            for e in self.points.values()
            if len(e["runs"]) > 1
            for sign in (1, -1)
        ] or [0.0]
        self.noise = statistics.pstdev(self.residuals)
        self.best = max(self.truth.values())
        self.good = {key for key, value in self.truth.items() if value >= SHARE * self.best}
        self.space = space_of(
            table["space"]["defaults"],
            InferenceParams(temperature=0.0, prompt_form="zero_shot"),
            lambda s: None if json.dumps(dict(s), sort_keys=True) in legal else "grid.not_measured",
            tuple(table["space"]["threads"]),
        )
        self.priors = (Guess(self.points),) if all("guess" in entry for entry in self.points.values()) else ()
        runs = [run for entry in self.points.values() for run in entry["runs"]]
        self.launch_s = statistics.median(r["launch_s"] + r["warmup_s"] for r in runs if r["launch_s"] > 0)
        self.always_launched = all(run["launch_s"] > 0 for run in runs)

    def run(self, key: str, source: random.Random) -> tuple[float, float]:
        """One trial as it might have gone: speed with the repeats' noise, and its seconds."""
        entry = self.points[key]
        slower = math.exp(source.choice(self.residuals))
        measure_s = statistics.mean(run["measure_s"] for run in entry["runs"])
        return self.truth[key] / slower, measure_s * slower

    def whole_cost(self) -> float:
        """Engine-seconds of the whole grid in the best order: no launch that could be spared."""
        launches = len(self.points)
        if not self.always_launched:
            launches = len({json.dumps(entry["launch"], sort_keys=True) for entry in self.points.values()})
        measured = sum(statistics.mean(r["measure_s"] for r in e["runs"]) for e in self.points.values())
        return launches * self.launch_s + measured

    def describe(self) -> str:
        """The table in one sentence."""
        return (
            f"{len(self.points)} points, {len(self.good)} ({100 * len(self.good) / len(self.points):.1f} %) within 5 % "
            f"of the best, noise of one run {100 * self.noise:.1f} %, launch {self.launch_s:.1f} s, "
            f"whole grid {self.whole_cost():.0f} engine-seconds"
        )


# ── who searches ───────────────────────────────────────────────────────────────────────────────────────────────────

Ask = Callable[[str | None], tuple[Configuration, Callable[[Result], object]] | None]


def ours(space: Space, method: str, seed: int, priors: Sequence[Prior] = ()) -> Ask:
    """The program's own coordinator, as in a first study on a machine."""
    coordinator = Coordinator(space, GOAL, method=method, seed=seed, priors=priors)

    def ask(running):
        proposal = coordinator.ask(running)
        if proposal is None:
            return None
        return proposal.configuration, partial(coordinator.tell, proposal.configuration)

    return ask


def plain_tpe(space: Space, seed: int) -> Ask:
    """Optuna's TPE as a user would write it: define-by-run, no idea of launches, no memory of what it asked before."""
    import optuna  # noqa: PLC0415 - only for this arm

    from llmopt.search.proposer_optuna import distribution, value_of  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    kinds: dict[str, Any] = {parameter.name: distribution(parameter) for parameter in space.parameters}
    order = sorted(space.parameters, key=lambda p: bool(p.only_if))

    def suggested(trial, name):
        choices = getattr(kinds[name], "choices", None)
        if choices is not None:
            return trial.suggest_categorical(name, choices)
        return trial.suggest_int(name, kinds[name].low, kinds[name].high)

    def told(trial, result):
        study.tell(trial, result.objectives[0])

    def ask(_running):
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trial = study.ask()
            chosen: dict[str, SettingValue] = {}
            for p in order:
                if space.active(p, chosen):
                    chosen[p.name] = value_of(p, suggested(trial, p.name))
            configuration = space.configuration(chosen)
            if space.legal(space.assignment(configuration)):
                return configuration, partial(told, trial)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)

    return ask


def plain_random(space: Space, seed: int) -> Ask:
    """Independent draws without replacement."""
    source = random.Random(f"random:{seed}")
    points = list(space.configurations())
    source.shuffle(points)
    walk = iter(points)

    def ask(_running):
        found = next(walk, None)
        return None if found is None else (found, lambda _: None)

    return ask


def searcher(grid: Grid, arm: str, seed: int) -> Ask:
    if arm == "tpe":
        return plain_tpe(grid.space, seed)
    if arm == "random":
        return plain_random(grid.space, seed)
    if arm == "blind":
        return ours(grid.space, "auto", seed)
    return ours(grid.space, arm, seed, grid.priors if arm == "auto" else ())


@dataclass(frozen=True, kw_only=True)
class Searched:
    """How one search went: when it first ran a good point, and its whole course."""

    found_s: float | None
    found_trials: int | None
    course: tuple[tuple[float, float], ...]
    """(engine-seconds so far, true speed of the best known so far as a share of the optimum) after each trial."""


def search(grid: Grid, arm: str, seed: int, *, at_least_s: float = 0.0) -> Searched:
    """Search until a good point has run, and on until ``at_least_s``; at most twice as many trials as points."""
    noise = random.Random(f"noise:{seed}")
    ask = searcher(grid, arm, seed)
    running, spent, course = None, 0.0, []
    best_seen, best_true = -math.inf, 0.0
    found_s = found_trials = None
    for number in range(1, 2 * len(grid.points) + 1):
        asked = ask(running)
        if asked is None:
            break
        configuration, tell = asked
        speed, measure_s = grid.run(configuration.key, noise)
        launched = configuration.launch_key != running
        running = None if grid.always_launched else configuration.launch_key
        spent += measure_s + (grid.launch_s if launched else 0.0)
        launch_s = grid.launch_s if launched else None
        tell(Result(outcome=Outcome.DONE, objectives=(speed,), measure_s=measure_s, launch_s=launch_s))
        if configuration.key in grid.good and found_s is None:
            found_s, found_trials = spent, number
        if speed > best_seen:
            best_seen, best_true = speed, grid.truth[configuration.key]
        course.append((spent, best_true / grid.best))
        if found_s is not None and spent >= at_least_s:
            break
    return Searched(found_s=found_s, found_trials=found_trials, course=tuple(course))
