"""Any sequence of starts, stops and kills leaves exactly the processes that were not stopped or killed."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llmopt.runtime.guardian import Child, Guardian
from tests.waiting import until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containment of this depth needs Linux")

TREES = {
    "single": (["sleep", "1000"], ["sleep"]),
    "family": (["sh", "-c", "sleep 1000 & sleep 1000 & wait"], ["sh", "sleep", "sleep"]),
    "deaf": (["sh", "-c", "trap '' TERM; sleep 1000 & while :; do wait; done"], ["sh", "sleep"]),
    "emigrant": (["sh", "-c", "setsid -f sleep 1000; exec sleep 1000"], ["sleep", "sleep"]),
}
"""Program and arguments, and the names of its processes once it is up: their number alone is right for a moment before
(the emigrant is a shell and ``setsid``, then three, then two)."""


def becomes(condition, what: str) -> None:
    assert until(condition, 15), what


def names(pids: tuple[int, ...]) -> list[str]:
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid).name())
    return sorted(found)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Supervision(RuleBasedStateMachine):
    """The model: which children should live, and every process ever seen."""

    @initialize(cgroups=st.booleans())
    def start(self, cgroups: bool) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.cgroups = cgroups
        self.guardian = Guardian(self.folder / "guard", cgroups=cgroups)
        self.living: dict[Child, int] = {}
        self.seen: set[int] = set()

    @precondition(lambda self: len(self.living) < 4)
    @rule(kind=st.sampled_from(sorted(TREES)))
    def spawn(self, kind: str) -> None:
        argv, programs = TREES[kind]
        child = self.guardian.spawn(argv, env={}, log_path=self.folder / "log", cwd=self.folder)
        becomes(lambda: names(child.pids()) == programs, f"{kind} is up")
        self.living[child] = len(programs)
        self.seen |= set(child.pids())

    @precondition(lambda self: self.living)
    @rule(number=st.integers(0, 9), grace_s=st.sampled_from([0.0, 0.05]))
    def stop(self, number: int, grace_s: float) -> None:
        child = list(self.living)[number % len(self.living)]
        assert child.stop(grace_s).survivors == ()
        del self.living[child]
        assert child.poll() is not None
        assert child.pids() == ()

    @precondition(lambda self: self.living)
    @rule(number=st.integers(0, 9))
    def main_process_is_killed(self, number: int) -> None:
        child = list(self.living)[number % len(self.living)]
        os.kill(child.pid, signal.SIGKILL)
        status = child.wait(15)
        assert status is not None
        assert status.signal == signal.SIGKILL
        becomes(lambda: child.pids() == (), "the rest follows")
        del self.living[child]

    @rule(halves=st.sampled_from([(0,), (1,), (0, 1), (1, 0)]))
    def guardian_is_killed(self, halves: tuple[int, ...]) -> None:
        for half in halves:
            os.kill(self.guardian.pids[half], signal.SIGKILL)
        becomes(lambda: self.guardian.gone, "the loss is noticed")
        for child in self.living:
            assert child.wait(15) is not None
            assert child.stop().how == "lost"
        self.living.clear()
        becomes(lambda: not any(alive(pid) for pid in self.seen), "its trees are gone")
        self.guardian.close()
        self.guardian = Guardian(self.folder / "guard", cgroups=self.cgroups)

    @invariant()
    def exactly_the_living_live(self) -> None:
        if not hasattr(self, "living"):
            return
        for child, size in self.living.items():
            assert child.poll() is None
            assert len(child.pids()) == size
        expected = {pid for child in self.living for pid in child.pids()}
        becomes(lambda: {pid for pid in self.seen if alive(pid)} == expected, "no more and no fewer")
        records = self.folder / "guard"
        becomes(lambda: len(list(records.glob("*.json"))) == len(self.living), "a record for each, and no other")

    def teardown(self) -> None:
        if hasattr(self, "guardian"):
            self.guardian.close()
            assert not any(alive(pid) for pid in self.seen)
            self.place.cleanup()


COMMON = {"deadline": None, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck), "database": None}
TestSupervision = Supervision.TestCase
TestSupervision.settings = settings(max_examples=6, stateful_step_count=15, **COMMON)


PARTS = 10
"""Of the long run of 5,000 steps: each part is a test of its own, so that it can be run alone."""


def _part(number: int) -> type:
    machine = type(f"Longer{number}", (Supervision,), {})
    case = seed(number)(machine).TestCase
    case.settings = settings(max_examples=100 // PARTS, stateful_step_count=50, **COMMON)
    return pytest.mark.long(pytest.mark.timeout(3600)(case))


for _number in range(PARTS):
    globals()[f"TestLonger{_number}"] = _part(_number)
