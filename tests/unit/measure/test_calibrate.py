import math
import random

import pytest

from llmopt.errors import StorageError
from llmopt.measure.calibrate import Calibration, NoiseFloor, noise_from

FLOOR = NoiseFloor(objective="a", spread=0.1, pairs=6, requests=16)


def test_the_floor_is_that_of_the_launches_and_not_of_a_slow_drift():
    rng = random.Random(1)
    values = [100 * math.exp(rng.gauss(0, 0.03) + 0.001 * k) for k in range(400)]
    floor = noise_from(values, objective="answers_per_minute", requests=16)
    assert floor.spread == pytest.approx(0.03 * math.sqrt(2), rel=0.15)
    assert floor.pairs == 200
    with pytest.raises(ValueError, match="two pairs"):
        noise_from(values[:3], objective="x", requests=16)


def test_the_interval_of_a_floor_covers_the_true_spread():
    rng = random.Random(4)
    covered = 0
    for _ in range(400):
        values = [100 * math.exp(rng.gauss(0, 0.04)) for _ in range(12)]
        low, high = noise_from(values, objective="a", requests=16).bounds
        covered += low <= 0.04 * math.sqrt(2) <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_more_pairs_resolve_smaller_differences():
    resolved = [FLOOR.resolves(pairs) for pairs in (1, 2, 4, 8, 30)]
    assert resolved == sorted(resolved, reverse=True)
    assert resolved[0] == math.inf
    assert FLOOR.pairs_for(0.20) <= FLOOR.pairs_for(0.10) < FLOOR.pairs_for(0.02)


def test_the_pairs_for_a_difference_find_it_as_often_as_promised():
    rng = random.Random(3)
    floor = NoiseFloor(objective="a", spread=0.04, pairs=6, requests=16)
    from llmopt.measure.stats.verdicts import speed_verdict
    from llmopt.records import VerdictKind

    pairs, found = floor.pairs_for(0.05), 0
    for _ in range(300):
        b = [100 * math.exp(rng.gauss(0, 0.04 / math.sqrt(2))) for _ in range(pairs)]
        a = [105 * math.exp(rng.gauss(0, 0.04 / math.sqrt(2))) for _ in range(pairs)]
        found += speed_verdict(a, b).kind is VerdictKind.BETTER
    assert found >= 0.75 * 300


def test_a_precision_is_reached_with_the_launches_it_asks_for():
    launches = FLOOR.launches_for(0.05)
    assert FLOOR.knows(launches) <= 0.05 < FLOOR.knows(launches - 1)
    assert FLOOR.launches_for(10.0) == 3
    assert FLOOR.knows(1) == math.inf


def test_fewer_requests_vary_more_and_more_are_not_trusted_to_vary_less():
    assert FLOOR.at(4).spread == pytest.approx(0.2)
    assert FLOOR.at(64) == FLOOR.at(16) == FLOOR


def test_floors_are_kept_by_machine_engine_model_and_objective(tmp_path):
    kept = Calibration(tmp_path / "new", hardware="h1")
    second = NoiseFloor(objective="b", spread=0.2, pairs=6, requests=8)
    kept.keep_noise(FLOOR, engine="e", model="m")
    kept.keep_noise(second, engine="e", model="m")
    assert kept.noise(engine="e", model="m", objective="a") == FLOOR
    assert kept.noise(engine="e", model="m", objective="b") == second
    assert kept.noise(engine="e", model="other", objective="a") is None
    assert Calibration(tmp_path / "new", hardware="h2").noise(engine="e", model="m", objective="a") is None
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".llmopt", "calibration.json"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"schema_version": 99, "floors": {}, "clients": {}}',
        '{"schema_version": 2, "clients": {}, "floors": {"h e m a": {"x": 1}}}',
    ],
)
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(StorageError, match=r"calibration\.json"):
        Calibration(tmp_path, hardware="h").noise(engine="e", model="m", objective="a")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        Calibration(tmp_path / "file", hardware="h").keep_noise(FLOOR, engine="e", model="m")


def test_our_own_error_is_kept_by_streams(tmp_path):
    kept = Calibration(tmp_path, hardware="h")
    assert kept.client_error_ms(4) is None
    kept.keep_noise(FLOOR, engine="e", model="m")
    kept.keep_client({1: 0.5, 16: 2.0, 64: 8.0})
    assert [kept.client_error_ms(n) for n in (1, 4, 16, 17, 500)] == [0.5, 2.0, 2.0, 8.0, 8.0]
    assert Calibration(tmp_path, hardware="other").client_error_ms(4) is None
    assert kept.noise(engine="e", model="m", objective="a") is not None
