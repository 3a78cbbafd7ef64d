"""Limits that nothing reaches are named, with the nearest value that was seen."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmopt.engines.llamacpp import LlamaCpp
from llmopt.errors import UsageError
from llmopt.hardware.probe import probe
from llmopt.messages import set_language
from llmopt.objective import parse_constraints
from llmopt.records import Estimate, Load, Measurement, ModelInfo, Task
from llmopt.study.limits import refuse_hopeless, unreached


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


@pytest.mark.parametrize(("language", "words"), [("en", "cannot be kept"), ("ko", "지킬 수 없는 제한입니다")])
def test_a_memory_limit_below_the_weights_is_refused_with_what_they_take(language, words):
    task = Task(load=Load(streams=1), max_tokens=16, prompt_tokens=64)
    model = ModelInfo(
        name="m", path="m.gguf", format="gguf", weight_bytes=98_000_000, layers=2, hidden_size=64, heads=2, kv_heads=2,
        head_dim=32, architecture="llama", vocabulary=1000, feed_forward=128, context_length=2048,
    )  # fmt: skip
    launch = {"context": 1024, "slots": 1}
    prepared = SimpleNamespace(
        engine=LlamaCpp(), model=model, hardware=probe(), baseline=SimpleNamespace(launch=launch)
    )  # fmt: skip
    refuse_hopeless(prepared, task, parse_constraints(["memory<2GB"]))
    set_language(language)
    try:
        with pytest.raises(UsageError) as caught:
            refuse_hopeless(prepared, task, parse_constraints(["memory<2GB", "memory<50MB"]))
        assert words in caught.value.what
        assert "memory<50MB" in caught.value.what
        assert "98MB" in caught.value.what
        assert "98MB" in caught.value.next_step
    finally:
        set_language(None)
