"""Limits that nothing reaches are named, with the nearest value that was seen."""

from __future__ import annotations

from llmopt.objective import parse_constraints
from llmopt.records import Estimate, Measurement
from llmopt.study.limits import unreached


def measured(**values) -> Measurement:
    return Measurement(estimates={name: Estimate(value=value, unit="", n=1) for name, value in values.items()})


ROWS = [
    measured(accuracy=0.5, answers_per_minute=100.0, memory_bytes=2e9),
    measured(accuracy=0.8, answers_per_minute=40.0, memory_bytes=3e9),
]


def test_nothing_is_out_of_reach_where_one_configuration_keeps_all_limits():
    assert unreached(parse_constraints(["quality>=50%", "answers_per_minute>90"]), ROWS) == ()
    assert unreached((), ROWS) == ()


def test_the_limit_that_nobody_meets_is_named_with_the_nearest_value():
    (found,) = unreached(parse_constraints(["memory<1GB", "quality>=40%"]), ROWS)
    assert (found.text, found.nearest, found.alone) == ("memory<1GB", 2e9, False)
    (found,) = unreached(parse_constraints(["answers_per_minute>500"]), ROWS)
    assert found.nearest == 100.0
    (found,) = unreached(parse_constraints(["ttft_p95<1ms"]), ROWS)
    assert found.nearest is None


def test_limits_that_exclude_each_other_say_so():
    found = unreached(parse_constraints(["quality>=80%", "answers_per_minute>90"]), ROWS)
    assert found
    assert all(one.alone and one.nearest is not None for one in found)
