"""What the search's decisions cost and how often they err: racing, and winners that are or are not real.

    python benchmarks/search_decisions.py [--races 100] [--studies 200] [--out decisions.json]

*Racing*: 400 items in 40 templates of different difficulty; half of the candidates 20 points worse, a third 10, the
rest 0 to 5; judged at the rungs a study uses. *Winners*: 24 configurations searched by ``auto`` with a trial each and
noise of 2 % from launch to launch, then the best against the baseline in four pairs of fresh launches. All equal: how
often is a winner claimed? One better by twice the noise floor (95 % range of a launch pair): how often is it found?
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path

from llmopt.measure.stats.verdicts import speed_verdict
from llmopt.objective import parse_objectives
from llmopt.records import Outcome, Parameter, VerdictKind
from llmopt.search.coordinator import Coordinator
from llmopt.search.proposer import Result
from llmopt.search.racing import Answers, Race, rungs
from llmopt.search.space import Space

GOAL = parse_objectives("answers_per_minute")
NOISE = 0.02
FLOOR = 1.96 * math.sqrt(2) * NOISE
PAIRS, TRIALS, ITEMS = 4, 24, 400


def answers(source: random.Random, difficulty: list[float], gap: float) -> list[float]:
    return [float(source.random() < max(min(d - gap, 1.0), 0.0)) for d in difficulty]


def scored(values: list[float]) -> Answers:
    return Answers(quality={f"i{k}": v for k, v in enumerate(values)})


def races(seeds: int, candidates: int = 12) -> dict:
    used = full = equal = dropped = 0
    for seed in range(seeds):
        source = random.Random(seed)
        levels = [source.betavariate(3, 2) for _ in range(40)]
        difficulty = [min(max(source.gauss(levels[k % 40], 0.2), 0.02), 0.98) for k in range(ITEMS)]
        incumbent = answers(source, difficulty, 0.0)
        gaps = [0.20] * (candidates // 2) + [0.10] * (candidates // 3)
        gaps += [source.uniform(0, 0.05) for _ in range(candidates - len(gaps))]
        for gap in [*gaps, 0.0, 0.0]:
            mine, race = answers(source, difficulty, gap), Race()
            stop = next(
                (n for n in rungs(ITEMS)[:-1] if race.judge(scored(mine[:n]), [scored(incumbent[:n])]).drop), ITEMS
            )
            if gap:
                used, full = used + stop, full + ITEMS
            else:
                equal, dropped = equal + 1, dropped + (stop < ITEMS)
    return {"answers_used": used / full, "equal_candidates": equal, "equal_dropped": dropped}


def study(seed: int, gain: float) -> tuple[bool, bool]:
    """Whether a winner is claimed, and whether it is the one that is better."""
    source = random.Random(f"study:{seed}:{gain}")
    space = Space(
        [
            Parameter(name="threads", level="launch", values=(1, 2, 4, 8), ordinal=True),
            Parameter(name="slots", level="launch", values=(1, 2, 4), ordinal=True),
            Parameter(name="kv", level="launch", values=("f16", "q8_0")),
        ],
        engine="none",
    )
    everything = list(space.configurations())
    baseline, better = source.sample(everything, 2)
    coordinator = Coordinator(space, GOAL, method="auto", seed=seed)

    def measured(configuration) -> float:
        truth = 100.0 * (1.0 + gain if configuration.key == better.key else 1.0)
        return truth * math.exp(source.gauss(0, NOISE))

    best, best_speed = baseline, measured(baseline)
    coordinator.tell(baseline, Result(outcome=Outcome.DONE, objectives=(best_speed,), launch_s=3.0, measure_s=5.0))
    for _ in range(TRIALS - 1):
        proposal = coordinator.ask()
        if proposal is None:
            break
        speed = measured(proposal.configuration)
        result = Result(outcome=Outcome.DONE, objectives=(speed,), launch_s=3.0, measure_s=5.0)
        coordinator.tell(proposal.configuration, result)
        if speed > best_speed:
            best, best_speed = proposal.configuration, speed
    if best.key == baseline.key:
        return False, False
    pairs = [(measured(best), measured(baseline)) for _ in range(PAIRS)]
    verdict = speed_verdict([a for a, _ in pairs], [b for _, b in pairs])
    claimed = verdict.kind is VerdictKind.BETTER
    return claimed, claimed and best.key == better.key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    raced = races(given.races)
    print(
        f"racing: {100 * raced['answers_used']:.1f} % of the answers of a full evaluation; "
        f"{raced['equal_dropped']} of {raced['equal_candidates']} equal candidates dropped",
        flush=True,
    )
    false = sum(study(seed, 0.0)[0] for seed in range(given.studies))
    found = sum(study(seed, 2 * FLOOR)[1] for seed in range(given.studies))
    print(f"all equal: a winner claimed in {false} of {given.studies}", flush=True)
    print(f"one better by {200 * FLOOR:.0f} % (twice the noise floor): found in {found} of {given.studies}", flush=True)
    if given.out:
        figures = {"racing": raced, "studies": given.studies, "false_winners": false, "found": found, "floor": FLOOR}
        given.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
