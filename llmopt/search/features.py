"""Configurations as rows of numbers for the Gaussian process, and the candidates it chooses from."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmopt.search.gaussian import distances
from llmopt.search.space import grid_values

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from llmopt.records import Configuration, Parameter, SettingValue
    from llmopt.search.space import Space

__all__ = ["Candidates", "Encoder", "Pool"]

_LOG_RATIO = 8.0
"""Sizes that span at least such a factor are compared by their logarithms."""

_MOST = 1_500
"""Candidates weighed for one proposal."""

_DRAWN = 400
"""Draws for one proposal where the space cannot be listed: each takes tens of microseconds."""

_LISTED = 8_000
"""Up to so many legal configurations are listed and encoded once."""


class Encoder:
    """One column a parameter: ordered ones on 0..1 (by logarithm where sizes multiply), unordered ones by number."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._scales = [_Scale(parameter) for parameter in space.parameters]
        self.unordered = tuple(scale.unordered for scale in self._scales)

    def row(self, configuration: Configuration) -> list[float]:
        """The encoded configuration; inactive settings stand at their defaults, which the configuration carries."""
        values = {**configuration.launch, **configuration.request.given()}
        return [scale(values.get(scale.name)) for scale in self._scales]

    def rows(self, configurations: Iterable[Configuration]) -> NDArray[np.float64]:
        """All of them, stacked."""
        rows = [self.row(configuration) for configuration in configurations]
        return np.array(rows, dtype=float).reshape(len(rows), len(self._scales))


class _Scale:
    def __init__(self, parameter: Parameter) -> None:
        self.name = parameter.name
        self._values = grid_values(parameter)
        numeric = [v for v in self._values if isinstance(v, int | float) and not isinstance(v, bool)]
        self.unordered = bool(parameter.values) and not parameter.ordinal
        self._ranked = len(numeric) < len(self._values)
        self._numbers = {value: float(place) for place, value in enumerate(self._values)}
        low, high = (min(numeric), max(numeric)) if numeric else (0.0, 1.0)
        self._log = parameter.log or (low > 0 and high / low >= _LOG_RATIO)
        self._low, self._high = (math.log(low), math.log(high)) if self._log else (float(low), float(high))

    def __call__(self, value: SettingValue) -> float:
        if self.unordered:
            return self._numbers.get(value, -1.0)
        if self._ranked or not isinstance(value, int | float):
            # sizes with a word among them ("auto"): their places, a stranger in the middle
            last = max(len(self._values) - 1, 1)
            return self._numbers.get(value, last / 2) / last
        number = math.log(max(value, 1e-12)) if self._log else float(value)
        return (number - self._low) / (self._high - self._low) if self._high > self._low else 0.0


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Configurations with their encoded rows, in the same order."""

    configurations: Sequence[Configuration]
    rows: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.configurations)

    def take(self, places: Sequence[int] | NDArray[np.intp]) -> Pool:
        """The part at these places."""
        return Pool(configurations=[self.configurations[i] for i in places], rows=self.rows[places])


class Candidates:
    """Configurations to choose from: legal ones where they can be listed, else draws; with the neighbours of the best.

    A listed space is encoded once; from a long list each choice takes a part.
    """

    def __init__(self, space: Space, encoder: Encoder, *, most: int = _MOST, listed: int = _LISTED) -> None:
        self._space = space
        self._encoder = encoder
        self._most = most
        few = not space.continuous and space.combinations <= 10 * listed
        found = list(itertools.islice(space.configurations(), listed + 1)) if few else []
        whole = few and len(found) <= listed
        self._all = Pool(configurations=found, rows=encoder.rows(found)) if whole else None

    def choose(
        self,
        source: random.Random,
        *,
        seen: Callable[[Configuration], bool],
        around: Sequence[Configuration] = (),
        launch: Mapping[str, SettingValue] | None = None,
    ) -> Pool:
        """Unseen candidates for one decision; ``around`` are the best so far, ``launch`` is what runs now."""
        if self._all is None:
            return self._drawn(source, seen, around, launch)
        everything = self._all
        left = [i for i, configuration in enumerate(everything.configurations) if not seen(configuration)]
        if len(left) <= self._most:
            return everything.take(left)
        chosen = set(source.sample(left, self._most))
        if launch is not None:
            key = self._space.configuration(launch).launch_key
            chosen.update(i for i in left if everything.configurations[i].launch_key == key)
        if around:
            apart = distances(everything.rows[left], self._encoder.rows(around), self._encoder.unordered).sum(axis=0)
            near = np.argpartition(apart.min(axis=1), self._most // 10)[: self._most // 10]
            chosen.update(left[int(i)] for i in near)
        return everything.take(sorted(chosen))

    def _drawn(
        self,
        source: random.Random,
        seen: Callable[[Configuration], bool],
        around: Sequence[Configuration],
        launch: Mapping[str, SettingValue] | None,
    ) -> Pool:
        found: dict[str, Configuration] = {}
        for best in around:
            for near in self._neighbours(best, source):
                found[near.key] = near
        for base, count in ((launch, _DRAWN // 4 if launch is not None else 0), (None, _DRAWN)):
            for _ in range(count):
                drawn = self._draw(base, source)
                if drawn is not None:
                    found[drawn.key] = drawn
        left = [configuration for configuration in found.values() if not seen(configuration)]
        return Pool(configurations=left, rows=self._encoder.rows(left))

    def _draw(self, launch: Mapping[str, SettingValue] | None, source: random.Random) -> Configuration | None:
        settings = launch if launch is not None else self._space.draw_launch(source)
        if settings is None:
            return None
        return self._space.configuration(self._space.draw_request(settings, source))

    def _neighbours(self, best: Configuration, source: random.Random, *, count: int = 30) -> Iterable[Configuration]:
        """Configurations that differ from ``best`` in one or two parameters, ordered ones by a small step."""
        assignment = self._space.assignment(best)
        names = list(assignment)
        for _ in range(count if names else 0):
            changed = dict(assignment)
            for name in source.sample(names, min(len(names), source.choice((1, 1, 2)))):
                changed[name] = _step(self._space.by_name[name], changed[name], source)
            if self._space.legal(changed):
                yield self._space.configuration(changed)


def _step(parameter: Parameter, value: SettingValue, source: random.Random) -> SettingValue:
    values = grid_values(parameter, resolution=17)
    if parameter.values and not parameter.ordinal:
        return source.choice(values)
    numeric = isinstance(value, int | float)
    place = values.index(value) if value in values else _nearest(values, float(value)) if numeric else 0  # type: ignore[arg-type]
    return values[min(max(place + source.choice((-2, -1, 1, 2)), 0), len(values) - 1)]


def _nearest(values: Sequence[SettingValue], number: float) -> int:
    return min(range(len(values)), key=lambda i: abs(float(values[i] or 0) - number))
