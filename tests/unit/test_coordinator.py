"""The coordinator: order, no repetition, restarts spared, resume; for every method."""

from __future__ import annotations

import itertools
import math

import pytest

from llmopt.errors import UsageError
from llmopt.objective import parse_objectives
from llmopt.records import InferenceParams, Outcome, Parameter
from llmopt.search.coordinator import METHODS, Coordinator
from llmopt.search.proposer import Costs, PastTrial, Proposal, Result
from llmopt.search.space import Space

ONE = parse_objectives("answers_per_minute")
TWO = parse_objectives("quality,answers_per_minute")


def make_space(conflict=None) -> Space:
    return Space(
        [
            Parameter(name="threads", level="launch", values=(1, 2, 4, 8), ordinal=True),
            Parameter(name="flash", level="launch", values=("on", "off")),
            Parameter(name="kv", level="launch", values=("f16", "q8_0"), only_if={"flash": ("on",)}),
            Parameter(name="temperature", level="request", values=(0.0, 0.5, 1.0), ordinal=True),
            Parameter(name="top_k", level="request", values=(1, 10), ordinal=True),
        ],
        engine="fake",
        defaults={"threads": 1, "flash": "off", "kv": "f16"},
        conflict=conflict,
    )


SIZE = 4 * 3 * 6


def score(configuration) -> float:
    launch, request = configuration.launch, configuration.request
    return -abs(math.log2(launch["threads"]) - 1) + (launch["kv"] == "q8_0") - (request.temperature or 0.0)


def result(configuration, goals=ONE, **changes) -> Result:
    values = {"outcome": Outcome.DONE, "objectives": (score(configuration),) * len(goals), **changes}
    return Result(**values)


def run(coordinator, trials, objectives=ONE):
    found, running = [], None
    for _ in range(trials):
        proposal = coordinator.ask(running)
        if proposal is None:
            break
        running = proposal.configuration.launch_key
        coordinator.tell(proposal.configuration, result(proposal.configuration, objectives))
        found.append(proposal)
    return found


