"""The final of an optimisation: how many pairs calibration asks for, what time pays for, and when it may stop."""

from dataclasses import make_dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.calibrate import NoiseFloor
from llmopt.records import AnswerStatus, Configuration, Estimate, InferenceParams, Item, Measurement, Outcome, Score
from llmopt.search.confirm import MIN_BLOCKS, ArmPass, confirm, ladder
from llmopt.study.clock import ConfirmPrice
from llmopt.study.final import Finals, TimeForArms, pairs_of_final, plan_final, with_final_items
from llmopt.study.repeats import MOST_DERIVED

FREE = ConfirmPrice(block_s=0.0, item_s=0.0)


def items(count):
    return tuple(Item(id=f"i{k}", question="?", answers=("1",)) for k in range(count))


def noise(spread, requests=8):
    return NoiseFloor(objective="answers_per_minute", spread=spread, pairs=6, requests=requests)


Study = make_dataclass("Study", ["confirm_items", "asked_to_confirm", "noise", "request", "dataset"], frozen=True)
"""What the final looks at of a prepared study."""


def study(spread=None, *, confirm=32, held_out=400, asked=32):
    request = SimpleNamespace(speed_margin=0.05, quality_margin=0.02, seed=0)
    dataset = SimpleNamespace(split=lambda split: items(held_out) if split == "confirm" else ())
    return Study(items(held_out)[:confirm], asked, None if spread is None else noise(spread), request, dataset)


def test_without_calibration_it_is_the_fewest_pairs_and_one_look():
    plan = plan_final(with_final_items(study()), FREE, left_s=None)
    assert [look.after for look in plan.looks] == [MIN_BLOCKS]
    assert [len(block) for block in plan.blocks] == [8] * 4
    assert plan.looks[0].confidence == pytest.approx(0.95)


def test_a_noisy_machine_gets_more_pairs_on_items_of_their_own_and_looks_in_between():
    quiet, noisy = with_final_items(study(0.01)), with_final_items(study(0.06))
    assert pairs_of_final(quiet) == MIN_BLOCKS
    assert pairs_of_final(noisy) == min(noise(0.06).pairs_for(0.05), MOST_DERIVED) > 8
    plan = plan_final(noisy, FREE, left_s=None)
    assert [look.after for look in plan.looks][:2] == [4, 8]
    assert plan.looks[-1].after == len(plan.blocks) == pairs_of_final(noisy)
    asked = [item.id for block in plan.blocks for item in block]
    assert len(asked) == len(set(asked)) == 8 * len(plan.blocks)
    assert sum(1 - look.confidence for look in plan.looks) == pytest.approx(0.05)


@given(
    spread=st.none() | st.floats(0.001, 0.5),
    held_out=st.integers(4, 300),
    asked=st.integers(4, 80),
    left_s=st.none() | st.floats(0, 5000),
    prices=st.tuples(st.floats(0, 60), st.floats(0, 5)),
)
def test_a_plan_has_whole_blocks_and_keeps_to_the_time_where_it_can(spread, held_out, asked, left_s, prices):
    prepared = with_final_items(study(spread, confirm=min(asked, held_out), held_out=held_out, asked=asked))
    block_s, item_s = prices
    price = ConfirmPrice(block_s=block_s, item_s=item_s)
    plan = plan_final(prepared, price, left_s=left_s)
    sizes = {len(block) for block in plan.blocks}
    assert len(sizes) == 1
    assert min(sizes) >= 1
    assert len(plan.blocks) >= MIN_BLOCKS
    assert plan.looks[-1].after == len(plan.blocks)
    total = sum(map(len, plan.blocks))
    assert len({item.id for block in plan.blocks for item in block}) == total
    if left_s is not None and len(plan.blocks) > MIN_BLOCKS:
        assert price.seconds(total, len(plan.blocks)) <= left_s * (1 + 1e-9)


def test_time_that_ran_out_between_two_looks_spends_the_later_ones_share():
    plan = plan_final(with_final_items(study(0.06)), FREE, left_s=None)
    assert plan.look_after(4) == plan.looks[0]
    assert plan.look_after(5) == plan.looks[1]
    assert Finals(arms=(), plan=None).confidence == pytest.approx(0.95)


