"""Explanations: what matters is found to matter, intervals hold, and *why not* is answered from the records."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from llmopt.errors import UsageError
from llmopt.objective import parse_objectives
from llmopt.records import Outcome, Parameter
from llmopt.search.importance import ENOUGH, Explainer
from llmopt.search.proposer import Result
from llmopt.search.space import Space

SPEED = parse_objectives("answers_per_minute")


def make_space() -> Space:
    return Space(
        [
            Parameter(name="threads", level="launch", values=(1, 2, 4, 8), ordinal=True),
            Parameter(name="slots", level="launch", values=(1, 2, 4, 8), ordinal=True),
            Parameter(name="kv", level="launch", values=("f16", "q8_0")),
            Parameter(name="poll", level="launch", values=("on", "off")),
            Parameter(name="top_k", level="request", values=(1, 10, 100), ordinal=True),
        ],
        engine="fake",
        conflict=lambda s: "fake.rule" if s["threads"] == 8 and s["slots"] == 8 else None,
    )


def speed(c) -> float:
    """threads matter most, slots some, kv a little, the rest not at all."""
    return 10 * math.exp(
        0.5 * math.log2(c.launch["threads"]) + 0.15 * math.log2(c.launch["slots"]) + 0.05 * (c.launch["kv"] == "q8_0")
    )


def recorded(n=45, seed=0, noise=0.02):
    source, space, found = random.Random(seed), make_space(), {}
    while len(found) < n:
        c = space.configuration(space.draw_request(space.draw_launch(source), source))
        if c.launch["slots"] == 4 and c.launch["threads"] == 1:
            continue  # left for why_not
        found[c.key] = (c, Result(outcome=Outcome.DONE, objectives=(speed(c) * math.exp(source.gauss(0, noise)),)))
    return list(found.values())


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(make_space(), SPEED, recorded())


def test_what_matters_most_comes_first_with_an_interval(explainer):
    found = explainer.importance()
    assert [importance.parameter for importance in found[:2]] == ["threads", "slots"]
    by_name = {importance.parameter: importance for importance in found}
    assert by_name["threads"].share > 0.5
    assert by_name["threads"].low > by_name["poll"].high
    assert by_name["poll"].share < 0.1
    assert all(0 <= i.low <= i.share <= i.high <= 1 for i in found)


def test_the_same_question_has_the_same_answer(explainer):
    assert explainer.importance() == Explainer(make_space(), SPEED, recorded()).importance()


def test_effects_hold_everything_else_fixed(explainer):
    at = make_space().configuration({"threads": 4, "slots": 4, "kv": "f16", "poll": "on", "top_k": 10})
    found = {(effect.parameter, effect.setting): effect for effect in explainer.effects(at)}
    slower = found["threads", 1]
    assert slower.relative
    assert slower.low < math.exp(-1.0) < slower.high
    assert slower.high < 0.6
    nothing = found["poll", "off"]
    assert nothing.low < 1 < nothing.high
    assert ("threads", 4) not in found


def test_effects_leave_out_what_is_illegal(explainer):
    at = make_space().configuration({"threads": 8, "slots": 4, "kv": "f16", "poll": "on", "top_k": 10})
    assert ("slots", 8) not in {(effect.parameter, effect.setting) for effect in explainer.effects(at)}


def test_most_intervals_contain_the_truth():
    inside = total = 0
    for seed in range(4):
        space = make_space()
        at = space.configuration({"threads": 4, "slots": 2, "kv": "q8_0", "poll": "on", "top_k": 10})
        for effect in Explainer(space, SPEED, recorded(seed=seed)).effects(at):
            other = space.configuration({**space.assignment(at), effect.parameter: effect.setting})
            inside += effect.low <= speed(other) / speed(at) <= effect.high
            total += 1
    assert inside / total > 0.8


def test_why_not_is_answered_by_rule_record_or_estimate(explainer):
    space = make_space()
    at = space.configuration({"threads": 4, "slots": 4, "kv": "f16", "poll": "on", "top_k": 10})
    illegal = explainer.why_not(at, {"threads": 8, "slots": 8})
    assert illegal.kind == "illegal"
    assert illegal.problem.key == "fake.rule"
    estimated = explainer.why_not(at, {"threads": 1})
    assert estimated.kind == "estimated"
    assert estimated.effect.high < 0.7
    assert 0 < estimated.runs <= 1
    tried = space.configuration({"threads": 2, "slots": 8, "kv": "f16", "poll": "on", "top_k": 10})
    trials = [*recorded(), (tried, Result(outcome=Outcome.INFEASIBLE))]
    answer = Explainer(space, SPEED, trials).why_not(at, {"threads": 2, "slots": 8})
    assert (answer.kind, answer.result.outcome) == ("failed", Outcome.INFEASIBLE)
    known, result = recorded()[0]
    answer = explainer.why_not(at, space.assignment(known))
    assert (answer.kind, answer.result) == ("measured", result)


def test_questions_that_cannot_be_answered_are_usage_errors(explainer):
    at = make_space().configuration({})
    with pytest.raises(UsageError) as caught:
        explainer.why_not(at, {"thread": 8})
    assert caught.value.key == "search.unknown_setting"


def test_of_few_trials_nothing_but_records_and_rules_is_told():
    space, few = make_space(), recorded()[: ENOUGH - 1]
    explainer = Explainer(space, SPEED, few)
    at, tried = few[0][0], few[1]
    assert explainer.importance() == explainer.effects(at) == ()
    assert explainer.why_not(at, {"threads": 8, "slots": 8}).kind == "illegal"
    measured = explainer.why_not(at, space.assignment(tried[0]))
    assert (measured.kind, measured.result) == ("measured", tried[1])
    assert explainer.why_not(at, {"threads": 1, "slots": 4}).kind == "untried"
    assert Explainer(space, SPEED, recorded()[:ENOUGH]).importance()


def test_a_raced_out_trial_counts_with_the_doubt_of_its_few_answers():
    space, (*known, last) = make_space(), recorded()[:ENOUGH]
    configuration, full = last
    half = replace(full, outcome=Outcome.RACED_OUT, fidelity=0.1)
    at = known[0][0]
    sure, unsure = (Explainer(space, SPEED, [*known, (configuration, result)]).effects(at) for result in (full, half))
    assert sure
    assert [one.setting for one in sure] == [one.setting for one in unsure]
    assert sure != unsure


def test_shares_are_explained_as_differences():
    quality = parse_objectives("quality")
    trials = [
        (c, Result(outcome=Outcome.DONE, objectives=(0.5 + 0.2 * (c.launch["kv"] == "f16"),))) for c, _ in recorded()
    ]
    at = trials[0][0]
    other = "q8_0" if at.launch["kv"] == "f16" else "f16"
    effects = {(e.parameter, e.setting): e for e in Explainer(make_space(), quality, trials).effects(at)}
    expected = -0.2 if other == "q8_0" else 0.2
    assert effects["kv", other].value == pytest.approx(expected, abs=0.05)
    assert not effects["kv", other].relative
