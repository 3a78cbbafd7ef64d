"""What an engine's environment holds: what it needs, our switches, the plan's additions, and never a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.runtime.environment import OURS, child_environment


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "LC_ALL", "HF_HOME", "HF_ENDPOINT", "HTTPS_PROXY", "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES",
     "TOKENIZERS_PARALLELISM", "PYTORCH_CUDA_ALLOC_CONF", "OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE", "LD_LIBRARY_PATH"],
)  # fmt: skip
def test_what_engines_need_is_handed_on(name: str) -> None:
    assert child_environment({}, {name: "x"})[name] == "x"


@pytest.mark.parametrize(
    "name",
    ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "VLLM_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD",
     "HF_HUB_TOKEN", "LLAMA_ARG_CTX_SIZE", "PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "EDITOR", "LLMOPT_RUN_TAG"],
)  # fmt: skip
def test_secrets_and_what_would_change_the_engine_are_not(name: str) -> None:
    assert name not in child_environment({}, {name: "x"})


def test_our_switches_win_over_the_surroundings_and_the_plan_over_both() -> None:
    environment = child_environment({"DO_NOT_TRACK": "plan", "A": "b"}, {"VLLM_NO_USAGE_STATS": "0", "A": "no"})
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["DO_NOT_TRACK"] == "plan"
    assert environment["A"] == "b"
    assert OURS.keys() <= environment.keys()


@given(
    st.dictionaries(st.text(min_size=1, max_size=30), st.text(max_size=5)),
    st.sampled_from(["TOKEN", "api_key", "Secret"]),
)
def test_no_name_that_smells_of_a_secret_passes(source: dict[str, str], smell: str) -> None:
    prefixed = {f"HF_{name}_{smell}": value for name, value in source.items()}
    assert child_environment({}, {**source, **prefixed}).keys().isdisjoint(prefixed)
