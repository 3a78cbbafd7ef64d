"""What past runs on this machine teach a new one: speed to be expected, and memory that estimates missed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from llmopt.models.memory_fit import NO_CORRECTION, Correction, learn_correction, memory_fit
from llmopt.objective import Constraint, Objective
from llmopt.predict.forecast import Unknown
from llmopt.predict.machine import load_speed
from llmopt.predict.study import Expectation, Prompt, Scene, SeenRun, StudyForecast
from llmopt.records import Configuration, Dataset, Estimate, Hardware, Item, Load, Measurement, ModelInfo, Outcome, Task
from llmopt.search.proposer import Prediction
from llmopt.store.database import Store
from llmopt.store.rows import StudyRow, TrialRow
from llmopt.workload.prompts import DEFAULT_FORM, forms_for, render

__all__ = ["Foresight", "Surroundings", "correction_of", "plain_model", "prompts_of", "seen_runs", "tokens_per_byte"]

_STUDIES, _TRIALS = 50, 200
"""How many earlier studies are read, and how many trials (the best and the newest) of each."""
_NOT_FORESEEN = 0.3
"""The spread given with a figure that is not foreseen; the figure itself is not a number."""
_MORE_THAN_MEAN = 1.3
"""The longest prompt of a load over its mean one, where only the mean was recorded."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where past runs count: the same machine and engine."""

    engine: str
    hardware: Hardware


# ── speed ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Foresight:
    """A search's prior: the forecast of every configuration as objectives and limits; None is *I do not know*.

    What is guessed has an order, but no level that could be held against a limit.
    """

    def __init__(
        self, forecast: StudyForecast, objectives: Sequence[Objective], limits: Sequence[Constraint] = ()
    ) -> None:
        self._forecast = forecast
        self._objectives = tuple(objectives)
        self._limits = tuple(limits)

    def predict(self, configuration: Configuration) -> Prediction | None:
        """The prediction for one configuration; an objective or limit that is not foreseen is not a number."""
        expected = self._forecast.of(configuration)
        if isinstance(expected, Unknown):
            return None
        found = [expected.figures.get(objective.estimate) for objective in self._objectives]
        if all(figure is None for figure in found):
            return None
        return Prediction(
            objectives=tuple(math.nan if figure is None else figure.value for figure in found),
            spread=tuple(_NOT_FORESEEN if figure is None else figure.spread for figure in found),
            violations=tuple(self._violation(limit, expected) for limit in self._limits) if self._limits else None,
            fits=expected.fits,
        )

    def knows(self, configuration: Configuration) -> bool:
        """Whether it can say how fast ``configuration`` is, and not only guess an order."""
        expected = self._forecast.of(configuration)
        return not isinstance(expected, Unknown) and not expected.guessed

    @staticmethod
    def _violation(limit: Constraint, expected: Expectation) -> float:
        name = limit.metric.estimate
        figure = expected.figures.get(name)
        if figure is None or (expected.guessed and name != "memory_bytes"):
            return math.nan
        foreseen = Estimate(value=figure.value, unit=limit.metric.unit, n=0)
        return limit.check(Measurement(estimates={name: foreseen})).point_violation


def seen_runs(store: Store, around: Surroundings, *, without: int | None = None) -> list[SeenRun]:
    """Measured trials of earlier studies on this machine and engine; ``without`` leaves one study out."""
    found = []
    speed = load_speed(hardware=around.hardware.fingerprint)
    for study, model in _studies(store, around, without):
        load = _load(study)
        for row in _measured(store, study):
            values = _values(row)
            if not values.get("answers_per_minute"):
                continue
            prompt, answer = values.get("prompt_tokens_mean"), values.get("output_tokens_mean")
            if prompt is None or answer is None:
                continue
            task = Task(load=load, max_tokens=max(1, round(answer)), prompt_tokens=max(1, round(prompt)))
            shared = prompt * (values.get("cached_prompt_share") or 0.0)
            scene = Scene(
                model=model,
                engine=around.engine,
                engine_version=str(_recorded(study, "engine_version") or ""),
                hardware=around.hardware,
                task=task,
                prompts={row.configuration.request.prompt_form or "": Prompt(tokens=prompt, shared=shared)},
                answer_tokens=answer,
                speed=speed,
            )
            rate = values["answers_per_minute"]
            found.append(SeenRun(scene=scene, configuration=row.configuration, answers_per_minute=rate))
    return found


