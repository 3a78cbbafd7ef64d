"""Recovery advice: always another trial's settings, legal, in order, and at an end after a few attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.failures import Advice, advise, classify
from llmopt.failures.advice import CONCEPTS, parse_adjustment
from llmopt.failures.catalogue import catalogue
from llmopt.failures.classify import Failure

VLLM = {
    "max_num_seqs": 64,
    "max_num_batched_tokens": 4096,
    "max_model_len": 8192,
    "gpu_memory_utilization": 0.9,
    "quantization": None,
    "kv_cache_dtype": "auto",
    "dtype": "float16",
    "enforce_eager": False,
}
LLAMA = {
    "slots": 4,
    "context": 8192,
    "kv_unified": False,
    "batch": 2048,
    "ubatch": 512,
    "cache_type_k": "f16",
    "cache_type_v": "f16",
    "flash_attention": "off",
    "gpu_layers": 99,
}


def of(identifier: str, **values: str) -> Failure:
    row = catalogue()[identifier]
    return Failure(id=row.id, category=row.category, role=row.role, recovery=row.recovery, values=values)


def chain(failure: Failure, settings, **limits) -> list[Advice]:
    """Follow advice until it ends, as a study would."""
    followed: list[Advice] = []
    while not followed or not followed[-1].final:
        advice = advise(failure, settings, done=[each.label for each in followed], **limits)
        settings = advice.settings
        followed.append(advice)
        assert len(followed) < 50
    return followed


def test_the_cache_is_given_more_room_before_requests_are_given_up() -> None:
    followed = chain(of("MEM-002"), VLLM, most_attempts=10)
    assert [dict(each.changes) for each in followed] == [
        {"gpu_memory_utilization": 0.93},
        {"max_num_seqs": 32},
        {"max_num_batched_tokens": 2048},
        {"enforce_eager": True},
        {"quantization": "int8"},
        {},
    ]
    assert followed[-1].action == "infeasible"
    assert followed[-2].settings["max_num_seqs"] == 32


def test_after_the_most_attempts_it_is_infeasible() -> None:
    followed = chain(of("MEM-002"), VLLM, most_attempts=2)
    assert [each.action for each in followed] == ["adjust", "adjust", "infeasible"]


def test_the_given_settings_are_never_touched() -> None:
    before = dict(VLLM)
    advice = advise(of("MEM-006"), VLLM, done=["MEM-006:free_gpu"])
    assert before == VLLM
    assert advice.changes == {"max_num_seqs": 32}


def test_a_figure_from_the_log_becomes_the_setting() -> None:
    log = (
        "ValueError: To serve at least one request with the model's max seq len (131072), 16.00 GiB KV cache is needed, "
        "which is larger than the available KV cache memory (5.12 GiB). Based on the available memory, the estimated "
        "maximum model length is 41936."
    )
    advice = advise(classify(log, engine="vllm"), {**VLLM, "max_model_len": 131072}, context_per_slot=1024)
    assert advice.changes == {"max_model_len": 41936}


def test_a_missing_figure_skips_to_the_next_step() -> None:
    assert advise(of("MEM-003"), VLLM).changes == {"kv_cache_dtype": "fp8"}


def test_no_adjustment_goes_below_what_a_request_needs() -> None:
    failure = of("MEM-003", estimated="700")
    advice = advise(failure, VLLM, context_per_slot=1000)
    assert "max_model_len" not in advice.changes


def test_fewer_slots_keep_the_context_of_each() -> None:
    advice = advise(of("MEM-010"), LLAMA, context_per_slot=2048)
    assert advice.changes == {"slots": 2, "context": 4096}
    assert advise(of("MEM-010"), {**LLAMA, "kv_unified": True, "context": 2048}, context_per_slot=2048).changes == {
        "cache_type_v": "q8_0",
        "cache_type_k": "q8_0",
    }


def test_one_slot_cannot_be_halved() -> None:
    advice = advise(of("MEM-010"), {**LLAMA, "slots": 1, "context": 2048}, context_per_slot=2048)
    assert "slots" not in advice.changes


def test_a_quantised_v_cache_turns_flash_attention_on() -> None:
    assert advise(of("CFG-011"), LLAMA).changes == {"flash_attention": "on"}
    assert advise(of("CFG-004"), VLLM | {"dtype": "bfloat16"}).changes == {"dtype": "float16"}
    assert advise(of("CFG-006"), VLLM | {"quantization": "awq"}).changes == {"quantization": None}


def test_ports_are_tried_three_times() -> None:
    followed = chain(of("NET-001"), VLLM, most_attempts=10)
    assert [(each.action, each.attempt) for each in followed] == [
        ("new_port", 1),
        ("new_port", 2),
        ("new_port", 3),
        ("infeasible", 1),
    ]


def test_waiting_says_how_long() -> None:
    advice = advise(of("DRV-005"), VLLM)
    assert (advice.action, advice.wait_s) == ("wait", 60.0)


@pytest.mark.parametrize("identifier", ["HUB-001", "DRV-002", "TOK-004"])
def test_what_needs_a_person_is_never_tried_again(identifier: str) -> None:
    assert advise(of(identifier), VLLM).final


def test_unknown_failures_are_infeasible_at_once() -> None:
    assert advise(classify("gibberish"), VLLM).action == "infeasible"


@pytest.mark.parametrize("settings", [VLLM, LLAMA, {}], ids=["vllm", "llamacpp", "none"])
@pytest.mark.parametrize("row", catalogue().rows, ids=lambda row: row.id)
def test_every_chain_ends_and_speaks(row, settings) -> None:
    for advice in chain(of(row.id), settings, most_attempts=6):
        assert advice.text
        assert set(advice.settings) == set(settings)
        assert (advice.action == "adjust") == bool(advice.changes)


@pytest.mark.parametrize("text", ["slots", "nothing/2", "slots/2,", "slots//2", ""])
def test_a_malformed_adjustment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_adjustment(text)


@given(
    st.sampled_from([row.id for row in catalogue().rows]),
    st.dictionaries(
        st.sampled_from([name for names in CONCEPTS.values() for name in names]),
        st.one_of(st.integers(-5, 10**6), st.floats(0, 1), st.booleans(), st.none(), st.sampled_from(["f16", "x", ""])),
    ),
    st.integers(0, 10**6),
)
def test_advice_never_fails_whatever_the_settings(identifier, settings, need) -> None:
    for advice in chain(of(identifier, estimated="12", derived="x"), settings, context_per_slot=need):
        for name, value in advice.changes.items():
            assert value != settings.get(name) or advice.settings[name] == value
            if isinstance(value, int) and not isinstance(value, bool):
                assert value >= 0
