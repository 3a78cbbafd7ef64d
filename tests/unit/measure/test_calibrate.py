import math
import random

import pytest

from llmopt.errors import StorageError
from llmopt.measure.calibrate import (
    NoiseFloor,
    load_client,
    load_noise,
    measure_noise,
    noise_from,
    save_client,
    save_noise,
)


def test_the_floor_is_that_of_the_launches_and_not_of_a_slow_drift():
    rng = random.Random(1)
    values = [100 * math.exp(rng.gauss(0, 0.03) + 0.001 * k) for k in range(400)]
    floor = noise_from(values, objective="answers_per_minute")
    assert floor.spread == pytest.approx(0.03 * math.sqrt(2), rel=0.15)
    assert floor.pairs == 200


def test_more_pairs_resolve_smaller_differences():
    floor = NoiseFloor(objective="x", spread=0.04, pairs=6)
    resolved = [floor.resolves(pairs) for pairs in (1, 2, 4, 8, 30)]
    assert resolved == sorted(resolved, reverse=True)
    assert resolved[0] == math.inf
    assert floor.pairs_for(0.20) <= floor.pairs_for(0.10) < floor.pairs_for(0.02)


async def test_measuring_launches_twice_the_pairs():
    rng = random.Random(2)

    async def launch():
        return rng.uniform(90, 110)

    floor, values = await measure_noise(launch, objective="x", pairs=5)
    assert (len(values), floor.pairs) == (10, 5)
    with pytest.raises(ValueError, match="two pairs"):
        noise_from(values[:3], objective="x")


def test_floors_are_kept_by_machine_engine_and_objective(tmp_path):
    first, second = NoiseFloor(objective="a", spread=0.1, pairs=6), NoiseFloor(objective="b", spread=0.2, pairs=6)
    save_noise(first, hardware="h1", engine="e", folder=tmp_path / "new")
    save_noise(second, hardware="h1", engine="e", folder=tmp_path / "new")
    read = {"hardware": "h1", "engine": "e", "folder": tmp_path / "new"}
    assert load_noise(objective="a", **read) == first
    assert load_noise(objective="b", **read) == second
    assert load_noise(objective="a", **{**read, "hardware": "h2"}) is None
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"schema_version": 2, "floors": {}, "clients": {}}',
        '{"schema_version": 1, "clients": {}, "floors": {"h e a": {"x": 1}}}',
    ],
)
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(StorageError, match=r"calibration\.json"):
        load_noise(hardware="h", engine="e", objective="a", folder=tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        save_noise(NoiseFloor(objective="a", spread=0.1, pairs=6), hardware="h", engine="e", folder=tmp_path / "file")


def test_nothing_kept_is_none(tmp_path):
    assert load_noise(hardware="h", engine="e", objective="a", folder=tmp_path) is None


def test_our_own_error_is_kept_by_streams(tmp_path):
    assert load_client(4, hardware="h", folder=tmp_path) is None
    save_noise(NoiseFloor(objective="a", spread=0.1, pairs=6), hardware="h", engine="e", folder=tmp_path)
    save_client({1: 0.5, 16: 2.0, 64: 8.0}, hardware="h", folder=tmp_path)
    assert [load_client(n, hardware="h", folder=tmp_path) for n in (1, 4, 16, 17, 500)] == [0.5, 2.0, 2.0, 8.0, 8.0]
    assert load_client(4, hardware="other", folder=tmp_path) is None
    assert load_noise(hardware="h", engine="e", objective="a", folder=tmp_path) is not None
