"""Our own linear algebra takes one thread; nothing else of the process or its children is changed by that."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from llmopt.objective import parse_objectives
from llmopt.records import Parameter
from llmopt.runtime.environment import child_environment
from llmopt.runtime.linear_algebra import one_thread
from llmopt.search.coordinator import Coordinator
from llmopt.search.space import Space

NAMES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def threads() -> set[int]:
    import numpy as np  # noqa: F401 - its library is counted

    found = ThreadpoolController().select(user_api="blas").info()
    assert found
    return {library["num_threads"] for library in found}


def test_what_is_inside_has_one_thread_and_the_user_gets_his_number_back() -> None:
    threads()
    with threadpool_limits(2, user_api="blas"):
        assert threads() == {2}
        with one_thread():
            assert threads() == {1}
        assert threads() == {2}
        with pytest.raises(ValueError, match="inside"), one_thread():
            raise ValueError("inside")
        assert threads() == {2}


def test_a_proposal_is_computed_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmopt.search import proposer_gp

    seen: list[set[int]] = []
    whole = proposer_gp.GaussianProposer._best

    def watched(self, count):
        seen.append(threads())
        return whole(self, count)

    monkeypatch.setattr(proposer_gp.GaussianProposer, "_best", watched)
    space = Space([Parameter(name="threads", level="launch", values=(1, 2), ordinal=True)], engine="none")
    with threadpool_limits(2, user_api="blas"):
        assert Coordinator(space, parse_objectives("answers_per_minute")).ask() is not None
        assert threads() == {2}
    assert seen
    assert all(found == {1} for found in seen)


@pytest.mark.parametrize("users", [{}, {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}])
def test_an_engines_environment_is_what_the_user_set_and_nothing_else(
    users: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in users.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with one_thread():
        inside = child_environment({})
    assert {name: value for name, value in inside.items() if name in NAMES} == users
    assert child_environment({}) == inside
    assert dict(os.environ) == before


def test_it_is_not_loaded_before_something_is_computed() -> None:
    script = "import sys, llmopt.runtime.linear_algebra as a; sys.exit('numpy' in sys.modules or 'threadpoolctl' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
