"""Seeds of repeats: one where nothing is left to chance, different ones for every item and repeat."""

import pytest

from llmopt.records import InferenceParams
from llmopt.workload.repeats import repeats_for, seed_for


@pytest.mark.parametrize(("temperature", "count"), [(0, 1), (0.0, 1), (0.3, 5), (None, 5)])
def test_only_random_sampling_is_repeated(temperature, count):
    assert repeats_for(InferenceParams(temperature=temperature), 5) == count
    assert repeats_for(InferenceParams(temperature=temperature), 0) == 1


def test_seeds_differ_by_item_and_repeat_and_are_the_same_every_time():
    seeds = {seed_for(1, f"i{n}", repeat) for n in range(50) for repeat in range(4)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seed_for(1, "i1", 2) == seed_for(1, "i1", 2) != seed_for(2, "i1", 2)
