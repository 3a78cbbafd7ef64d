"""What earlier studies give a new one: similarity, first trials, and a prior that helps and does no lasting harm."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from llmopt.objective import parse_objectives
from llmopt.records import Configuration, InferenceParams, Outcome, Parameter
from llmopt.search.coordinator import Coordinator
from llmopt.search.proposer import Result
from llmopt.search.space import Space
from llmopt.search.transfer import Circumstances, Earlier, History, first_trials, similarity

SPEED = parse_objectives("answers_per_minute")
HERE = Circumstances(
    engine="fake", engine_version="1", model="qwen-0.5b", architecture="qwen2", parameters=500_000_000,
    quantization="q4", hardware="abc", processor="xeon", dataset="korean_math", streams=4,
)  # fmt: skip


def make_space(threads=(1, 2, 4, 8, 16)) -> Space:
    return Space(
        [
            Parameter(name="threads", level="launch", values=threads, ordinal=True),
            Parameter(name="slots", level="launch", values=(1, 2, 4, 8, 16, 32), ordinal=True),
            Parameter(name="kv", level="launch", values=("f16", "q8_0", "q4_0")),
            Parameter(name="top_k", level="request", values=(1, 10, 100), ordinal=True),
        ],
        engine="fake",
        defaults={"alias": "new"},
    )


def speed(c, scale=1.0, shift=0.0) -> float:
    a, b = math.log2(c.launch["threads"]), math.log2(c.launch["slots"])
    kv = {"f16": 0.0, "q8_0": 0.3, "q4_0": 0.1}[c.launch["kv"]]
    return scale * math.exp(-0.15 * (a - 3 - shift) ** 2 - 0.1 * (b - 4 + shift) ** 2 + kv)


def earlier(circumstances=HERE, *, scale=1.0, shift=0.0, trials=25, seed=0) -> Earlier:
    source = random.Random(seed)
    found = []
    for _ in range(trials):
        space = make_space()
        c = space.configuration(space.draw_request(space.draw_launch(source), source))
        found.append((c, Result(outcome=Outcome.DONE, objectives=(speed(c, scale, shift),))))
    return Earlier(name="before", circumstances=circumstances, trials=tuple(found))


def changed(**values) -> Circumstances:
    return Circumstances(**{**{f: getattr(HERE, f) for f in HERE.__dataclass_fields__}, **values})


def test_the_same_circumstances_are_most_alike_and_another_engine_is_nothing():
    assert similarity(HERE, HERE) == 1.0
    assert similarity(changed(engine="vllm"), HERE) == 0.0


@pytest.mark.parametrize(
    ("nearer", "farther"),
    [
        ({"engine_version": "2"}, {"hardware": "other", "processor": "other"}),
        ({"hardware": "other"}, {"hardware": "other", "processor": "other"}),
        ({"model": "qwen-1.5b", "parameters": 1_500_000_000}, {"model": "qwen-72b", "parameters": 72_000_000_000}),
        (
            {"model": "qwen-1.5b", "parameters": 1_500_000_000},
            {"model": "llama", "architecture": "llama", "parameters": 1_500_000_000},
        ),
        ({"streams": 8}, {"streams": 64}),
    ],
)
def test_what_is_nearer_is_more_alike(nearer, farther):
    assert 1.0 > similarity(changed(**nearer), HERE) > similarity(changed(**farther), HERE) > 0.0


def test_what_is_not_known_counts_as_different():
    assert similarity(Circumstances(engine="fake"), Circumstances(engine="fake")) < 0.3


def test_the_best_of_earlier_studies_come_first_as_this_space_has_them():
    space = make_space(threads=(2, 6, 12))
    proposals = first_trials(space, SPEED, [earlier()], HERE, count=3)
    assert 1 <= len(proposals) <= 3
    for proposal in proposals:
        assert proposal.origin == "history"
        assert proposal.configuration.launch["threads"] in (2, 6, 12)
        assert proposal.configuration.launch["alias"] == "new"
        assert space.problem(proposal.configuration) is None
    best = max(speed(c) for c, _ in earlier().trials)
    assert speed(proposals[0].configuration) > 0.6 * best


def test_what_broke_a_limit_or_has_no_place_here_is_no_first_trial():
    base = earlier()
    broken = tuple(
        (c, Result(outcome=Outcome.DONE, objectives=r.objectives, violations=(0.5,))) for c, r in base.trials
    )
    assert first_trials(make_space(), SPEED, [Earlier(name="x", circumstances=HERE, trials=broken)], HERE) == []
    stranger = Configuration(
        engine="fake", launch={"kv": "q2_k", "threads": 2, "slots": 1}, request=InferenceParams(top_k=1)
    )
    odd = Earlier(name="x", circumstances=HERE, trials=((stranger, Result(outcome=Outcome.DONE, objectives=(9.0,))),))
    assert first_trials(make_space(), SPEED, [odd], HERE) == []
    assert first_trials(make_space(), SPEED, [earlier(changed(engine="vllm"))], HERE) == []


def test_history_orders_what_is_near_and_is_silent_about_what_is_far():
    history = History(make_space(), SPEED, [earlier(scale=50.0)], HERE)
    assert history.used == 1
    space = make_space()
    good = space.configuration({"threads": 8, "slots": 16, "kv": "q8_0", "top_k": 1})
    bad = space.configuration({"threads": 1, "slots": 1, "kv": "f16", "top_k": 1})
    assert history.predict(good).objectives[0] > 1.2 * history.predict(bad).objectives[0]
    assert History(space, SPEED, [earlier(changed(engine="vllm"))], HERE).predict(good) is None
    few = Earlier(name="x", circumstances=HERE, trials=earlier().trials[:1])
    assert History(space, SPEED, [few], HERE).used == 0


def test_less_alike_studies_say_less():
    space = make_space()
    good = space.configuration({"threads": 8, "slots": 16, "kv": "q8_0", "top_k": 1})

    def said(circumstances) -> float:
        return abs(math.log(History(space, SPEED, [earlier(circumstances)], HERE).predict(good).objectives[0]))

    assert said(HERE) > said(changed(hardware="other", processor="other")) > 0


def test_shares_are_transferred_as_differences():
    quality = parse_objectives("quality")
    trials = tuple(
        (c, Result(outcome=Outcome.DONE, objectives=(0.9 if c.launch["kv"] == "f16" else 0.5,)))
        for c, _ in earlier().trials
    )
    history = History(make_space(), quality, [Earlier(name="x", circumstances=HERE, trials=trials)], HERE)
    space = make_space()
    fine, coarse = (
        history.predict(space.configuration({"threads": 4, "slots": 8, "kv": kv, "top_k": 10})).objectives[0]
        for kv in ("f16", "q4_0")
    )
    assert 0 < coarse < fine < 1


def trials_to_best(seed, studies) -> int:
    space = make_space()
    best = max(speed(c) for c in space.configurations())
    priors = [History(space, SPEED, studies, HERE)] if studies else []
    first = first_trials(space, SPEED, studies, HERE, count=2)
    coordinator = Coordinator(space, SPEED, method="auto", seed=seed, priors=priors, first=first)
    for n in range(1, 80):
        c = coordinator.ask().configuration
        if speed(c) >= 0.95 * best:
            return n
        coordinator.tell(c, Result(outcome=Outcome.DONE, objectives=(speed(c),)))
    return 80


def test_a_similar_study_shortens_the_search_and_a_misleading_one_costs_little():
    alone = statistics.mean(trials_to_best(seed, []) for seed in range(8))
    helped = statistics.mean(trials_to_best(seed, [earlier(scale=3.0, seed=seed)]) for seed in range(8))
    misled = statistics.mean(
        trials_to_best(seed, [earlier(changed(hardware="x"), shift=-2.5, seed=seed)]) for seed in range(8)
    )
    assert helped < alone
    assert misled < 2 * alone + 2
