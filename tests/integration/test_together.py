"""Where nothing but answers is judged: no question is asked twice, and a measurement that was cut short goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llmopt.engines.fake import Fake
from llmopt.records import Configuration, Outcome
from llmopt.search.trial import Bench, Hosted, TrialResult
from llmopt.study.host import StudyHost
from llmopt.study.kept_answers import KeptAnswers
from llmopt.study.prepare import Prepared


class CountingHost(StudyHost):
    """A study's host that counts its launches."""

    launches = 0

    @asynccontextmanager
    async def launch(self, configuration: Configuration) -> AsyncIterator[Hosted]:
        self.launches += 1
        async with super().launch(configuration) as hosted:
            yield hosted


@pytest.fixture
def prepared(prepared):
    """With weights that are told apart: answers of weights that nobody knows are never kept."""
    return replace(prepared, model=replace(prepared.model, sha256="known"))


@pytest.fixture
def host(prepared, guardian, monkeypatch, tmp_path) -> CountingHost:
    monkeypatch.setattr("llmopt.study.host.Guardian.shared", lambda: guardian)
    return host_with(Fake(time_scale=0.02), prepared, tmp_path)


def host_with(engine: Fake, prepared: Prepared, folder: Path) -> CountingHost:
    return CountingHost(
        engine=engine, model=prepared.model, hardware=prepared.hardware, task=prepared.task, run_root=folder / "runs"
    )


def settings(prepared: Prepared, *, temperature: float = 0.0, **launch) -> Configuration:
    plain = prepared.baseline
    request = replace(plain.request, temperature=temperature, top_p=None, top_k=None)
    return replace(plain, launch={**plain.launch, **launch}, request=request)


async def judge(
    host: StudyHost, prepared: Prepared, *configurations: Configuration, told=None, warm_s=0.2
) -> list[TrialResult]:
    quick = replace(prepared.work, warm_up=replace(prepared.work.warm_up, cap_s=warm_s))
    async with Bench(host, quick, kept=KeptAnswers(prepared)) as bench:
        return await bench.run_together(configurations, prepared.search_items, on_sample=told)


def texts(result: TrialResult) -> dict[str, str]:
    return {sample.item_id: sample.text for sample in result.samples}


async def test_settings_that_change_no_answer_need_no_engine(host, prepared):
    (first,) = await judge(host, prepared, settings(prepared))
    told = []
    (again,) = await judge(host, prepared, settings(prepared, threads=1, batch=1024), told=told.append)
    assert host.launches == 1
    assert texts(again) == texts(first)
    assert {score.item_id: score for score in again.scores} == {score.item_id: score for score in first.scores}
    assert len(told) == len(prepared.search_items)
    assert again.measurement.value("quality") == first.measurement.value("quality")
    assert again.launch_s == again.measure_s == 0.0
    assert again.measurement.value("answers_per_minute") is None


@pytest.mark.parametrize("changes", [{"precision": "q4"}, {"temperature": 0.8}])
async def test_settings_that_may_change_answers_are_asked(host, prepared, changes):
    await judge(host, prepared, settings(prepared))
    await judge(host, prepared, settings(prepared, **changes))
    assert host.launches == 2


async def test_of_several_settings_only_those_without_answers_are_asked(host, prepared):
    (known,) = await judge(host, prepared, settings(prepared))
    first, second = await judge(host, prepared, settings(prepared), settings(prepared, temperature=0.8))
    assert texts(first) == texts(known)
    assert set(texts(second)) == set(texts(first))
    assert host.launches == 2


async def test_a_speed_is_never_taken_from_a_kept_answer(host, prepared):
    await judge(host, prepared, settings(prepared))
    quick = replace(prepared.work, warm_up=replace(prepared.work.warm_up, cap_s=0.2))
    async with Bench(host, quick, kept=KeptAnswers(prepared)) as bench:
        measured = await bench.run(settings(prepared), prepared.search_items)
    assert host.launches == 2
    assert measured.measurement.value("answers_per_minute") > 0


async def test_what_was_answered_before_the_engine_died_is_not_asked_again(host, prepared, tmp_path):
    scenario = tmp_path / "scenario.json"
    work = replace(prepared.work, load=replace(prepared.work.load, streams=1))
    many = replace(prepared, work=work, search_items=tuple(
        replace(item, id=f"{item.id}-{k}", question=f"{k}. {item.question}")
        for k in range(10) for item in prepared.search_items
    ))  # fmt: skip
    dies_at = 30  # of some 40 requests beside those of the warm-up, which come first, and of which there are a few
    scenario.write_text(json.dumps({"faults": [{"at": f"request:{dies_at}", "do": "exit:1"}]}))
    dying = host_with(Fake(time_scale=0.02, scenario=scenario), many, tmp_path)
    asked = []
    (cut,) = await judge(dying, many, settings(many), told=asked.append, warm_s=0.05)
    assert cut.outcome is not Outcome.DONE
    answered = sum(sample.ok for sample in asked)
    assert 0 < answered < len(many.search_items)
    again = []
    (whole,) = await judge(host, many, settings(many), told=again.append)
    assert whole.outcome is Outcome.DONE
    kept = [sample for sample in again if sample.item_id in {one.item_id for one in asked if one.ok}]
    assert len(kept) == answered
    assert [sample.ended_s for sample in kept] == [sample.ended_s for sample in asked if sample.ok]
