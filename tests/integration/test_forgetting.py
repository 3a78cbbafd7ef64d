"""An engine that remembers prompts takes the next trial without a restart, and no trial profits from an earlier one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.engines.base import Forgetting
from llmopt.engines.fake import Fake
from llmopt.records import Settings
from llmopt.search.trial import Bench, TrialResult
from llmopt.study.host import StudyHost
from llmopt.study.prepare import Prepared

MANNERS = {
    "a flush": Forgetting(calls=(("/flush_cache", {}),)),
    "a call the server does not know": Forgetting(calls=(("/no_such_thing", {}),)),
    "nothing but a restart": None,
}


class Remembering(Fake):
    """The fake engine with a prefix cache, and one manner of being made to forget."""

    def __init__(self, manner: str, scenario: Path) -> None:
        super().__init__(scenario=scenario, time_scale=0.02)
        self._manner = manner

    def remembers(self, settings: Settings) -> bool:
        del settings
        return self._manner != "never told"

    def forget(self, settings: Settings, turn: int) -> Forgetting | None:
        del settings
        return Forgetting(fields={"cache_salt": f"{turn}"}) if self._manner == "a salt" else MANNERS[self._manner]


async def three_trials(prepared: Prepared, manner: str, folder: Path) -> tuple[list[TrialResult], str | None]:
    """The same questions three times on one launch, the second time at another temperature; the launch at the end."""
    scenario = folder / "scenario.json"
    scenario.write_text(json.dumps({"remembers": True}))
    host = StudyHost(
        engine=Remembering(manner, scenario),
        model=prepared.model,
        hardware=prepared.hardware,
        task=prepared.task,
        run_root=folder,
    )
    plain = replace(prepared.baseline, request=replace(prepared.baseline.request, temperature=0.0))
    warm = replace(plain, request=replace(plain.request, temperature=0.7))
    quick = replace(prepared.work, warm_up=replace(prepared.work.warm_up, cap_s=0.2))
    async with Bench(host, quick) as bench:
        found = [await bench.run(one, prepared.search_items) for one in (plain, warm, plain)]
        return found, bench.launch_key


def cached(result: TrialResult) -> list[int | None]:
    return [sample.cached_tokens for sample in sorted(result.samples, key=lambda sample: sample.item_id)]


@pytest.mark.parametrize("manner", ["a flush", "a salt", "a call the server does not know", "nothing but a restart"])
async def test_no_trial_profits_from_an_earlier_one(prepared, guardian, monkeypatch, tmp_path, manner):
    monkeypatch.setattr("llmopt.study.host.Guardian.shared", lambda: guardian)
    found, running = await three_trials(prepared, manner, tmp_path)
    assert len({sum(cached(result)) for result in found}) == 1
    restarted = [result.launch_s > 0 for result in found]
    if manner in {"a flush", "a salt"}:
        assert restarted == [True, False, False]
        assert running == prepared.baseline.launch_key
    else:
        assert restarted == [True, True, True]
    # what is compared is what was asked: the same prompts, token for token
    tokens = [[sample.prompt_tokens for sample in result.samples] for result in found]
    assert sorted(tokens[0]) == sorted(tokens[1]) == sorted(tokens[2])
    assert {s.item_id: s.text for s in found[0].samples} == {s.item_id: s.text for s in found[2].samples}


async def test_the_fake_engine_would_profit_if_it_were_not_told(prepared, guardian, monkeypatch, tmp_path):
    monkeypatch.setattr("llmopt.study.host.Guardian.shared", lambda: guardian)
    (first, second, _), _ = await three_trials(prepared, "never told", tmp_path)
    assert sum(cached(second)) > sum(cached(first))