@pytest.mark.parametrize("objectives", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_proposes_each_configuration_once_and_then_stops(method, objectives):
    found = run(Coordinator(make_space(), objectives, method=method, seed=3), SIZE + 5, objectives)
    assert len({p.configuration.key for p in found}) == len(found) == SIZE


@pytest.mark.parametrize("method", METHODS)
def test_nothing_illegal_is_proposed(method):
    space = make_space(conflict=lambda s: "rule" if s["threads"] == 8 or s["kv"] == "q8_0" else None)
    found = run(Coordinator(space, ONE, method=method), 40)
    assert len(found) == 3 * 2 * 6
    assert all(space.problem(p.configuration) is None for p in found)


def test_an_unknown_method_is_a_usage_error():
    with pytest.raises(UsageError) as caught:
        Coordinator(make_space(), ONE, method="bayes")
    assert "tpe" in caught.value.next_step


def enqueued(space, origin, **assignment) -> Proposal:
    return Proposal(configuration=space.configuration(assignment), origin=origin)


def test_enqueued_configurations_go_first_without_restarts_between_and_illegal_ones_are_named():
    space = make_space(conflict=lambda s: "rule" if s["threads"] == 8 else None)
    first = [
        enqueued(space, "baseline", threads=1, temperature=0.0, top_k=1),
        enqueued(space, "preset", threads=4, temperature=0.0, top_k=1),
        enqueued(space, "preset", threads=1, temperature=0.5, top_k=1),
        enqueued(space, "preset", threads=8, temperature=0.5, top_k=1),
        enqueued(space, "preset", threads=1, temperature=0.5, top_k=1),
    ]
    coordinator = Coordinator(space, ONE, method="random", first=first)
    assert [p.configuration for p in coordinator.skipped] == [first[3].configuration]
    found = run(coordinator, 4)
    assert [p.configuration for p in found[:3]] == [first[i].configuration for i in (0, 2, 1)]
    assert [p.position for p in found] == [None, None, None, 0]
    assert found[3].origin == "random"


@pytest.mark.parametrize("method", ["random", "grid"])
@pytest.mark.parametrize("stop", [1, 4, 11])
def test_random_and_grid_continue_as_if_never_interrupted(method, stop):
    first = [enqueued(make_space(), "baseline", threads=2, temperature=0.0, top_k=1)]
    whole = run(Coordinator(make_space(), ONE, method=method, seed=9, first=first), 25)
    part = run(Coordinator(make_space(), ONE, method=method, seed=9, first=first), stop)
    lost = part[-1]  # it was running when the tool was killed
    past = [
        PastTrial(configuration=p.configuration, origin=p.origin, position=p.position, result=result(p.configuration))
        for p in part[:-1]
    ]
    past.append(
        PastTrial(
            configuration=lost.configuration, origin=lost.origin, position=lost.position,
            result=Result(outcome=Outcome.ABANDONED),
        )
    )  # fmt: skip
    again = Coordinator(make_space(), ONE, method=method, seed=9, first=first)
    again.resume(iter(past))
    rest = run(again, 25 - stop + 1)
    assert [p.configuration.key for p in part[:-1] + rest] == [p.configuration.key for p in whole]
    assert [p.position for p in part[:-1] + rest] == [p.position for p in whole]


@pytest.mark.parametrize("method", METHODS)
def test_a_resume_repeats_nothing_that_ended(method):
    part = run(Coordinator(make_space(), TWO, method=method, seed=1), 20, TWO)
    past = [
        PastTrial(
            configuration=p.configuration, origin=p.origin, position=p.position, sampler=p.sampler,
            result=result(p.configuration, TWO),
        )
        for p in part
    ]  # fmt: skip
    again = Coordinator(make_space(), TWO, method=method, seed=1)
    # only some of a long study come as trials, the rest as keys
    again.resume(past[10:], seen=[p.configuration.key for p in past[:10]])
    rest = run(again, SIZE, TWO)
    assert len(rest) == SIZE - 20
    assert not {p.configuration.key for p in part} & {p.configuration.key for p in rest}


def test_random_draws_differ_by_seed_and_share_launches():
    one, two = (run(Coordinator(make_space(), ONE, method="random", seed=seed), 12) for seed in (1, 2))
    assert [p.configuration.key for p in one] != [p.configuration.key for p in two]
    keys = [p.configuration.launch_key for p in one]
    assert [len(set(keys[i : i + 3])) for i in (0, 3, 6, 9)] == [1, 1, 1, 1]


def restarts(found) -> int:
    keys = [p.configuration.launch_key for p in found]
    return sum(a != b for a, b in itertools.pairwise(keys))


@pytest.mark.parametrize("method", ["tpe", "nsga2", "auto"])
def test_dear_launches_are_used_longer(method):
    found = {}
    for name, costs in (("dear", Costs(launch_s=100, measure_s=20)), ("cheap", Costs(launch_s=1, measure_s=20))):
        coordinator = Coordinator(make_space(), ONE, method=method, seed=5)
        trials, running = [], None
        for _ in range(36):
            proposal = coordinator.ask(running, costs=costs)
            running = proposal.configuration.launch_key
            coordinator.tell(proposal.configuration, result(proposal.configuration))
            trials.append(proposal)
        found[name] = restarts(trials)
    assert found["dear"] < found["cheap"]
    assert found["dear"] <= 36 / 3


def test_measured_costs_are_learned():
    coordinator = Coordinator(make_space(), ONE, method="random")
    assert coordinator.costs is None
    first, second = coordinator.ask(), coordinator.ask()
    coordinator.tell(first.configuration, result(first.configuration, launch_s=8.0, warmup_s=2.0, measure_s=4.0))
    coordinator.tell(second.configuration, result(second.configuration, measure_s=6.0))
    assert coordinator.costs == Costs(launch_s=10.0, measure_s=5.0)


@pytest.mark.parametrize("method", METHODS)
def test_several_may_be_asked_before_any_is_told_and_strangers_may_be_told(method):
    coordinator = Coordinator(make_space(), ONE, method=method, seed=2)
    asked = [coordinator.ask() for _ in range(8)]
    assert len({p.configuration.key for p in asked}) == 8
    stranger = next(c for c in make_space().configurations() if c.key not in {p.configuration.key for p in asked})
    coordinator.tell(stranger, result(stranger))
    for proposal in reversed(asked):
        coordinator.tell(proposal.configuration, result(proposal.configuration))
    rest = run(coordinator, SIZE)
    assert len(rest) == SIZE - 9
    assert stranger.key not in {p.configuration.key for p in rest}


@pytest.mark.parametrize("objectives", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("method", ["tpe", "nsga2", "auto"])
def test_infeasible_failed_and_raced_out_trials_teach_and_break_nothing(method, objectives):
    space = make_space()
    coordinator = Coordinator(space, objectives, method=method, seed=4, limits=["ttft_p95<800ms"])
    outcomes = itertools.cycle(
        [
            {"violations": (-0.5,)},
            {"violations": (0.5,)},
            {"outcome": Outcome.INFEASIBLE, "objectives": None},
            {"outcome": Outcome.FAILED, "objectives": None},
            {"outcome": Outcome.RACED_OUT, "fidelity": 0.25, "violations": (0.0,)},
            {"outcome": Outcome.ABANDONED, "objectives": None},
        ]
    )
    for _ in range(SIZE):
        proposal = coordinator.ask()
        coordinator.tell(proposal.configuration, result(proposal.configuration, objectives, **next(outcomes)))
    assert coordinator.ask() is None


@pytest.mark.parametrize("method", ["tpe", "auto"])
def test_what_never_fits_is_avoided(method):
    """With half of the launches running out of memory, later proposals go there less than chance would."""
    space = Space(
        [
            Parameter(name="threads", level="launch", values=tuple(range(1, 17)), ordinal=True),
            Parameter(name="slots", level="launch", values=tuple(range(1, 17)), ordinal=True),
        ],
        engine="fake",
    )
    bad = 0
    for seed in range(4):
        coordinator = Coordinator(space, ONE, method=method, seed=seed)
        for n in range(40):
            proposal = coordinator.ask()
            fits = proposal.configuration.launch["slots"] <= 8
            bad += n >= 10 and not fits
            launch = proposal.configuration.launch
            value = 100.0 + launch["threads"] - (launch["slots"] - 6) ** 2 + 3 * math.sin(launch["threads"] * 2.0)
            done = Result(outcome=Outcome.DONE, objectives=(value,))
            coordinator.tell(proposal.configuration, done if fits else Result(outcome=Outcome.INFEASIBLE))
    assert bad / (4 * 30) < 0.42  # chance is one half


def test_the_search_finds_the_good_region_sooner_than_chance():
    space = Space(
        [
            Parameter(name="threads", level="launch", low=1, high=64, integer=True),
            Parameter(name="slots", level="launch", low=1, high=64, integer=True),
            Parameter(name="temperature", level="request", low=0.0, high=1.0),
        ],
        engine="fake",
        request_defaults=InferenceParams(seed=1),
    )

    def regret(method, seed):
        coordinator, best = Coordinator(space, ONE, method=method, seed=seed), -math.inf
        for _ in range(60):
            c = coordinator.ask().configuration
            value = (
                -(((c.launch["threads"] - 20) / 64) ** 2) - ((c.launch["slots"] - 50) / 64) ** 2 - c.request.temperature
            )
            best = max(best, value)
            coordinator.tell(c, Result(outcome=Outcome.DONE, objectives=(value,)))
        return -best

    chance = sum(regret("random", seed) for seed in range(3))
    assert sum(regret("tpe", seed) for seed in range(3)) < chance
