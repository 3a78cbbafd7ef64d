"""Several request settings of one launch, asked at once: quality only, never a speed.

An item is asked of all of them before the next one. Answers that were kept of earlier trials stand for new ones here,
and only here: a kept answer has no speed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from llmopt.measure.diversity import diversity
from llmopt.measure.load import OnSample
from llmopt.measure.quality import quality
from llmopt.records import Configuration, Estimate, Item, Load, Measurement, Request, Sample
from llmopt.search.asked import Asked, TrialResult
from llmopt.search.workload import Workload, request_for
from llmopt.workload.repeats import repeats_for

__all__ = ["Kept", "Together", "various"]


class Kept(Protocol):
    """Answers by everything that determines them, so that no question is asked twice."""

    def get(self, configuration: Configuration, request: Request) -> Sample | None:
        """The kept answer, or None."""
        ...

    def put(self, configuration: Configuration, requests: Sequence[Request], samples: Sequence[Sample]) -> None:
        """Keep those answers (one a request, in order) that may be used again; on disk when this returns."""
        ...


class Together:
    """One such measurement: what is left to ask, and what came of it."""

    def __init__(
        self,
        asked: Sequence[Asked],
        items: Sequence[Item],
        work: Workload,
        *,
        kept: Kept | None,
        on_sample: OnSample | None,
    ) -> None:
        self._asked = asked
        self._items = items
        self._work = work
        self._kept = kept
        self._on_sample = on_sample
        self._samples: list[list[Sample]] = [[] for _ in asked]
        self._open: dict[str, tuple[int, int, Request]] = {}
        """Name of a request under way → place of its configuration, repeat, and the plain request."""
        for place, repeat, request in self._questions():
            known = kept.get(asked[place].configuration, request) if kept is not None else None
            if known is None:
                self._open[f"{place}.{repeat}:{request.item_id}"] = (place, repeat, request)
            else:
                self._note(place, repeat, known)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to ask."""
        return all(self._asked[place].decided.is_set() for place, _, _ in self._open.values())

    def load(self, places: int) -> Load:
        """As many streams as the settings would have one after the other, as far as the engine has ``places``."""
        streams = (self._work.load.streams or 1) * len(self._asked)
        return Load(streams=min(streams, max(places, 1)), seed=self._work.load.seed)

    def requests(self, extra: Mapping[str, Any]) -> Iterator[Request]:
        """What is left, without those settings whose referee has ended them meanwhile."""
        for name, (place, _, request) in self._open.items():
            if not self._asked[place].decided.is_set():
                yield replace(request, item_id=name, extra={**request.extra, **extra})

    def answered(self, sample: Sample) -> None:
        """One of the requests came back."""
        place, repeat, request = self._open[sample.item_id]
        named = replace(sample, item_id=request.item_id)
        if self._kept is not None:
            self._kept.put(self._asked[place].configuration, [request], [named])
        self._note(place, repeat, named)

    @property
    def samples(self) -> list[Sample]:
        """Everything so far."""
        return [sample for found in self._samples for sample in found]

    def results(self, memory: Mapping[str, Estimate]) -> list[TrialResult]:
        """How each of them ended; ``memory`` is what their engine took, if one ran."""
        results = []
        for one, found in zip(self._asked, self._samples, strict=True):
            scores = one.scores(found)
            estimates = {**quality(self._items, scores), **various(one, self._items, found, self._work), **memory}
            results.append(one.result(Measurement(estimates=estimates), tuple(found), scores))
        return results

    def _questions(self) -> Iterator[tuple[int, int, Request]]:
        for repeat, item in itertools.product(range(self._work.repeats), self._items):
            for place, one in enumerate(self._asked):
                params = one.configuration.request
                if repeat < repeats_for(params, self._work.repeats):
                    yield place, repeat, request_for(item, params, self._work, repeat=repeat)

    def _note(self, place: int, repeat: int, sample: Sample) -> None:
        if self._on_sample is not None:
            self._on_sample(sample)
        self._samples[place].append(sample)
        if not repeat:  # a referee counts every item once
            self._asked[place].note(sample)


def various(asked: Asked, items: Sequence[Item], samples: Sequence[Sample], work: Workload) -> dict[str, Estimate]:
    """How different several answers to one item are, where there are several."""
    greedy = asked.configuration.request.temperature == 0
    return diversity(items, samples, greedy=greedy) if work.repeats > 1 else {}
