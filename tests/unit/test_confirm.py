"""The ladder from baseline to winner, blocks of held-out items, and which passes may be compared."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import EngineDied
from llmopt.records import Configuration, InferenceParams, Item, Outcome
from llmopt.search.confirm import ArmPass, blocks_of, comparable_passes, confirm, ladder, pair_of, steps
from llmopt.search.trial import TrialResult

BASE = Configuration(
    engine="e", launch={"threads": 2}, request=InferenceParams(temperature=0.8, prompt_form="zero_shot")
)
BEST = Configuration(
    engine="e", launch={"threads": 1}, request=InferenceParams(temperature=0.0, prompt_form="examples")
)


def items(n):
    return tuple(Item(id=str(i), question="?") for i in range(n))


def test_the_ladder_changes_one_thing_at_a_time():
    arms = {name: arm.configuration for arm in ladder(BASE, BEST) for name in arm.names}
    assert arms["prompt"] == replace(BASE, request=replace(BASE.request, prompt_form="examples"))
    assert arms["sampling"] == replace(BASE, request=BEST.request)
    assert arms["best"] == BEST


def test_unchanged_rungs_share_an_arm_and_are_no_step():
    only_launch = replace(BASE, launch={"threads": 1})
    arms = ladder(BASE, only_launch)
    assert [arm.names for arm in arms] == [("baseline", "prompt", "sampling"), ("best",)]
    assert [step.name for step in steps(arms)] == ["launch", "total"]


def test_a_winner_that_is_the_baseline_leaves_nothing_to_confirm():
    arms = ladder(BASE, BASE)
    assert len(arms) == 1
    assert steps(arms) == ()


@given(st.integers(0, 60), st.integers(1, 8))
def test_blocks_are_equal_disjoint_and_stay_so_when_fewer_items_are_affordable(count, blocks):
    dealt = blocks_of(items(count), blocks)
    assert {len(block) for block in dealt} == {count // blocks}
    ids = [item.id for block in dealt for item in block]
    assert len(ids) == len(set(ids))
    for number, block in enumerate(dealt):
        assert all(int(item.id) % blocks == number for item in block)


class Bench:
    def __init__(self, fail_on=None):
        self.calls = []
        self.fail_on = fail_on

    async def run(self, configuration, items, *, on_sample=None, fresh=False):
        self.calls.append((configuration.key, fresh, tuple(item.id for item in items)))
        if self.fail_on == len(self.calls):
            raise EngineDied("launch.died_code", code=1)
        return TrialResult(outcome=Outcome.DONE)


class Recorder:
    def __init__(self):
        self.passes = []

    def recorded(self, block, arm, result):
        self.passes.append(ArmPass(block=block, key=arm.configuration.key, result=result, attempt="now"))


async def test_order_is_reversed_from_block_to_block_and_each_launch_group_starts_fresh():
    bench, recorder = Bench(), Recorder()
    arms = ladder(BASE, BEST)
    await confirm(bench, arms, blocks_of(items(8), 2), done=[], recorder=recorder)
    first, second = bench.calls[: len(arms)], bench.calls[len(arms) :]
    assert [key for key, _, _ in second] == [key for key, _, _ in first][::-1]
    assert [fresh for _, fresh, _ in first] == [True, False, False, True]
    assert len({ids for _, _, ids in first}) == 1


async def test_finished_blocks_are_not_measured_again_but_torn_ones_are():
    arms = ladder(BASE, BEST)
    blocks = blocks_of(items(8), 2)
    bench, recorder = Bench(fail_on=len(arms) + 2), Recorder()
    with pytest.raises(EngineDied):
        await confirm(bench, arms, blocks, done=[], recorder=recorder)
    earlier = [replace(one, attempt="before") for one in recorder.passes]
    bench, recorder = Bench(), Recorder()
    await confirm(bench, arms, blocks, done=earlier, recorder=recorder)
    assert {one.block for one in recorder.passes} == {1}
    assert len(recorder.passes) == len(arms)
    whole = comparable_passes([*earlier, *recorder.passes], arms)
    assert [(one.block, one.attempt) for one in whole] == [(0, "before")] * 4 + [(1, "now")] * 4


def passes_of(arms, block, attempt, *, outcome=Outcome.DONE):
    return [
        ArmPass(block=block, key=arm.configuration.key, result=TrialResult(outcome=outcome), attempt=attempt)
        for arm in arms
    ]


def test_a_torn_block_counts_where_baseline_and_winner_were_both_measured_in_one_run():
    arms = ladder(BASE, BEST)
    first, *between, last = arms
    assert pair_of(arms) == (first, last)
    whole = passes_of(arms, 0, "a")
    torn = passes_of([first, between[0], last], 1, "a")
    assert comparable_passes([*whole, *torn], arms) == [*whole, *torn]
    again = passes_of(arms, 1, "b")
    assert comparable_passes([*whole, *torn, *again], arms) == [*whole, *again], "a whole run of a block comes first"
    halves = [*passes_of([first], 2, "a"), *passes_of([last], 2, "b"), *passes_of(between, 3, "a")]
    assert comparable_passes(halves, arms) == [], "pairs share their run"
    failed = [*passes_of([first, *between], 4, "a"), *passes_of([last], 4, "a", outcome=Outcome.FAILED)]
    assert comparable_passes(failed, arms) == []
    one_arm_failed = [*passes_of([first, last], 5, "a"), *passes_of(between, 5, "a", outcome=Outcome.FAILED)]
    assert comparable_passes(one_arm_failed, arms) == passes_of([first, last], 5, "a")


async def test_a_block_asks_the_arms_it_has_time_for_and_is_not_run_again_for_the_others():
    arms = ladder(BASE, BEST)
    blocks, pair = blocks_of(items(8), 2), pair_of(arms)
    bench, recorder = Bench(), Recorder()
    await confirm(
        bench, arms, blocks, done=[], recorder=recorder, asked=lambda block: pair if block else arms
    )  # fmt: skip
    assert [(one.block, one.key) for one in recorder.passes][len(arms) :] == [
        (1, BEST.key), (1, BASE.key)
    ]  # fmt: skip
    again = Bench()
    await confirm(
        again, arms, blocks, done=recorder.passes, recorder=recorder, asked=lambda block: pair if block else arms
    )  # fmt: skip
    assert again.calls == []
    await confirm(again, arms, blocks, done=recorder.passes, recorder=recorder)
    assert len(again.calls) == len(arms), "where there is time after all, the block is measured whole"