BASE = Configuration(engine="fake", launch={"threads": 1}, request=InferenceParams(temperature=0.0))
BEST = Configuration(engine="fake", launch={"threads": 2}, request=InferenceParams(temperature=0.0))


class Scripted:
    """A bench whose winner is ``ratio`` times as fast; quality is the same everywhere."""

    def __init__(self, ratio):
        self.ratio = ratio
        self.runs = []

    async def run(self, configuration, items, *, fresh, on_sample=None):
        del fresh, on_sample
        self.runs.append(configuration)
        speed = 100.0 * (self.ratio if configuration == BEST else 1.0) * (1 + 0.001 * (len(self.runs) % 3))
        scores = tuple(Score(item_id=item.id, value=1.0, status=AnswerStatus.OK) for item in items)
        measurement = Measurement(estimates={"answers_per_minute": Estimate(value=speed, unit="", n=1)})
        return SimpleNamespace(outcome=Outcome.DONE, scores=scores, measurement=measurement, samples=())


@pytest.mark.parametrize(("ratio", "blocks"), [(2.0, 4), (1.0, 4)])
async def test_it_stops_at_the_first_look_that_leaves_nothing_open(ratio, blocks):
    prepared = with_final_items(study(0.06, confirm=400, asked=400, held_out=6000))
    plan, arms = plan_final(prepared, FREE, left_s=None), ladder(BASE, BEST)
    assert len(plan.blocks) > blocks
    bench = Scripted(ratio)
    passes = await confirm(
        bench, arms, plan.blocks, done=(), recorder=SimpleNamespace(recorded=lambda *_: None),
        enough=lambda done, found: plan.enough(prepared, arms, done, found),
    )  # fmt: skip
    assert len(passes) == 2 * blocks
    found = Finals(arms=arms, passes=tuple(passes), plan=plan)
    assert (found.blocks, found.confidence) == (blocks, plan.looks[0].confidence)


async def test_what_is_open_at_a_look_goes_on_to_the_next():
    prepared = with_final_items(study(0.06))  # eight items a block: equal quality is a tie, not equivalence
    plan, arms = plan_final(prepared, FREE, left_s=None), ladder(BASE, BEST)
    passes = await confirm(
        Scripted(2.0), arms, plan.blocks, done=(), recorder=SimpleNamespace(recorded=lambda *_: None),
        enough=lambda done, found: plan.enough(prepared, arms, done, found),
    )  # fmt: skip
    assert {one.block for one in passes} == set(range(len(plan.blocks)))
    assert isinstance(passes[0], ArmPass)


POINT = Configuration(engine="fake", launch={"threads": 3}, request=InferenceParams(temperature=0.0))
PRESET = Configuration(engine="fake", launch={"threads": 4}, request=InferenceParams(temperature=0.0))


def arms_of_blocks(limit_s, *, takes):
    """The arms each block is asked within ``limit_s``, where a launch of an arm is thought to take a second."""
    arms = ladder(BASE, BEST, {"preset": PRESET, "smallest": POINT})
    plan = plan_final(with_final_items(study()), FREE, left_s=None)
    left = [limit_s]
    time_for = TimeForArms(
        arms, plan, price=lambda count: ConfirmPrice(block_s=count, item_s=0.0), left_s=lambda: left[0]
    )
    found = []
    for block in range(len(plan.blocks)):
        asked = time_for.asked(block)
        found.append([name for arm in asked for name in arm.names])
        if left[0] is not None:
            left[0] -= takes * len(asked)
    assert all({"baseline", "best"} <= set(names) for names in found)
    return ["points" if "smallest" in names else "ladder" if "preset" in names else "pair" for names in found]


def test_the_pair_comes_before_all_others_where_time_is_short():
    assert arms_of_blocks(None, takes=1) == ["points"] * 4
    assert arms_of_blocks(16.0, takes=1) == ["points"] * 4
    assert arms_of_blocks(12.0, takes=1) == ["ladder"] * 4
    assert arms_of_blocks(8.0, takes=1) == ["pair"] * 4
    assert arms_of_blocks(1.0, takes=1) == ["pair"] * 4, "what cannot be paid for at all is still begun with the pair"
    assert arms_of_blocks(16.0, takes=1.5) == ["points", "pair", "pair", "pair"], "blocks that take longer than thought"
