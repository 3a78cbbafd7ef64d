"""How well leaks are told from noise: simulated series of what a device holds after each trial.

    python benchmarks/leak_watch.py --repeats 2000 --out FILE       # the tests run 60

Leaking: 8 MiB a trial, or a step of 400 MiB at trial 6, under normal noise of several sizes; counted is whether an
alarm came by trial 12. Harmless: nothing, a saw-tooth of several periods (caches filled and dropped), single spikes;
counted is whether any alarm came within 40 trials. A cache that halves its distance to its end with every trial is told
beside them and not judged: under much noise its first trials are a leak's. Exit code 1 where, at one-sided 95 %,
a detection rate of 95 % or a false-alarm rate of 1 % is rejected.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from llmopt.hardware.leak import LeakWatch
from llmopt.measure.stats.intervals import clopper_pearson

MIB = 1 << 20
SIGMAS = (0.1, 1.0, 4.0, 8.0)
LEAKS = ("leak", "step")
HARMLESS = ("flat", "saw3", "saw4", "saw5", "saw6", "saw7", "spikes")
NOT_JUDGED = ("settling",)
BY_TRIAL, LONG = 12, 40
DETECTION, FALSE_ALARM = 0.95, 0.01


def series(kind: str, count: int, source: random.Random, sigma_mib: float) -> list[float]:
    """What is held after each trial, in bytes."""
    values = [500 * MIB + source.gauss(0, sigma_mib * MIB) for _ in range(count)]
    for index in range(count):
        if kind == "leak":
            values[index] += 8 * MIB * index
        elif kind == "step" and index >= 6:
            values[index] += 400 * MIB
        elif kind.startswith("saw"):
            values[index] += (index % int(kind[3:])) * 30 * MIB
        elif kind == "spikes" and source.random() < 0.04:
            values[index] += 400 * MIB
        elif kind == "settling":
            values[index] -= 200 * MIB * 0.5**index
    return values


def alarms(kind: str, trials: int, sigma_mib: float, repeats: int) -> dict[str, Any]:
    """In how many of the series an alarm came, with the exact bounds at one-sided 95 %."""
    source = random.Random(f"{kind} {sigma_mib} {trials}")
    hits = 0
    for _ in range(repeats):
        watch = LeakWatch("device")
        hits += any(watch.add(value) for value in series(kind, trials, source, sigma_mib))
    bounds = clopper_pearson(hits, repeats, confidence=0.9)
    row = {"kind": kind, "sigma_mib": sigma_mib, "trials": trials, "alarms": hits, "n": repeats}
    return {**row, "rate": hits / repeats, "low_95": bounds.low, "high_95": bounds.high}


def main() -> int:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    leaking = [alarms(kind, BY_TRIAL, sigma, options.repeats) for kind in LEAKS for sigma in SIGMAS]
    harmless = [alarms(kind, LONG, sigma, options.repeats) for kind in HARMLESS for sigma in SIGMAS]
    beside = [alarms(kind, LONG, sigma, options.repeats) for kind in NOT_JUDGED for sigma in SIGMAS]
    missed = [f"{row['kind']} at {row['sigma_mib']}" for row in leaking if row["high_95"] < DETECTION]
    missed += [f"{row['kind']} at {row['sigma_mib']}" for row in harmless if row["low_95"] > FALSE_ALARM]
    result = {
        "worst_detection": min(row["rate"] for row in leaking),
        "worst_false_alarm": max(row["rate"] for row in harmless),
        "leaking": leaking,
        "harmless": harmless,
        "not_judged": beside,
        "missed": missed,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
