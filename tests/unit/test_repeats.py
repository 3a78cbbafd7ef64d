from itertools import islice

from llmopt.records import Dataset, InferenceParams, Item
from llmopt.workload.prompts import render
from llmopt.workload.repeats import around, repeats_for, seed_for

ITEMS = (
    Item(id="plain", question="1 + 1?", answers=("2",)),
    Item(id="read", question="누구?", answers=("철수",), kind="qa", meta={"context": "철수가 왔다."}),
    Item(
        id="foreign",
        question="x",
        meta={"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}]},
    ),
)
DATA = Dataset(name="d", items=ITEMS, fingerprint="f")


def shared(first, second):
    """The beginning that two prompts have in common."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def test_an_item_that_comes_again_shares_no_word_of_its_own_with_its_first_time():
    put = list(islice(around(ITEMS), 9))
    assert [item.id for item in put] == [item.id for item in ITEMS] * 3
    assert put[:3] == list(ITEMS)
    for place in range(3):
        turns = ["".join(m["content"] for m in render(put[place + 3 * turn], None, DATA)) for turn in range(3)]
        assert len(set(turns)) == 3
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert shared(turns[one], turns[other]) <= len("Be brief.["), put[place].id
        assert put[place].answers == put[place + 3].answers
    assert put[5].meta["messages"][0] == ITEMS[2].meta["messages"][0], "what all items share stays shared"


def test_nothing_comes_of_nothing():
    assert list(around(())) == []


def test_seeds_differ_by_item_and_repeat_and_greedy_answers_are_asked_once():
    assert len({seed_for(1, "a"), seed_for(1, "a", 1), seed_for(1, "b"), seed_for(2, "a")}) == 4
    assert repeats_for(InferenceParams(temperature=0.0), 3) == 1
    assert repeats_for(InferenceParams(), 3) == 3
