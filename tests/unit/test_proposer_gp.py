"""The Gaussian proposer: right priors help, wrong ones are survived, limits and prices are heeded."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from llmopt.objective import pareto_front, parse_objectives
from llmopt.records import InferenceParams, Outcome, Parameter
from llmopt.search.coordinator import Coordinator
from llmopt.search.features import Candidates, Encoder, Pool
from llmopt.search.proposer import Costs, Prediction, Result
from llmopt.search.proposer_gp import GaussianProposer
from llmopt.search.space import Space

SPEED = parse_objectives("answers_per_minute")


def make_space() -> Space:
    return Space(
        [
            Parameter(name="threads", level="launch", values=(1, 2, 4, 8, 16, 32), ordinal=True),
            Parameter(name="slots", level="launch", values=(1, 2, 4, 8, 16, 32), ordinal=True),
            Parameter(name="kv", level="launch", values=("f16", "q8_0", "q4_0")),
            Parameter(name="top_k", level="request", values=(1, 10, 100), ordinal=True),
        ],
        engine="fake",
    )


def speed(c) -> float:
    """A ridge with its best at threads 8, slots 16, q8_0."""
    a, b = math.log2(c.launch["threads"]), math.log2(c.launch["slots"])
    kv = {"f16": 0.0, "q8_0": 0.3, "q4_0": 0.1}[c.launch["kv"]]
    return 10 * math.exp(-0.15 * (a - 3) ** 2 - 0.1 * (b - 4) ** 2 + kv - 0.02 * math.log(c.request.top_k))


class Prior:
    def __init__(self, figure, fits=None, violations=None):
        self.figure, self.fits, self.violations = figure, fits, violations

    def predict(self, c):
        return Prediction(
            objectives=(self.figure(c),),
            spread=(0.3,),
            fits=self.fits(c) if self.fits else 1.0,
            violations=self.violations(c) if self.violations else None,
        )


BEST = max(speed(c) for c in make_space().configurations())


def trials_to_best(method, seed, priors=(), share=0.95, noise=0.03, most=60) -> int:  # noqa: PLR0917 - a helper
    source = random.Random(seed)
    coordinator = Coordinator(make_space(), SPEED, method=method, seed=seed, priors=priors)
    for n in range(1, most + 1):
        c = coordinator.ask().configuration
        if speed(c) >= share * BEST:
            return n
        coordinator.tell(c, Result(outcome=Outcome.DONE, objectives=(speed(c) * math.exp(source.gauss(0, noise)),)))
    return most


def mean_trials(method, priors=lambda seed: (), seeds=8) -> float:
    return statistics.mean(trials_to_best(method, seed, priors(seed)) for seed in range(seeds))


def rough(c) -> float:
    """A prediction with wrong constants: too fond of threads, blind for kv and top_k."""
    a, b = math.log2(c.launch["threads"]), math.log2(c.launch["slots"])
    return 3 * math.exp(-0.12 * (a - 3.6) ** 2 - 0.08 * (b - 3.6) ** 2)


def test_it_learns_faster_than_chance_and_a_rough_prior_helps_more():
    chance, alone, helped = mean_trials("random"), mean_trials("gp"), mean_trials("gp", lambda seed: (Prior(rough),))
    assert alone < 0.7 * chance
    assert helped < alone


def test_what_nobody_expects_a_gain_from_is_left_at_its_default():
    space = Space(
        make_space().parameters, engine="fake",
        defaults={"threads": 1, "slots": 1, "kv": "q4_0"}, request_defaults=InferenceParams(top_k=10),
    )  # fmt: skip
    for seed in range(5):
        first = Coordinator(space, SPEED, seed=seed, priors=[Prior(rough)]).ask().configuration
        assert (first.launch["kv"], first.request.top_k) == ("q4_0", 10)
        assert first.launch["threads"] > 1, "what is believed to gain is changed"


def scrambled(seed):
    def figure(c):
        return math.exp(random.Random(f"{seed}{c.key}").gauss(0, 1.0))

    return figure


def test_a_scrambled_prior_is_survived():
    wrong = mean_trials("gp", lambda seed: (Prior(scrambled(seed)),), seeds=10)
    assert wrong < mean_trials("random", seeds=10)


def test_every_fourth_proposal_knows_nothing_of_the_prior():
    class Counting(Prior):
        asked = 0

        def predict(self, c):
            self.asked += 1
            return super().predict(c)

    prior = Counting(rough)
    coordinator = Coordinator(make_space(), SPEED, method="gp", priors=(prior,))
    used = []
    for _ in range(12):
        coordinator._proposer._forecasts._known.clear()
        prior.asked = 0
        c = coordinator.ask().configuration
        used.append(prior.asked > 0)
        coordinator.tell(c, Result(outcome=Outcome.DONE, objectives=(speed(c),)))
    assert used == [True, True, True, False] * 3


def test_what_is_predicted_not_to_fit_is_left_for_last():
    prior = Prior(lambda c: c.launch["slots"], fits=lambda c: 0.01 if c.launch["slots"] > 8 else 0.99)
    coordinator = Coordinator(make_space(), SPEED, method="gp", priors=(prior,))
    slots = []
    for _ in range(20):
        c = coordinator.ask().configuration
        slots.append(c.launch["slots"])
        fits = c.launch["slots"] <= 8
        coordinator.tell(
            c, Result(outcome=Outcome.DONE if fits else Outcome.INFEASIBLE, objectives=(1.0,) if fits else None)
        )
    assert sum(s > 8 for i, s in enumerate(slots) if i % 4 != 3) <= 1


def test_a_limit_is_heeded():
    """The fastest configurations break the limit; most later trials stay inside it and the best allowed one is found."""
    allowed = [c for c in make_space().configurations() if c.launch["slots"] <= 4]
    best = max(map(speed, allowed))
    found, broken = [], 0
    for seed in range(4):
        coordinator = Coordinator(make_space(), SPEED, method="gp", limits=["memory<2GB"], seed=seed)
        top = 0.0
        for n in range(40):
            c = coordinator.ask().configuration
            violation = c.launch["slots"] / 4 - 1
            broken += n >= 10 and violation > 0
            top = max(top, speed(c) if violation <= 0 else 0.0)
            coordinator.tell(c, Result(outcome=Outcome.DONE, objectives=(speed(c),), violations=(violation,)))
        found.append(top / best)
    assert min(found) > 0.9
    assert broken / (4 * 30) < 0.4  # chance is one half


def test_a_predicted_limit_is_heeded_from_the_first_trial():
    prior = Prior(rough, violations=lambda c: (c.launch["slots"] / 4 - 1,))
    coordinator = Coordinator(make_space(), SPEED, method="gp", limits=["memory<2GB"], priors=(prior,))
    for _ in range(3):
        c = coordinator.ask().configuration
        assert c.launch["slots"] <= 4
        coordinator.tell(
            c, Result(outcome=Outcome.DONE, objectives=(speed(c),), violations=(c.launch["slots"] / 4 - 1,))
        )


def seconds_to_best(costs: Costs, heed: bool, seed: int) -> float:
    coordinator, running, spent = Coordinator(make_space(), SPEED, method="gp", seed=seed), None, 0.0
    for _ in range(60):
        proposal = coordinator.ask(running, costs=costs if heed else Costs(launch_s=1e-6, measure_s=1.0))
        key = proposal.configuration.launch_key
        spent += costs.measure_s + costs.launch_s * (key != running)
        running = key
        if speed(proposal.configuration) >= 0.97 * BEST:
            break
        coordinator.tell(
            proposal.configuration, Result(outcome=Outcome.DONE, objectives=(speed(proposal.configuration),))
        )
    return spent


def test_knowing_the_price_costs_nothing_where_it_does_not_matter():
    """Where a restart is cheap, weighing seconds changes little."""
    cheap = Costs(launch_s=0.1, measure_s=10.0)
    heeded = statistics.mean(seconds_to_best(cheap, True, seed) for seed in range(5))
    ignored = statistics.mean(seconds_to_best(cheap, False, seed) for seed in range(5))
    assert heeded < 1.5 * ignored


def test_several_at_once_are_spread():
    launches = []
    for seed in range(6):
        coordinator = Coordinator(make_space(), SPEED, method="gp", seed=seed)
        for _ in range(8):
            c = coordinator.ask().configuration
            coordinator.tell(c, Result(outcome=Outcome.DONE, objectives=(speed(c),)))
        launches.append(len({coordinator.ask().configuration.launch_key for _ in range(4)}))
    assert statistics.mean(launches) >= 2.5


@pytest.mark.parametrize(("objectives", "stays"), [("answers_per_minute", True), ("answers_per_minute,memory", False)])
def test_one_goal_knows_the_price_of_a_launch_from_its_second_trial_on_and_trade_offs_are_spread(objectives, stays):
    goal = parse_objectives(objectives)
    coordinator = Coordinator(make_space(), goal, method="gp")
    first = coordinator.ask().configuration
    coordinator.tell(first, Result(outcome=Outcome.DONE, objectives=(1.0,) * len(goal), launch_s=60.0, measure_s=1.0))
    second = coordinator.ask(first.launch_key).configuration
    assert (second.launch_key == first.launch_key) == stays


def test_the_expected_gain_falls_as_the_search_comes_to_an_end():
    coordinator = Coordinator(make_space(), SPEED, method="gp", seed=2)
    assert coordinator.expected_gain is None
    gains = []
    for _ in range(40):
        c = coordinator.ask().configuration
        coordinator.tell(c, Result(outcome=Outcome.DONE, objectives=(speed(c),)))
        gains.append(coordinator.expected_gain)
    known = [gain for gain in gains if gain is not None]
    assert statistics.mean(known[-5:]) < 0.2 * max(known[:10])
    assert Coordinator(make_space(), SPEED, method="random").expected_gain is None


def test_sizes_are_encoded_by_their_logarithm_and_words_by_place():
    space = Space(
        [
            Parameter(name="size", level="launch", values=(1, 2, 4, 16), ordinal=True),
            Parameter(name="few", level="launch", values=(1, 2, 3), ordinal=True),
            Parameter(name="mixed", level="launch", values=("auto", 1, 2), ordinal=True),
            Parameter(name="kind", level="launch", values=("a", "b", "c")),
            Parameter(name="flag", level="launch", values=(True, False)),
            Parameter(name="temperature", level="request", low=0.0, high=2.0),
        ],
        engine="fake",
    )
    encoder = Encoder(space)
    c = space.configuration({"size": 4, "few": 2, "mixed": 1, "kind": "c", "flag": False, "temperature": 0.5})
    assert encoder.row(c) == pytest.approx([0.5, 0.5, 0.5, 2.0, 1.0, 0.25])
    assert encoder.unordered == (False, False, False, True, True, False)


def test_large_spaces_are_sampled_around_the_best():
    space = Space(
        [Parameter(name=f"p{i}", level="launch", low=0.0, high=1.0) for i in range(6)],
        engine="fake",
        conflict=lambda s: "rule" if s.get("p0", 0) > 0.9 else None,
    )
    best = space.configuration({f"p{i}": 0.5 for i in range(6)})
    pool = Candidates(space, Encoder(space)).choose(random.Random(1), seen=lambda c: False, around=[best])
    assert len(pool) >= 400
    assert all(space.problem(c) is None for c in pool.configurations)
    near = [c for c in pool.configurations if sum(c.launch[f"p{i}"] != 0.5 for i in range(6)) <= 2]
    assert len(near) > 15


def test_a_measurement_is_expected_to_take_as_long_as_its_rate_says():
    proposer = GaussianProposer(make_space(), SPEED, seed=1)
    everything = sorted(make_space().configurations(), key=speed)
    for c in everything[:: len(everything) // 40]:
        proposer.learn(c, Result(outcome=Outcome.DONE, objectives=(speed(c),)))
    ends = [everything[0], everything[-1]]
    pool = Pool(configurations=ends, rows=Encoder(make_space()).rows(ends))
    slowest, fastest = proposer._pace(proposer._plain.outlook(pool, proposer._observed()))
    assert fastest < 0.5
    assert slowest > 1.5

    quality = GaussianProposer(make_space(), parse_objectives("quality"), seed=1)
    quality.learn(ends[0], Result(outcome=Outcome.DONE, objectives=(0.5,)))
    assert list(quality._pace(quality._plain.outlook(pool, quality._observed()))) == [1.0, 1.0]


def test_the_first_trials_are_spread_over_the_predicted_front():
    goals = parse_objectives("quality,answers_per_minute")

    def figures(c):
        quality = {1: 0.9, 10: 0.7, 100: 0.4}[c.request.top_k] - 0.01 * math.log2(c.launch["threads"])
        return quality, speed(c) * c.request.top_k**0.3

    class Both:
        def predict(self, c):
            return Prediction(objectives=figures(c), spread=(0.05, 0.1))

    space = make_space()
    coordinator = Coordinator(space, goals, seed=1, priors=[Both()])
    front = pareto_front([figures(c) for c in space.configurations()], goals)
    best = {list(space.configurations())[i].key for i in front}
    first = []
    for _ in range(3):  # the fourth is the sampler's that knows nothing of predictions
        c = coordinator.ask().configuration
        first.append(c)
        coordinator.tell(c, Result(outcome=Outcome.DONE, objectives=figures(c)))
    assert sum(c.key in best for c in first) >= 2
    assert len({c.request.top_k for c in first}) >= 2
