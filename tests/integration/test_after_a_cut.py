"""After a trial that was cut short the engine still works for a while: the next one begins when it is idle, or anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.engines.fake import Fake
from llmopt.records import Sample, Score, Settings
from llmopt.search import forgetting
from llmopt.search.racing import Decision
from llmopt.search.trial import Bench, TrialResult
from llmopt.study.host import StudyHost

STREAMS = 2
A_WHILE, FOR_EVER = 40, 10**9
"""Steps for which the engine works on a request whose client has gone."""


class Teller(Fake):
    """The scripted engine, which says by gauges, by the order of its answers, or not at all what it works at."""

    def __init__(self, manner: str, scenario: Path) -> None:
        super().__init__(scenario=scenario, time_scale=0.2)
        self.manner = manner
        if manner != "gauges":
            self.metric_names: Mapping[str, str] = {}

    def baseline(self, *given: object) -> Settings:
        settings = super().baseline(*given)  # type: ignore[arg-type]
        return {**settings, "slots": 1} if self.manner == "in turn" else settings

    def in_turn(self, settings: Settings) -> bool:
        del settings
        return self.manner == "in turn"


class TwoAnswersDecide:
    """A referee that has soon seen enough."""

    def __init__(self) -> None:
        self._seen = 0

    def answered(self, sample: Sample, score: Score) -> Decision:
        del sample, score
        self._seen += 1
        return Decision(drop=self._seen > 1, reason="search.raced_out")


async def two_trials(prepared, folder: Path, manner: str, lingers: int) -> tuple[TrialResult, TrialResult]:
    """A trial that is cut short, and one on the same launch at another temperature."""
    scenario = folder / "scenario.json"
    scenario.write_text(json.dumps({"lingers": lingers}))
    engine = Teller(manner, scenario)
    launch = engine.baseline(prepared.model, prepared.hardware, prepared.task)
    host = StudyHost(
        engine=engine, model=prepared.model, hardware=prepared.hardware, task=prepared.task, run_root=folder
    )
    first = replace(prepared.baseline, launch=launch)
    second = replace(first, request=replace(first.request, temperature=0.7))
    quick = replace(prepared.work, warm_up=replace(prepared.work.warm_up, cap_s=0.2))
    async with Bench(host, quick) as bench:
        cut = await bench.run(first, prepared.search_items, referee=TwoAnswersDecide())
        return cut, await bench.run(second, prepared.search_items)


CASES = {
    "gauges say so": ("gauges", A_WHILE, False),
    "gauges never say so": ("gauges", FOR_EVER, True),
    "its turn comes": ("in turn", A_WHILE, False),
    "its turn never comes": ("in turn", FOR_EVER, True),
    "nothing says so": ("not at all", A_WHILE, True),
}


@pytest.mark.parametrize("case", CASES)
async def test_the_next_trial_begins_on_an_idle_engine(prepared, guardian, monkeypatch, tmp_path, case):
    manner, lingers, restarts = CASES[case]
    monkeypatch.setattr("llmopt.study.host.Guardian.shared", lambda: guardian)
    if lingers == FOR_EVER:
        monkeypatch.setattr(forgetting, "PATIENCE_S", 0.3)
        monkeypatch.setattr(forgetting, "TURN_S", 0.3)
    cut, following = await two_trials(prepared, tmp_path, manner, lingers)
    assert cut.fidelity == 0.5
    assert (following.launch_s > 0) == restarts
    assert following.fidelity == 1
    if manner == "gauges":
        assert following.measurement is not None
        most = following.measurement.estimates["engine_running_max"].value
        assert most <= STREAMS  # nothing of the trial before was worked on beside it
