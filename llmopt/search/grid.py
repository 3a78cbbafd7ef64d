"""Random and grid search of our own: every configuration follows from the seed and its position alone."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmopt.records import Configuration
    from llmopt.search.proposer import PastTrial, Question, Result
    from llmopt.search.space import Space

__all__ = ["Grid", "Random", "seeded", "unseen"]

_ATTEMPTS = 64


def seeded(*parts: object) -> random.Random:
    """A source of random numbers that depends on nothing but ``parts``, the same in every process and version."""
    return random.Random(":".join(map(str, parts)))


class Random:
    """Independent draws, ``per_launch`` request settings on each drawn launch to spare restarts.

    The draw at a position depends on the seed and the position, so a resumed study draws what an uninterrupted one
    would have drawn.
    """

    origin = "random"
    stays = False

    def __init__(self, space: Space, *, seed: int, per_launch: int = 3) -> None:
        self._space = space
        self._seed = seed
        self._per_launch = per_launch if space.request_parameters and space.launch_parameters else 1

    def propose(self, question: Question) -> tuple[Configuration, Mapping[str, Any]] | None:
        """The draw of this position; repeated draws where it was seen, then anything unseen."""
        group = question.position // self._per_launch
        for attempt in range(_ATTEMPTS):
            # the first attempts stay on the group's launch; when its request settings are used up, others are drawn
            launch = self._space.draw_launch(seeded(self._seed, "launch", group, attempt // 8))
            if launch is None:
                return None
            source = seeded(self._seed, "request", question.position, attempt)
            drawn = self._space.configuration(self._space.draw_request(launch, source))
            if not question.seen(drawn):
                return drawn, {}
        left = unseen(self._space, question, seeded(self._seed, "rest", question.position))
        return None if left is None else (left, {})

    def learn(self, configuration: Configuration, result: Result, *, sampler: Mapping[str, Any] | None = None) -> None:
        """Draws do not depend on results."""

    def resume(self, past: Sequence[PastTrial]) -> None:
        """Draws do not depend on results."""


class Grid:
    """Every legal configuration once, launches in a seeded order and all request settings of a launch together."""

    origin = "grid"
    stays = False

    def __init__(self, space: Space, *, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._walk = self._configurations()

    def propose(self, question: Question) -> tuple[Configuration, Mapping[str, Any]] | None:
        """The next point of the grid that was not seen."""
        found = next((point for point in self._walk if not question.seen(point)), None)
        return None if found is None else (found, {})

    def learn(self, configuration: Configuration, result: Result, *, sampler: Mapping[str, Any] | None = None) -> None:
        """The grid does not depend on results."""

    def resume(self, past: Sequence[PastTrial]) -> None:  # noqa: ARG002 - the protocol has it
        """Walk again from the start: what was seen is passed over."""
        self._walk = self._configurations()

    def _configurations(self) -> Iterator[Configuration]:
        for launch in self._launches():
            for assignment in self._space.requests(launch):
                yield self._space.configuration(assignment)

    def _launches(self) -> Iterator[dict[str, Any]]:
        listed = self._space.legal_launches
        if listed is None:
            yield from self._space.launches()
            return
        order = list(listed)
        seeded(self._seed, "grid").shuffle(order)
        yield from order


def unseen(space: Space, question: Question, source: random.Random, *, sample: int = 5_000) -> Configuration | None:
    """A configuration of the grid that was not seen (of the running launch, if one is given); None if all were."""
    listed = space.legal_launches
    if question.launch is not None:
        launches: list[Mapping[str, Any]] = [question.launch]
    elif listed is not None:
        launches = source.sample(listed, len(listed))
    else:
        launches = list(itertools.islice(space.launches(), sample))
        source.shuffle(launches)
    for launch in launches:
        left = [c for c in map(space.configuration, space.requests(launch)) if not question.seen(c)]
        if left:
            return source.choice(left)
    return None
