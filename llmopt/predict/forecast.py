"""How fast a run will be, with an interval, or *I do not know*: physics, constants, and what was learned here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from llmopt.messages import t
from llmopt.predict.devices import DeviceSpec
from llmopt.predict.fitting import LOCAL_STRENGTH, Measured, Seconds, fit_constants, prior_of, stiffness_of
from llmopt.predict.physics import Constants, output_token_seconds
from llmopt.predict.residual import Residual
from llmopt.predict.work import Work

__all__ = [
    "NINETY",
    "Cell",
    "Forecast",
    "Forecaster",
    "Lesson",
    "PastRun",
    "Unknown",
    "features_of",
    "shipped_constants",
]

NINETY = 1.645
"""Standard deviations from the middle to the ends of a 90 % interval."""
_REFIT_FROM = 3
"""Runs of an engine and device without shipped constants before its own are fitted and believed."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Runs whose leftovers resemble each other: one model on one kind of device under one engine version."""

    model: str
    device: str
    engine: str


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """One finished run: what it had to do, where, what it took, and the settings the physics does not see."""

    cell: Cell
    work: Work
    spec: DeviceSpec
    seconds: float
    """Per output token, or for a whole answer: as the forecaster it is given to says."""
    features: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Seconds with a 90 % interval; ``runs`` of the same cell were known, ``spread`` is that of the logarithm."""

    output_token_s: float
    output_token_low_s: float
    output_token_high_s: float
    spread: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """No forecast; ``reason`` is a message key for ``values``."""

    reason: str
    values: Mapping[str, str] = field(default_factory=dict)


@cache
def shipped_constants() -> Mapping[str, Mapping[str, Constants]]:
    """Device family → class of architectures → constants fitted on measured serving rows of that family."""
    data = json.loads(Path(__file__).with_name("constants.json").read_text(encoding="utf-8"))
    return {
        family: {kind: Constants(**values) for kind, values in kinds.items()}
        for family, kinds in data["families"].items()
    }


@cache
def _shipped_engines() -> Mapping[str, Sequence[str]]:
    """Device family → the engines whose rows the shipped constants were fitted on."""
    data = json.loads(Path(__file__).with_name("constants.json").read_text(encoding="utf-8"))
    engines: Mapping[str, Sequence[str]] = data["engines"]
    return engines


def features_of(work: Work, extra: Mapping[str, float] | None = None) -> dict[str, float]:
    """What tells two runs of a cell apart, on a scale where equal steps matter about equally."""
    serving = work.serving
    return {
        "log2_sequences": math.log2(serving.sequences),
        "log2_prompt": math.log2(max(1, serving.prompt_tokens)),
        "log2_output": math.log2(max(1, serving.output_tokens)),
        "log2_tensor_parallel": math.log2(serving.tensor_parallel),
        "log2_bits": math.log2(serving.weight_bits),
        "log2_data_parallel": math.log2(serving.data_parallel),
        "expert_parallel": float(serving.expert_parallel > 1),
        **(extra or {}),
    }


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What is known for one piece of work: the constants, and how far runs like it were from what they say.

    ``shift`` is the expected logarithm of measured over physical seconds, ``spread`` its standard deviation.
    ``guessed``: nothing was measured, the constants are what is believed of any device: an order, not a level.
    """

    constants: Constants
    shift: float
    spread: float
    runs: int
    guessed: bool = False


class Forecaster:
    """Knows the runs it was given; answers for any work. ``constants`` replace the shipped ones.

    ``seconds_of`` is what the runs' seconds are of: an output token, or a whole answer. With ``guess`` it also answers
    for devices and engines that were never measured, and says that it guessed.
    """

    def __init__(
        self,
        runs: Sequence[PastRun] = (),
        *,
        constants: Mapping[str, Mapping[str, Constants]] | None = None,
        seconds_of: Seconds = output_token_seconds,
        guess: bool = False,
    ) -> None:
        self._guess = guess
        self._runs = tuple(runs)
        self._constants = shipped_constants() if constants is None else constants
        self._given = constants is not None
        self._seconds_of = seconds_of
        self._fitted: dict[tuple[str, str, bool], Constants | None] = {}
        self._residuals: dict[tuple[Cell, Constants], Residual] = {}

    def forecast(
        self, cell: Cell, work: Work, spec: DeviceSpec, extra: Mapping[str, float] | None = None
    ) -> Forecast | Unknown:
        """The time per output token of ``work``, corrected by what earlier runs of its cell showed."""
        lesson = self.lesson(cell, work, spec, extra)
        if isinstance(lesson, Unknown):
            return lesson
        seconds = output_token_seconds(work, spec, lesson.constants) * math.exp(lesson.shift)
        return Forecast(
            output_token_s=seconds,
            output_token_low_s=seconds * math.exp(-NINETY * lesson.spread),
            output_token_high_s=seconds * math.exp(NINETY * lesson.spread),
            spread=lesson.spread,
            runs=lesson.runs,
        )

    def lesson(
        self, cell: Cell, work: Work, spec: DeviceSpec, extra: Mapping[str, float] | None = None
    ) -> Lesson | Unknown:
        """Constants and correction for ``work``, or why there are none."""
        constants = self._constants_for(cell, work, spec)
        guessed = constants is None and self._guess
        if guessed:
            constants = prior_of(spec.family, mixture=work.mixture)
        if constants is None:
            where = t("predict.this_cpu") if spec.family == "cpu" else spec.name
            return Unknown(reason="predict.unseen_device", values={"device": where, "engine": _engine(cell)})
        residual, runs = self._residual(cell, constants)
        shift, spread = residual.at(features_of(work, extra))
        return Lesson(constants=constants, shift=shift, spread=spread, runs=runs, guessed=guessed)

    def _constants_for(self, cell: Cell, work: Work, spec: DeviceSpec) -> Constants | None:
        """Shipped for families and engines that were measured; else fitted from enough of this machine's own runs."""
        measured = self._given or _engine(cell) in _shipped_engines().get(spec.family, ())
        kind = "mixture" if work.mixture else "dense"
        shipped = self._constants.get(spec.family, {}).get(kind) if measured else None
        if shipped is not None:
            return shipped
        key = (spec.name, _engine(cell), work.mixture)
        if key not in self._fitted:
            rows = [
                Measured(work=run.work, spec=run.spec, seconds=run.seconds)
                for run in self._runs
                if (run.spec.name, _engine(run.cell), run.work.mixture) == key
            ]
            prior = prior_of(spec.family, mixture=work.mixture)
            stiffness = stiffness_of(spec.family)
            self._fitted[key] = (
                fit_constants(rows, prior, strength=LOCAL_STRENGTH, stiffness=stiffness, seconds_of=self._seconds_of)
                if len(rows) >= _REFIT_FROM
                else None
            )
        return self._fitted[key]

    def _residual(self, cell: Cell, constants: Constants) -> tuple[Residual, int]:
        runs = [run for run in self._runs if run.cell == cell]
        key = (cell, constants)
        if key not in self._residuals:
            ratios = [math.log(run.seconds / self._seconds_of(run.work, run.spec, constants)) for run in runs]
            self._residuals[key] = Residual([features_of(run.work, run.features) for run in runs], ratios)
        return self._residuals[key], len(runs)


def _engine(cell: Cell) -> str:
    """The engine without its version: a new one teaches its own leftovers, and keeps the constants."""
    return cell.engine.split(" ", maxsplit=1)[0]
