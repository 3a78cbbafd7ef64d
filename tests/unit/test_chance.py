"""Drawing many at once: the numbers, and the state left behind, are those of ``random.Random`` drawing one by one."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from llmopt.workload.korean_qa.chance import below, distinct, picks, shuffled

SEEDS = st.integers(0, 2**64)


def same(seed, ours, theirs):
    one, other = Random(seed), Random(seed)
    assert ours(one) == theirs(other)
    assert one.getstate() == other.getstate()


@given(SEEDS, st.integers(1, 100_000), st.integers(0, 40))
def test_numbers_below_a_bound(seed, bound, count):
    same(seed, lambda r: below(r, bound, count), lambda r: [r.randrange(bound) for _ in range(count)])


@given(SEEDS, st.text(min_size=1, max_size=30), st.integers(0, 40))
def test_picks_out_of_values(seed, values, count):
    same(seed, lambda r: picks(r, values, count), lambda r: [r.choice(values) for _ in range(count)])


@given(SEEDS, st.integers(1, 400), st.data())
def test_distinct_numbers_below_a_bound(seed, bound, data):
    count = data.draw(st.integers(0, bound))
    same(seed, lambda r: distinct(r, bound, count), lambda r: r.sample(range(bound), count))


@given(SEEDS, st.lists(st.integers(), max_size=80))
def test_a_shuffled_copy(seed, values):
    def shuffle(rng):
        order = list(values)
        rng.shuffle(order)
        return order

    same(seed, lambda r: shuffled(r, values), shuffle)
