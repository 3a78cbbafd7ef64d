"""A synthetic serving problem with two objectives, noise and a memory limit: how much of the true front 20 trials find.

    python benchmarks/search_synthetic.py [--seeds 10] [--trials 50] [--methods …] [--out synthetic.json]

A 70-billion-parameter model on eight 80 GB devices; about 3,000 configurations of weight bits, cache bits, tensor
parallelism, slots and prefill chunk. Throughput is maximised, time per token minimised, both with 3 % noise; what needs
more memory than there is fails. The prediction has wrong efficiencies, ignores every fixed cost and 2 GB of the memory.
Counted are the share of the true front's hypervolume found after n trials, and the launches that ran out of memory.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from pathlib import Path

import numpy as np

from llmopt.objective import parse_objectives
from llmopt.records import Outcome, Parameter
from llmopt.search.acquisition import hypervolume
from llmopt.search.coordinator import Coordinator
from llmopt.search.proposer import Prediction, Prior, Result
from llmopt.search.space import Space

GOALS = parse_objectives("tokens_per_s,tpot_p50")
METHODS = ("random", "nsga2", "tpe", "gp", "auto", "scrambled")
CHECKPOINTS = (10, 20, 30, 50)
DEVICE_GB, PARAMETERS, LAYERS, HIDDEN, KV_HEADS, HEAD = 80.0, 70e9, 80, 8192, 8, 128
PROMPT, ANSWER = 1024, 256


def space() -> Space:
    return Space(
        [
            Parameter(name="bits", level="launch", values=(4, 8, 16), ordinal=True),
            Parameter(name="kv_bits", level="launch", values=(8, 16), ordinal=True),
            Parameter(name="tp", level="launch", values=(1, 2, 4, 8), ordinal=True),
            Parameter(name="slots", level="launch", values=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512), ordinal=True),
            Parameter(name="chunk", level="launch", values=(512, 1024, 2048, 4096, 8192), ordinal=True),
            Parameter(name="graphs", level="launch", values=(True, False)),
        ],
        engine="synthetic",
    )


def memory_gb(s, *, fixed_gb: float) -> float:
    weights = PARAMETERS * s["bits"] / 8 / s["tp"]
    cache = 2 * LAYERS * KV_HEADS * HEAD * s["kv_bits"] / 8 * (PROMPT + ANSWER) * s["slots"] / s["tp"]
    work = 12 * s["chunk"] * HIDDEN * 2 / s["tp"] ** 0.5
    return (weights + cache + work) / 1e9 + fixed_gb + (1.5 if s["graphs"] and fixed_gb else 0.0)


def figures(s, *, bandwidth: float, arithmetic: float, fixed_s: float) -> tuple[float, float]:
    """Tokens per second of the eight devices, and milliseconds per token."""
    peak_bytes, peak_flops = 3.35e12 * bandwidth, 9.9e14 * arithmetic * (1.6 if s["bits"] == 8 else 1.0)
    moved = PARAMETERS * s["bits"] / 8 / s["tp"]
    moved += 2 * LAYERS * KV_HEADS * HEAD * s["kv_bits"] / 8 * (PROMPT + ANSWER / 2) * s["slots"] / s["tp"]
    computed = 2 * PARAMETERS * s["slots"] / s["tp"] * (1.15 if s["bits"] == 4 else 1.0)
    step = max(moved / peak_bytes, computed / peak_flops)
    step += fixed_s * LAYERS * (0.3 if s["graphs"] else 1.0) + (LAYERS * 2 * fixed_s * 0.4 if s["tp"] > 1 else 0.0)
    prefill = 2 * PARAMETERS * PROMPT / s["tp"] / peak_flops
    chunks = PROMPT / s["chunk"]
    mixed = (s["slots"] - 1) / ANSWER * prefill * (1 + 0.15 * abs(math.log2(max(chunks, 0.1))))
    token = step + mixed
    return 8 / s["tp"] * s["slots"] / token, 1000 * token


def true_figures(s) -> tuple[float, float]:
    return figures(s, bandwidth=0.62, arithmetic=0.42, fixed_s=25e-6)


def true_memory(s) -> float:
    return memory_gb(s, fixed_gb=2.0)


class WrongPrior:
    """The same physics with wrong constants; ``dealt`` gives the predictions to other configurations."""

    def __init__(self, dealt: dict[str, dict] | None = None) -> None:
        self.dealt = dealt

    def predict(self, configuration) -> Prediction:
        s = self.dealt[configuration.key] if self.dealt else configuration.launch
        margin = (DEVICE_GB * 0.95 - memory_gb(s, fixed_gb=0.0)) / (0.03 * DEVICE_GB)
        fits = 0.5 * (1 + math.erf(margin / math.sqrt(2)))
        return Prediction(
            objectives=figures(s, bandwidth=0.8, arithmetic=0.6, fixed_s=0.0), spread=(0.35, 0.35), fits=fits
        )


class Problem:
    def __init__(self) -> None:
        self.space = space()
        self.configurations = list(self.space.configurations())
        fit = [c for c in self.configurations if true_memory(c.launch) <= DEVICE_GB]
        self.gains = {c.key: self.gain(true_figures(c.launch)) for c in fit}
        everything = np.array(list(self.gains.values()))
        self.low, self.high = np.quantile(everything, 0.1, axis=0), everything.max(axis=0)
        self.whole = self.volume(everything)

    @staticmethod
    def gain(values: tuple[float, float]) -> tuple[float, float]:
        return math.log(values[0]), -math.log(values[1])

    def volume(self, gains: np.ndarray) -> float:
        return hypervolume((gains - self.low) / (self.high - self.low), np.zeros(2))


def run(problem: Problem, method: str, seed: int, trials: int) -> tuple[list[float], int]:
    """The share of the true hypervolume after each trial, and how many launches ran out of memory."""
    noise = random.Random(f"noise:{seed}")
    priors: tuple[Prior, ...] = ()
    if method in ("auto", "scrambled"):
        dealt = None
        if method == "scrambled":
            others = [dict(c.launch) for c in problem.configurations]
            random.Random(f"scrambled:{seed}").shuffle(others)
            dealt = {c.key: s for c, s in zip(problem.configurations, others, strict=True)}
        priors = (WrongPrior(dealt),)
    name = "gp" if method in ("auto", "scrambled") else method
    coordinator = Coordinator(problem.space, GOALS, method=name, seed=seed, priors=priors)
    found, shares, died = [], [], 0
    for _ in range(trials):
        proposal = coordinator.ask()
        assert proposal is not None
        c = proposal.configuration
        if c.key in problem.gains:
            tokens, ms = true_figures(c.launch)
            seen = (tokens * math.exp(noise.gauss(0, 0.03)), ms * math.exp(noise.gauss(0, 0.03)))
            coordinator.tell(c, Result(outcome=Outcome.DONE, objectives=seen))
            found.append(problem.gains[c.key])
        else:
            died += 1
            coordinator.tell(c, Result(outcome=Outcome.INFEASIBLE))
        shares.append(problem.volume(np.array(found)) / problem.whole if found else 0.0)
    return shares, died


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    problem = Problem()
    fitting = len(problem.gains) / len(problem.configurations)
    print(f"{len(problem.configurations)} configurations, {100 * fitting:.0f} % of them fit")
    print("method      " + "".join(f"  @{n:<5}" for n in CHECKPOINTS if n <= given.trials) + "out of memory in 100")
    raw = {}
    for method in given.methods:
        began = time.monotonic()
        runs = [run(problem, method, seed, given.trials) for seed in range(given.seeds)]
        raw[method] = [{"share": shares, "out_of_memory": died} for shares, died in runs]
        line = f"{method:12}"
        for n in CHECKPOINTS:
            if n <= given.trials:
                line += f"  {statistics.mean(shares[n - 1] for shares, _ in runs):.3f} "
        died = 100 * statistics.mean(d for _, d in runs) / given.trials
        print(f"{line}  {died:.1f}   [{time.monotonic() - began:.0f} s]", flush=True)
    if given.out:
        given.out.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
