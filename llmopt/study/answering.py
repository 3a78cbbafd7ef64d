"""Quality alone: every item answered once more only where no kept answer fits; no speed is measured.

Three ways to answer: generated replies, letters by the top log-probabilities of one token, and likelihoods of given
continuations. The last two are used only on an engine that proves them; one measurement never mixes ways for a kind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Literal

from llmopt.errors import DataError
from llmopt.measure.client import Client
from llmopt.measure.letters import answer_by_letters, proves_logprobs
from llmopt.measure.likelihood import answer_by_likelihood, prove_likelihood
from llmopt.measure.load import drive
from llmopt.measure.quality import quality
from llmopt.records import Configuration, Endpoint, Item, Measurement, Outcome, Request, Sample
from llmopt.search.trial import EngineHost, TrialResult
from llmopt.search.workload import request_for
from llmopt.study.kept_answers import KeptAnswers
from llmopt.study.prepare import Prepared
from llmopt.workload.lm_eval_tasks import LIKELIHOOD
from llmopt.workload.repeats import repeats_for

__all__ = ["Choices", "answer_items"]

Choices = Literal["generated", "logprobs"]
OnSample = Callable[[Sample], None]
LETTERS = {"logprobs": True, "top_logprobs": 20}


async def answer_items(
    host: EngineHost,
    prepared: Prepared,
    configuration: Configuration,
    items: Sequence[Item],
    *,
    choices: Choices = "generated",
    on_sample: OnSample | None = None,
) -> TrialResult:
    """Scores of ``items`` under one configuration. Raises DataError where the engine cannot answer in the way asked."""
    work, kept = prepared.work, KeptAnswers(prepared)
    requests = [
        _request(item, configuration, prepared, choices, repeat)
        for repeat in range(repeats_for(configuration.request, work.repeats))
        for item in items
    ]
    answers = [kept.get(configuration, one) for one in requests]
    known = {place: found for place, found in enumerate(answers) if found is not None}
    for sample in known.values():
        _told(on_sample, sample)
    missing = [place for place in range(len(requests)) if place not in known]
    if missing:
        by_id = {item.id: item for item in items}
        async with AsyncExitStack() as stack:
            hosted = await stack.enter_async_context(host.launch(configuration))
            asked = [requests[place] for place in missing]
            asking = _Asking(hosted.engine.endpoint, prepared, by_id, on_sample)
            found = await asking.all(asked, choices)
            hosted.engine.check()
        kept.put(configuration, asked, found)
        known |= dict(zip(missing, found, strict=True))
    samples = tuple(known[place] for place in range(len(requests)))
    scores = work.judge.scores({item.id: item for item in items}, samples)
    return TrialResult(
        outcome=Outcome.DONE, measurement=Measurement(estimates=quality(items, scores)), samples=samples, scores=scores
    )


class _Asking:
    """Asks one running engine."""

    def __init__(
        self, endpoint: Endpoint, prepared: Prepared, items: dict[str, Item], on_sample: OnSample | None
    ) -> None:
        self._endpoint = endpoint
        self._prepared = prepared
        self._items = items
        self._on_sample = on_sample

    async def all(self, requests: Sequence[Request], choices: Choices) -> list[Sample]:
        """The samples in the order of ``requests``."""
        by_way: dict[str, list[int]] = {}
        for place, one in enumerate(requests):
            by_way.setdefault(_way(self._items[one.item_id], choices), []).append(place)
        ways: dict[str, Callable[[list[Request]], Awaitable[list[Sample]]]] = {
            "generated": self._generated,
            "logprobs": self._letters,
            LIKELIHOOD: self._likelihoods,
        }
        found: dict[int, Sample] = {}
        for way, places in by_way.items():
            found |= dict(zip(places, await ways[way]([requests[place] for place in places]), strict=True))
        return [found[place] for place in range(len(requests))]

    async def _generated(self, requests: list[Request]) -> list[Sample]:
        work = self._prepared.work
        found: dict[int, Sample] = {}
        async with Client(self._endpoint, timeout_s=work.request_timeout_s) as client:
            for places in _passes(requests):
                asked = [requests[place] for place in places]
                run = await drive(client, asked, work.load, on_sample=self._on_sample)
                by_item = {sample.item_id: sample for sample in run.samples}
                found |= {place: by_item.get(requests[place].item_id) or _lost(requests[place]) for place in places}
        return [found[place] for place in range(len(requests))]

    async def _letters(self, requests: list[Request]) -> list[Sample]:
        if not await proves_logprobs(self._endpoint):
            raise DataError("quality.no_logprobs", engine=self._prepared.engine.name)
        return [
            await self._one(answer_by_letters(self._endpoint, self._items[r.item_id], r.messages)) for r in requests
        ]

    async def _likelihoods(self, requests: list[Request]) -> list[Sample]:
        reader = await prove_likelihood(self._endpoint)
        if reader is None:
            raise DataError("quality.no_likelihood", engine=self._prepared.engine.name)
        found = []
        for one in requests:
            pairs = [tuple(pair) for pair in self._items[one.item_id].meta[LIKELIHOOD]]
            found.append(await self._one(answer_by_likelihood(reader, one.item_id, pairs)))
        return found

    async def _one(self, answering: Awaitable[Sample]) -> Sample:
        sample = await answering
        _told(self._on_sample, sample)
        return sample


def _way(item: Item, choices: Choices) -> str:
    if LIKELIHOOD in item.meta:
        return LIKELIHOOD
    return choices if item.kind == "choice" else "generated"


def _request(item: Item, configuration: Configuration, prepared: Prepared, choices: Choices, repeat: int) -> Request:
    """What determines the answer, for the cache; and what is sent, where it is generated."""
    one = request_for(item, configuration.request, prepared.work, repeat=repeat)
    way = _way(item, choices)
    if way == "generated":
        return one
    certain = replace(one.params, temperature=0.0, top_p=None, top_k=None, min_p=None, seed=None, max_tokens=1)
    if way == "logprobs":
        return replace(one, params=certain, extra=LETTERS)
    pairs = [{"role": "context", "content": c, "continuation": t} for c, t in item.meta[LIKELIHOOD]]
    return replace(one, messages=pairs, params=certain, extra={LIKELIHOOD: True})


def _passes(requests: Sequence[Request]) -> list[list[int]]:
    """Places of requests, no item twice in a pass, so that an answer belongs to exactly one of its requests."""
    passes: list[list[int]] = []
    seen: dict[str, int] = {}
    for place, one in enumerate(requests):
        turn = seen.get(one.item_id, 0)
        seen[one.item_id] = turn + 1
        if turn == len(passes):
            passes.append([])
        passes[turn].append(place)
    return passes


def _lost(one: Request) -> Sample:
    """What stands for a request that was never sent because the endpoint was gone."""
    return Sample(item_id=one.item_id, planned_s=0.0, sent_s=0.0, ended_s=0.0, error="closed_early")


def _told(on_sample: OnSample | None, sample: Sample) -> None:
    if on_sample is not None:
        on_sample(sample)
