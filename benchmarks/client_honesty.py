"""Does the tool call identical things different, and does it find a difference that is there?

    python benchmarks/client_honesty.py                              (simulated, a minute)
    python benchmarks/client_honesty.py --real --model smollm2-135m  (30 real A/A comparisons, about 40 minutes;
                                                                     a run that was cut goes on)

Simulated: 200 comparisons of equal configurations, and 200 with a true difference of twice the noise floor; speed over
four launch pairs, quality over 120 items in 40 templates. Real: every comparison launches the same engine eight times
in ABBA order. At most 5 % may be called different (by an exact one-sided 95 % test: at most 15 of 200, 4 of 30).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from client_common import ROOT, machine, save, table

from llmopt.engines.launch import launch
from llmopt.engines.registry import get_engine
from llmopt.hardware.probe import probe
from llmopt.measure.calibrate import noise_from
from llmopt.measure.client import Client, run
from llmopt.measure.load import drive
from llmopt.measure.metrics import speed
from llmopt.measure.stats.paired import abba
from llmopt.measure.stats.special import t_quantile
from llmopt.measure.stats.verdicts import quality_verdict, speed_verdict
from llmopt.measure.warmup import WarmUpRule, warm_up
from llmopt.models.catalogue import find_model
from llmopt.models.metadata import read_model
from llmopt.models.weights import ensure_weights
from llmopt.paths import Workspace
from llmopt.records import InferenceParams, Load, Request, Task, Verdict, VerdictKind
from llmopt.runtime.guardian import Guardian

PAIRS = 4
DIFFERENT = (VerdictKind.BETTER, VerdictKind.WORSE)
ROUNDS = 200
WARM = WarmUpRule(requests=4, seconds=1.0, cap_s=5.0, span_s=1.0, drift=0.3, spread=0.5)


def simulated_speed(rng: random.Random, ratio: float, between: float = 0.04, drift: float = 0.005) -> Verdict:
    """Launches that differ by 4 % and a machine that drifts."""
    sides: dict[str, list[float]] = {"A": [], "B": []}
    for place, side in enumerate(abba(PAIRS)):
        value = 100 * math.exp(rng.gauss(0, between) + drift * place) * (ratio if side == "A" else 1.0)
        sides[side].append(value)
    return speed_verdict(sides["A"], sides["B"])


def simulated_quality(rng: random.Random, gain: float) -> Verdict:
    """120 items in 40 templates of different difficulty, both asked at temperature: independent answers."""
    clusters = {f"q{k}": f"t{k // 3}" for k in range(120)}
    chance = {f"t{k}": rng.uniform(0.2, 0.8) for k in range(40)}
    a = {item: float(rng.random() < chance[template] + gain) for item, template in clusters.items()}
    b = {item: float(rng.random() < chance[template]) for item, template in clusters.items()}
    return quality_verdict(a, b, clusters=clusters)


def simulate() -> dict[str, Any]:
    """How many of ROUNDS are called different, by kind and by truth."""
    floor = t_quantile(0.975, PAIRS - 1) * 0.04 * math.sqrt(2 / PAIRS)
    spread = math.sqrt(2 * 0.21)  # of the difference of two independent answers
    quality_floor = 1.96 * spread / math.sqrt(120)
    cases: dict[str, Callable[[random.Random], Verdict]] = {
        "speed, equal": lambda rng: simulated_speed(rng, 1.0),
        "speed, twice the floor": lambda rng: simulated_speed(rng, math.exp(2 * floor)),
        "quality, equal": lambda rng: simulated_quality(rng, 0.0),
        "quality, twice the floor": lambda rng: simulated_quality(rng, 2 * quality_floor),
    }
    found = {}
    for name, case in cases.items():
        kinds = [case(random.Random(f"{name} {k}")).kind for k in range(ROUNDS)]
        found[name] = {"different": sum(kind in DIFFERENT for kind in kinds), "of": ROUNDS}
    return found


class Launches:
    """The same engine with the same settings, started again for every value."""

    def __init__(self, options: argparse.Namespace) -> None:
        workspace = Workspace.here()
        path = Path(options.model)
        weights = path if path.exists() else ensure_weights(find_model(options.model, workspace), workspace=workspace)
        self.engine = get_engine(options.engine)
        self.model = read_model(weights)
        self.load = Load(streams=options.streams)
        task = Task(load=self.load, max_tokens=options.tokens, prompt_tokens=64)
        hardware = probe()
        self.settings = dict(self.engine.baseline(self.model, hardware, task)) | {"threads": 1}
        self.hardware = hardware.fingerprint
        params = InferenceParams(temperature=0.0, max_tokens=options.tokens, seed=1)
        extra = {**self.engine.request_extra(self.settings), "ignore_eos": True}
        texts = [f"Count from {k} to {k + 9}." for k in range(options.requests)]
        self.requests = [
            Request(item_id=str(k), messages=[{"role": "user", "content": text}], params=params, extra=extra)
            for k, text in enumerate(texts)
        ]

    async def value(self, folder: Path) -> float:
        """Answers per minute of one fresh launch."""
        async with (
            launch(self.engine, self.model, self.settings, guardian=Guardian.shared(), run_root=folder) as running,
            Client(running.endpoint, timeout_s=120) as client,
        ):
            await warm_up(client, self.requests, self.load, rule=WARM)
            measured = await drive(client, self.requests, self.load)
        return speed(measured)["answers_per_minute"].value


async def real(options: argparse.Namespace, content: dict[str, Any]) -> None:
    """A/A comparisons of real launches, into ``content`` and its file one by one."""
    launches = Launches(options)
    settings = json.loads(json.dumps(launches.settings))
    found = content.get("real") or {}
    same = found.get("settings") == settings and found.get("hardware") == launches.hardware
    rows: list[dict[str, Any]] = list(found["comparisons"]) if same else []
    with tempfile.TemporaryDirectory(prefix="llmopt-aa-") as folder:
        for number in range(len(rows), options.comparisons):
            load = os.getloadavg()[0]
            sides: dict[str, list[float]] = {"A": [], "B": []}
            for side in abba(PAIRS):
                sides[side].append(await launches.value(Path(folder)))
            verdict = speed_verdict(sides["A"], sides["B"])
            effect = verdict.effect
            row = {"kind": verdict.kind.value, "ratio": effect.value, "low": effect.low, "high": effect.high}
            rows.append({**sides, **row, "load_average_before": load})
            print(number, rows[-1], flush=True)
            content["real"] = summary(rows, options.requests) | {"settings": settings, "hardware": launches.hardware}
            save(options.out, content)


def in_order() -> list[tuple[int, str]]:
    """(place in its side, side) of every launch of one comparison, as they were made."""
    sides = abba(PAIRS)
    return [(sides[:k].count(side), side) for k, side in enumerate(sides)]


def summary(rows: Sequence[dict[str, Any]], requests: int) -> dict[str, Any]:
    """How many were called different, and what four pairs can resolve by the spread of all launches."""
    values = [row[side][place] for row in rows for place, side in in_order()]
    floor = noise_from(values, objective="answers_per_minute", requests=requests)
    different = sum(row["kind"] in {kind.value for kind in DIFFERENT} for row in rows)
    return {
        "comparisons": list(rows), "different": different, "of": len(rows), "spread_of_a_pair": floor.spread,
        "resolves_with_4_pairs": floor.resolves(PAIRS),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--engine", default="llamacpp")
    parser.add_argument("--model", default="smollm2-135m", help="a model of the catalogue, or a file")
    parser.add_argument("--comparisons", type=int, default=30)
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measurements" / "client" / "honesty.json")
    given = parser.parse_args()
    earlier = json.loads(given.out.read_text()) if given.out.exists() else {}
    content: dict[str, Any] = {**machine(), "pairs": PAIRS, "simulated": simulate()}
    content |= {"real": earlier["real"]} if "real" in earlier else {}
    print(
        table(
            ["simulated", "called different", "of"],
            [[n, c["different"], c["of"]] for n, c in content["simulated"].items()],
        )
    )
    save(given.out, content)
    if given.real:
        run(real(given, content), loop_factory=asyncio.new_event_loop)
        print(f"real A/A: {content['real']['different']} of {content['real']['of']} called different")
