"""How long the guardian is waited for: only time in which somebody could have answered counts."""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeout
from types import SimpleNamespace

import pytest

from llmopt.errors import EngineError
from llmopt.runtime import guardian
from llmopt.runtime.guardian import Guardian


class Answer:
    """A future whose waits take as long as the script says; the last one brings the answer, if there is one."""

    def __init__(self, now: list[float], waits: list[float], answer: str | None) -> None:
        self.now, self.waits, self.answer = now, waits, answer

    def result(self, wait_s: float) -> str:
        took_s = self.waits.pop(0) if self.waits else None
        if took_s is None and self.answer is not None:
            return self.answer
        self.now[0] += wait_s if took_s is None else took_s
        raise FutureTimeout


@pytest.fixture
def now(monkeypatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(guardian, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: None))
    monkeypatch.setattr(Guardian, "_where_it_is", lambda _: "")
    return clock


def test_a_guardian_that_hangs_is_reported_after_the_cap(now) -> None:
    with pytest.raises(EngineError) as silent:
        Guardian.__new__(Guardian)._await(Answer(now, [], None), 30.0)
    assert silent.value.key == "guardian.silent"
    assert now[0] == pytest.approx(130.0)


def test_while_our_process_stands_still_nobody_is_blamed(now) -> None:
    """Both were stopped for an hour; the guardian goes on 20 s after us, and still has its whole time."""
    waits = [1.0] * 25 + [3600.0] + [1.0] * 20
    assert Guardian.__new__(Guardian)._await(Answer(now, waits, "answer"), 30.0) == "answer"


def test_an_answer_at_once_costs_no_wait(now) -> None:
    assert Guardian.__new__(Guardian)._await(Answer(now, [], "answer"), 30.0) == "answer"
    assert now[0] == 100.0
