"""What earlier studies teach a new one: first trials, and a prediction that is never trusted over a measurement.

Studies are matched by what they ran on. Only differences *within* an earlier study are used: a setting that was 20 %
faster there is expected to be somewhat faster here, whatever the absolute speed of that machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llmopt.search.belief import transformed
from llmopt.search.features import Encoder
from llmopt.search.gaussian import distances
from llmopt.search.proposer import Prediction, Proposal
from llmopt.search.space import grid_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmopt.objective import Objective
    from llmopt.records import Configuration, Parameter, SettingValue
    from llmopt.search.proposer import Result
    from llmopt.search.space import Space

__all__ = ["Circumstances", "Earlier", "History", "first_trials", "similarity"]

_LEAST = 0.15
"""Studies less alike than this are left out."""

_NEAR = 6.0
"""How fast an earlier trial's say falls with its squared distance."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a study ran on. Empty text is *not known* and counts as different."""

    engine: str
    engine_version: str = ""
    model: str = ""
    architecture: str = ""
    parameters: int | None = None
    quantization: str = ""
    hardware: str = ""
    """The machine's fingerprint."""
    processor: str = ""
    """The name of the device or CPU that computes."""
    dataset: str = ""
    streams: int | None = None


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier study of the same engine: its circumstances and its ended trials, objectives in this study's order."""

    name: str
    circumstances: Circumstances
    trials: tuple[tuple[Configuration, Result], ...] = field(repr=False)


def similarity(earlier: Circumstances, now: Circumstances) -> float:
    """How much an earlier study may say, 0 to 1: a product over engine, machine, model, task."""
    if earlier.engine != now.engine:
        return 0.0
    found = 1.0 if earlier.engine_version and earlier.engine_version == now.engine_version else 0.85
    found *= _machine(earlier, now) * _model(earlier, now)
    found *= 1.0 if earlier.quantization and earlier.quantization == now.quantization else 0.9
    found *= 1.0 if earlier.dataset and earlier.dataset == now.dataset else 0.8
    if earlier.streams and now.streams:
        found *= math.pow(0.85, abs(math.log2(earlier.streams / now.streams)))
    return found


def _machine(earlier: Circumstances, now: Circumstances) -> float:
    if earlier.hardware and earlier.hardware == now.hardware:
        return 1.0
    return 0.7 if earlier.processor and earlier.processor == now.processor else 0.3


def _model(earlier: Circumstances, now: Circumstances) -> float:
    if earlier.model and earlier.model == now.model:
        return 1.0
    alike = 0.8 if earlier.architecture and earlier.architecture == now.architecture else 0.5
    if earlier.parameters and now.parameters:
        return alike * math.pow(0.8, abs(math.log2(earlier.parameters / now.parameters)))
    return alike * 0.5


class History:
    """Earlier studies as a prior: relative gains of neighbouring settings, weighed by how alike the studies are.

    Says nothing (None) where no earlier trial is near. It foresees no limits: those depend on absolute figures.
    """

    def __init__(
        self, space: Space, objectives: Sequence[Objective], studies: Sequence[Earlier], now: Circumstances
    ) -> None:
        self._objectives = tuple(objectives)
        self._encoder = Encoder(space)
        self._studies = []
        self.names: tuple[str, ...] = ()
        for study in studies:
            weight = similarity(study.circumstances, now)
            measured = [(c, r.objectives) for c, r in study.trials if r.objectives is not None]
            if weight < _LEAST or len(measured) < 2:  # noqa: PLR2004 - one trial shows no difference
                continue
            rows = self._encoder.rows([c for c, _ in measured])
            gains = np.array(
                [[transformed(o, v) for o, v in zip(objectives, values, strict=True)] for _, values in measured]
            )
            self._studies.append((weight, rows, gains - gains.mean(axis=0)))
            self.names = (*self.names, study.name)
        self.used = len(self._studies)

    def predict(self, configuration: Configuration) -> Prediction | None:
        """Relative figures around 1 (shares around 0.5); the spread grows with distance and difference."""
        row = self._encoder.rows([configuration])
        total = near = 0.0
        gain = np.zeros(len(self._objectives))
        for weight, rows, gains in self._studies:
            closeness = np.exp(-_NEAR * distances(row, rows, self._encoder.unordered).sum(axis=0)[0])
            say = float(closeness.sum())
            # an earlier study far from this configuration is drawn towards "no difference"
            gain += weight * (closeness @ gains) / (say + 0.3)
            total += weight
            near = max(near, weight * min(say, 1.0))
        if total <= 0 or near < 0.02:  # noqa: PLR2004 - nothing near
            return None
        gain = gain / total * min(1.0, total)
        values = tuple(self._figure(o, float(g)) for o, g in zip(self._objectives, gain, strict=True))
        return Prediction(objectives=values, spread=(0.2 + 0.3 * (1.0 - near),) * len(values))

    @staticmethod
    def _figure(objective: Objective, gain: float) -> float:
        signed = gain if objective.maximize else -gain
        return 0.5 + signed if objective.kind == "share" else math.exp(signed)


def first_trials(
    space: Space, objectives: Sequence[Objective], studies: Sequence[Earlier], now: Circumstances, *, count: int = 3
) -> list[Proposal]:
    """The best allowed configurations of earlier studies, as this space has them, the most alike studies first."""
    ranked: list[tuple[float, Configuration]] = []
    for study in studies:
        weight = similarity(study.circumstances, now)
        allowed = [
            (c, r.objectives)
            for c, r in study.trials
            if r.objectives is not None and all(v <= 0 for v in r.violations or ())
        ]
        if weight < _LEAST or not allowed:
            continue
        best = sorted(allowed, key=lambda entry: -transformed(objectives[0], entry[1][0]))
        ranked += [(weight / (place + 1), c) for place, (c, _) in enumerate(best[:count])]
    found: dict[str, Proposal] = {}
    for _, configuration in sorted(ranked, key=lambda entry: -entry[0]):
        fitted = _fitted(space, configuration)
        if space.problem(fitted) is None:
            found.setdefault(fitted.key, Proposal(configuration=fitted, origin="history"))
    return list(found.values())[:count]


def _fitted(space: Space, configuration: Configuration) -> Configuration:
    """The configuration with this space's own fixed settings, and sizes moved to those it has."""
    values = configuration.flat()
    assignment: dict[str, SettingValue] = {}
    for parameter in space.parameters:
        if parameter.name in values:
            assignment[parameter.name] = _nearest(parameter, values[parameter.name])
    return space.configuration(assignment)


def _nearest(parameter: Parameter, value: SettingValue) -> SettingValue:
    known = grid_values(parameter, resolution=9)
    if value in known or not isinstance(value, int | float) or isinstance(value, bool):
        return value
    sizes = [v for v in known if isinstance(v, int | float) and not isinstance(v, bool)]
    return min(sizes, key=lambda v: abs(v - value)) if sizes else value
