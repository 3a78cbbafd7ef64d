"""Holm by intervals, the claim about all pairs, the gate, groups of launches, cost, and what a user may name."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import DataError, UsageError
from llmopt.measure.stats.unpaired import ratio_of_groups
from llmopt.measure.stats.verdicts import unpaired_speed_verdict
from llmopt.paths import Workspace
from llmopt.records import Estimate, Measurement, Outcome, Verdict, VerdictKind
from llmopt.search.trial import TrialResult
from llmopt.study.compare import gate, overall, step_down
from llmopt.study.contenders import find_result, load_result, read_pairs, wanted
from llmopt.study.launches import costs, over_launches


def judge(p):
    """A comparison with p-value ``p``: better where its share of the 5 % allows."""

    def at(comparisons):
        kind = VerdictKind.BETTER if p <= 0.05 / comparisons else VerdictKind.TIE
        return Verdict(kind=kind, objective="", effect=Estimate(value=0, unit="", n=comparisons), relative=False)

    return at


def holm(p_values):
    """Holm's procedure by its textbook definition."""
    told = [False] * len(p_values)
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        if p_values[place] > 0.05 / (len(p_values) - rank):
            break
        told[place] = True
    return told


@given(st.lists(st.floats(0, 0.2), max_size=8))
def test_step_down_is_holm(p_values):
    found = step_down([judge(p) for p in p_values])
    assert [verdict.kind is VerdictKind.BETTER for verdict in found] == holm(p_values)


def entry(before, after, quality, speed=None, *, value=0.0, low=None, ratio=1.0, ratio_low=None):
    def plain(kind, value, low, *, relative):
        effect = {"value": value, "low": low, "high": None, "n": 9}
        return {"kind": kind, "effect": effect, "relative": relative, "more_samples": None}

    return {
        "before": before,
        "after": after,
        "quality": plain(quality, value, low, relative=False),
        "speed": plain(speed, ratio, ratio_low, relative=True) if speed else None,
    }


def test_a_winner_must_beat_every_other():
    beats_one = [entry("a", "b", "better"), entry("a", "c", "tie"), entry("b", "c", "tie")]
    assert overall(beats_one, "abc")["winner"] is None
    assert overall(beats_one, "abc")["kind"] == "tie"
    beats_all = [entry("a", "b", "better"), entry("a", "c", "tie"), entry("b", "c", "worse")]
    assert overall(beats_all, "abc")["winner"] == "b"
    by_speed = [entry("a", "b", "equivalent", "worse")]
    assert overall(by_speed, "ab")["winner"] == "a"
    assert overall(by_speed, "ab")["objective"] == "speed"
    assert overall([entry("a", "b", "undecided", "tie")], "ab")["kind"] == "undecided"


@pytest.mark.parametrize(
    ("kind", "ratio", "low", "status"),
    [
        ("worse", 0.90, 0.88, "failed"),
        ("worse", 0.97, 0.96, "passed"),
        ("worse", 0.97, 0.94, "open"),
        ("undecided", 0.90, 0.70, "open"),
        ("undecided", 0.90, None, "open"),
        ("better", 1.20, 1.10, "passed"),
    ],
)
def test_the_gate_counts_only_losses_that_are_shown(kind, ratio, low, status):
    found = gate([entry("a", "b", "equivalent", kind, low=-0.01, ratio=ratio, ratio_low=low)], 0.05)
    assert {check["figure"]: check["status"] for check in found["checks"]} == {"quality": "passed", "speed": status}
    assert found["failed"] is (status == "failed")


def test_a_ratio_of_groups_covers_what_it_says_and_needs_two_on_each_side():
    source = random.Random(3)
    covered = 0
    for _ in range(400):
        a = [math.exp(source.gauss(0.2, 0.05)) for _ in range(3)]
        b = [math.exp(source.gauss(0.0, 0.10)) for _ in range(4)]
        found = ratio_of_groups(a, b)
        covered += found.low <= math.exp(0.2) <= found.high
    assert covered >= 0.92 * 400
    assert ratio_of_groups([2.0], [1.0, 1.1]).low is None
    assert ratio_of_groups([2.0, 2.0], [1.0, 1.0]) == pytest.approx((2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="positive"):
        ratio_of_groups([0.0, 1.0], [1.0, 1.0])


def test_a_slower_group_is_worse_and_one_launch_is_undecided():
    slow, fast = [10.0, 10.1, 9.9], [20.0, 20.3, 19.8]
    found = unpaired_speed_verdict(slow, fast)
    assert found.kind is VerdictKind.WORSE
    assert found.effect.value == pytest.approx(statistics.fmean(slow) / statistics.fmean(fast), rel=1e-3)
    assert unpaired_speed_verdict([10.0], fast).kind is VerdictKind.UNDECIDED


def test_cost_is_the_price_of_the_time_it_takes():
    speed = Estimate(value=60.0, unit="answers/min", n=3, low=30.0, high=120.0)
    found = costs({"answers_per_minute": speed}, 3.6)["cost_per_thousand_answers"]
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 1.0, 2.0))
    assert costs({"answers_per_minute": Estimate(value=0.0, unit="", n=1)}, 3.6) == {}


def test_what_a_user_may_name(tmp_path):
    workspace = Workspace(root=tmp_path)
    one = wanted("org/model@threads=4,prompt-form=examples", workspace)
    assert (one.model, one.changes) == ("org/model", {"threads": "4", "prompt_form": "examples"})
    assert wanted("user@host", workspace).model == "user@host"
    with pytest.raises(DataError):
        find_result("nowhere.json", workspace)
    assert find_result("nowhere", workspace) is None
    folder = workspace.results / "study"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}", encoding="utf-8")
    path = find_result("study", workspace)
    assert path == folder / "result.json"
    with pytest.raises(DataError):
        load_result(path)


@given(st.text(max_size=40))
def test_any_pair_is_read_or_refused(text):
    try:
        found = read_pairs([text])
    except UsageError:
        return
    assert all(name and value for name, value in found.items())


@given(st.binary(max_size=80))
def test_any_file_is_a_result_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_bytes(content)
    with pytest.raises(DataError):
        load_result(path)


def test_the_largest_value_of_several_launches_is_the_largest_and_not_their_mean():
    def launch(largest, mean):
        estimates = {
            "ttft_max_ms": Estimate(value=largest, unit="ms", n=10),
            "engine_waiting_max": Estimate(value=largest / 100, unit="gauge", n=3),
            "ttft_mean_ms": Estimate(value=mean, unit="ms", n=10),
            "error_rate": Estimate(value=0.1, unit="share", n=10),
        }
        return TrialResult(outcome=Outcome.DONE, measurement=Measurement(estimates=estimates))

    found = over_launches([launch(900.0, 50.0), launch(100.0, 52.0), launch(200.0, 54.0)], 0.95)
    assert (found["ttft_max_ms"].value, found["ttft_max_ms"].n, found["ttft_max_ms"].low) == (900.0, 30, None)
    assert found["engine_waiting_max"].value == 9.0
    assert found["ttft_mean_ms"].value == pytest.approx(52.0)
    assert found["ttft_mean_ms"].low < 52 < found["ttft_mean_ms"].high
    assert found["error_rate"].n == 30