def prompts_of(dataset: Dataset, items: Sequence[Item], tokens_per_byte: float) -> dict[str, Prompt]:
    """Mean length of the prompts of ``items`` in every form, and of the beginning that all of them share."""
    found = {}
    for form in forms_for(dataset):
        texts = ["\0".join(message["content"] for message in render(item, form, dataset)).encode() for item in items]
        shared = _common(texts) if len(texts) > 1 else 0
        mean = sum(map(len, texts)) / len(texts)
        found[form] = Prompt(tokens=mean * tokens_per_byte, shared=shared * tokens_per_byte)
    return found


def tokens_per_byte(dataset: Dataset, items: Sequence[Item], prompt_tokens_mean: float | None) -> float:
    """Tokens for each UTF-8 byte of these prompts, from what an engine counted in the default form."""
    sizes = [sum(len(m["content"].encode()) for m in render(item, DEFAULT_FORM, dataset)) for item in items]
    return prompt_tokens_mean * len(sizes) / sum(sizes) if prompt_tokens_mean and sum(sizes) else 0.5


def _common(texts: Sequence[bytes]) -> int:
    first, last = min(texts), max(texts)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


# ── memory ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def correction_of(store: Store, around: Surroundings) -> Correction:
    """What this machine's launches of an engine taught: it raises estimates that were too small, and lowers none.

    Compared are the bytes that are not known exactly: measured peak and estimate without weights and caches.
    """
    if around.hardware.devices:
        return NO_CORRECTION  # a tree's peak is of the host; devices are watched, not attributed to one launch
    said, seen = [], []
    for study, model in _studies(store, around, None):
        for row in _measured(store, study):
            values = _values(row)
            peak, prompt = values.get("memory_bytes"), values.get("prompt_tokens_mean")
            if not peak or prompt is None:
                continue
            longest = round(prompt * _MORE_THAN_MEAN)
            task = Task(load=_load(study), max_tokens=int(study.spec.get("max_tokens") or 64), prompt_tokens=longest)
            fit = memory_fit(around.engine, model, row.configuration.launch, around.hardware, task)
            exact = fit.bytes_of("weights", "kv")
            if fit.total_bytes > exact and peak > exact:
                said.append(float(fit.total_bytes - exact))
                seen.append(peak - exact)
    return learn_correction(said, seen)


# ── past studies ───────────────────────────────────────────────────────────────────────────────────────────────────


def plain_model(model: ModelInfo) -> dict[str, Any]:
    """What is known of a model, for a study's record."""
    return asdict(model)


def _studies(store: Store, around: Surroundings, without: int | None) -> Iterator[tuple[StudyRow, ModelInfo]]:
    for study in store.studies(limit=_STUDIES):
        here = (study.engine, study.hardware) == (around.engine, around.hardware.fingerprint)
        model = _model(study.spec.get("model_facts"))
        if here and study.id != without and model is not None:
            yield study, model


def _model(recorded: Any) -> ModelInfo | None:
    """The recorded facts; None for studies of an older version, or of several models."""
    if not isinstance(recorded, Mapping):
        return None
    known = {field.name for field in fields(ModelInfo)}
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in recorded.items() if name in known
    }
    try:
        return ModelInfo(**values)
    except TypeError:
        return None


def _load(study: StudyRow) -> Load:
    rate, streams = study.spec.get("rate"), study.spec.get("streams")
    return Load(streams=None, rate=float(rate), arrival="poisson") if rate else Load(streams=int(streams or 1))


def _recorded(study: StudyRow, name: str) -> Any:
    circumstances = study.spec.get("circumstances")
    return circumstances.get(name) if isinstance(circumstances, Mapping) else None


def _measured(store: Store, study: StudyRow) -> Iterator[TrialRow]:
    for row in store.best_and_newest(study.id, limit=_TRIALS):
        if row.outcome is Outcome.DONE and row.measurement is not None and row.measurement.valid:
            yield row


def _values(row: TrialRow) -> dict[str, float]:
    return {name: estimate.value for name, estimate in row.measurement.estimates.items()} if row.measurement else {}
