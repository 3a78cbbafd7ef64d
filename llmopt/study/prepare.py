"""From what was asked to what will be done: model, engine, data, load and goal resolved, nothing started yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from llmopt.config.settings import SettingsView
from llmopt.engines.base import Engine, Rehearsed
from llmopt.engines.registry import choose_engine, get_engine
from llmopt.errors import DataError, EngineMissing, UsageError
from llmopt.hardware.defaults import STRATEGY_SAMPLING
from llmopt.hardware.probe import probe
from llmopt.measure.calibrate import Calibration, NoiseFloor
from llmopt.measure.judging import Judge, judge_for
from llmopt.models.catalogue import find_model, served_model
from llmopt.models.entry import ModelEntry
from llmopt.models.weights import WeightsFormat
from llmopt.objective import Constraint, Goal, parse_constraints, parse_objectives, strategy_goal
from llmopt.paths import Workspace
from llmopt.records import (
    Configuration,
    Dataset,
    Hardware,
    InferenceParams,
    Item,
    ModelInfo,
    Strategy,
    Task,
    digest,
)
from llmopt.search.workload import WARM_UP, Workload
from llmopt.study.request import StudyRequest
from llmopt.study.weights import bring_weights
from llmopt.workload.datasets import load_dataset, subset
from llmopt.workload.lm_eval_tasks import LIKELIHOOD
from llmopt.workload.prompts import DEFAULT_FORM, forms_for, render

__all__ = ["Prepared", "first_task", "goal_of", "prepare", "refined_task"]

SEARCH_ITEMS, CONFIRM_ITEMS = 16, 32
SPEED = "answers_per_minute"
"""The figure whose noise floor is calibrated."""
OPEN_STREAMS = 16
"""An open load's streams, for our own client's calibrated error."""
DIVERSITY_SEEDS = 4
"""Answers to each item where their diversity is the goal: six pairs to compare."""
SMALL_ANSWER_TOKENS, ANSWER_TOKENS = 64, 512
"""Default answer limits: for models too small to reason at length, and for the others."""
SMALL_MODEL_PARAMETERS = 1_000_000_000
TEMPLATE_TOKENS = 32
"""What a chat template adds around the messages, generously."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything a study needs, resolved."""

    request: StudyRequest
    workspace: Workspace
    settings: SettingsView
    hardware: Hardware
    entry: ModelEntry
    model: ModelInfo
    engine: Engine
    engine_reason: str
    dataset: Dataset
    search_items: tuple[Item, ...]
    confirm_items: tuple[Item, ...]
    work: Workload
    goal: Goal
    constraints: tuple[Constraint, ...]
    task: Task
    baseline: Configuration
    noise: NoiseFloor | None = None
    """How much launches of this model on this engine differ here, where it was calibrated."""

    def resolving(self, requests: int) -> Prepared:
        """The same for launches of so many requests: what they resolve goes into their certificates."""
        if self.noise is None:
            return self
        floor = self.noise.at(requests).resolves()
        return replace(self, work=replace(self.work, noise_floor=floor))

    @property
    def asked_to_confirm(self) -> int:
        """How many held-out items the user asked for."""
        return _asked_to_confirm(self.request)

    @property
    def fingerprint(self) -> str:
        """The same for studies whose trials may stand side by side."""
        return digest(
            [
                self.model.sha256 or self.model.path,
                self.model.weight_bytes,
                self.engine.name,
                self.engine.installation().version,
                self.dataset.fingerprint,
                [item.id for item in self.search_items],
                [self.task.load.flags, self.request.shared_prefix, self.work.max_tokens, self.work.seed],
                self.hardware.fingerprint,
                [objective.name for objective in self.goal.objectives],
                [constraint.text for constraint in self.constraints],
                [self.work.judge.measure, self.request.evaluator, self.work.repeats],
            ]
        )

    def preset(self, task: Task) -> Configuration:
        """The specification's defaults for this hardware and strategy."""
        strategy = self.request.strategy
        greedy = InferenceParams(temperature=0.0)
        sampling = STRATEGY_SAMPLING.get(strategy, greedy) if strategy else greedy
        unknown = dict.fromkeys(sampling.given().keys() - self.engine.request_settings)
        sampling = replace(sampling, **unknown)
        launch = self.engine.preset(self.model, self.hardware, task, strategy)
        return Configuration(
            engine=self.engine.name, launch=launch, request=replace(sampling, prompt_form=DEFAULT_FORM)
        )


def prepare(
    request: StudyRequest,
    *,
    workspace: Workspace,
    settings: SettingsView,
    on_weights: Callable[..., None] | None = None,
    hardware: Hardware | None = None,
) -> Prepared:
    """Resolve ``request``; cheap checks come before the weights are fetched. Raises LlmoptError kinds as documented.

    ``hardware`` is where trials will run, where that is not this machine.
    """
    goal, constraints = goal_of(request)
    entry = _entry_of(request, workspace)
    dataset, judge = _questions(request, workspace)
    goal = _guarded(goal, request, judge)
    hardware = hardware or probe()
    engine, reason, form = _engine_for(entry, hardware, request.engine)
    _refuse_unseen(engine, goal, constraints)
    if isinstance(engine, Rehearsed) and dataset.source.endswith(".jsonl") and Path(dataset.source).is_file():
        engine = engine.rehearse(Path(dataset.source).resolve())  # engines run in folders of their own
    model = entry.facts
    if engine.needs_weights:
        model = bring_weights(entry, form, workspace=workspace, progress=on_weights)
    search_items, confirm_items = _items(request, dataset)
    calibration = Calibration(workspace.cache, hardware=hardware.fingerprint)
    work = Workload(
        dataset=dataset,
        load=request.load,
        shared_prefix=request.prefix,
        max_tokens=request.max_tokens or settings["max_tokens"] or _default_answer_tokens(model, dataset),
        seed=request.seed,
        request_timeout_s=settings["request_timeout_s"],
        warmup_items=_warm_up_items(dataset, (*search_items, *confirm_items)) or search_items[:1],
        judge=judge,
        repeats=_seeds(request, goal),
        warm_up=replace(WARM_UP, cap_s=min(WARM_UP.cap_s, settings["warmup_cap_s"])),
        client_error_ms=calibration.client_error_ms(request.load.streams or OPEN_STREAMS),
    )
    task = first_task(work, (*search_items, *confirm_items))
    prepared = Prepared(
        request=request,
        workspace=workspace,
        settings=settings,
        hardware=hardware,
        entry=entry,
        model=model,
        engine=engine,
        engine_reason=reason,
        dataset=dataset,
        search_items=search_items,
        confirm_items=confirm_items,
        work=work,
        goal=goal,
        constraints=constraints,
        task=task,
        baseline=_baseline(engine, model, hardware, task),
        noise=calibration.noise(engine=engine.name, model=model.name, objective=SPEED),
    )
    return prepared.resolving(len(search_items))


def _entry_of(request: StudyRequest, workspace: Workspace) -> ModelEntry:
    """The model asked for; a server that somebody else runs may give its models any name."""
    remote = request.engine is not None and get_engine(request.engine).transport == "remote"
    return (served_model if remote else find_model)(request.model, workspace)


def _asked_to_confirm(request: StudyRequest) -> int:
    return request.confirm_samples or 2 * (request.samples or SEARCH_ITEMS)


def asked_dataset(request: StudyRequest, workspace: Workspace) -> Dataset:
    """The dataset a study asks for, read as it was asked to be; raises DataError."""
    return load_dataset(
        request.dataset,
        workspace=workspace,
        seed=request.seed,
        columns=request.columns or None,
        encoding=request.encoding,
        examples=request.examples,
    )


def _questions(request: StudyRequest, workspace: Workspace) -> tuple[Dataset, Judge]:
    """The dataset and who judges its answers; raises DataError for tasks that only ``--quality-only`` can score."""
    dataset = asked_dataset(request, workspace)
    likelihood = next((item for item in dataset.items if LIKELIHOOD in item.meta), None)
    if likelihood is not None and not request.quality_only:
        raise DataError("data.lm_eval_log_likelihood", task=likelihood.meta["lm_eval"]["task"])
    creative = request.strategy is Strategy.CREATIVITY
    return dataset, judge_for(dataset, evaluator=request.evaluator, creative=creative)


def _items(request: StudyRequest, dataset: Dataset) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """What is measured in the search and in the confirmation; raises DataError where that is too little."""
    search = subset(dataset, "search", request.samples or SEARCH_ITEMS, seed=request.seed)
    confirm = subset(dataset, "confirm", _asked_to_confirm(request), seed=request.seed)
    if len(search) < 2 or len(confirm) < 2:  # noqa: PLR2004 - one item supports no interval
        raise DataError("study.too_few_items", name=dataset.name, search=len(search), confirm=len(confirm))
    return search, confirm


def _warm_up_items(dataset: Dataset, measured: Sequence[Item]) -> tuple[Item, ...]:
    """Questions that are not measured; a cache may remember these."""
    known = {item.id for item in measured}
    return tuple(item for item in dataset.items if item.id not in known)[:64]


def _baseline(engine: Engine, model: ModelInfo, hardware: Hardware, task: Task) -> Configuration:
    """What the engine's plain command resolves to, with the dataset's default prompt."""
    return Configuration(
        engine=engine.name,
        launch=engine.baseline(model, hardware, task),
        request=replace(engine.default_sampling, prompt_form=DEFAULT_FORM),
    )


def _engine_for(entry: ModelEntry, hardware: Hardware, asked: str | None) -> tuple[Engine, str, WeightsFormat]:
    """The engine, the message key of its reason, and the form of weights it takes.

    An engine the user asked for is used or refused; the one a model's entry prefers is used where it can be.
    """
    forms: list[WeightsFormat] = ["gguf", "safetensors"]  # the one can be converted into the other, not back
    if entry.gguf is None and entry.facts.format != "gguf":
        forms.remove("gguf")
    preferred = entry.model_type.value if entry.model_type and not asked else None
    refused: list[EngineMissing] = []
    for name in dict.fromkeys((asked or preferred, asked)):
        for form in _taken(name, entry, forms):
            try:
                engine, reason = choose_engine(replace(entry.facts, format=form), hardware, name)
            except EngineMissing as error:
                refused.append(error)
            else:
                return engine, "engines.chosen_model" if name and name == preferred else reason, form
    raise refused[0]


def _taken(name: str | None, entry: ModelEntry, forms: list[WeightsFormat]) -> list[WeightsFormat]:
    """Of the forms there are, those the named engine takes, so that a refusal gives its real reason; else all."""
    if name is None:
        return forms
    engine = get_engine(name)
    return [form for form in forms if engine.supports(replace(entry.facts, format=form)) is None] or forms[:1]


def first_task(work: Workload, items: Sequence[Item]) -> Task:
    """The task before anything was tokenised: a prompt cannot have more tokens than UTF-8 bytes."""
    tokens = _longest_bytes(work, items) + TEMPLATE_TOKENS
    return Task(load=work.load, max_tokens=work.max_tokens, prompt_tokens=tokens, prefix_cache=True)


def refined_task(work: Workload, items: Sequence[Item], tokens_per_byte: float) -> Task:
    """The task once the baseline's own usage figures told how this tokenizer reads these texts (10 % on top)."""
    tokens = int(_longest_bytes(work, items) * min(tokens_per_byte * 1.1, 1.0)) + TEMPLATE_TOKENS
    return Task(load=work.load, max_tokens=work.max_tokens, prompt_tokens=tokens, prefix_cache=True)


def _longest_bytes(work: Workload, items: Sequence[Item]) -> int:
    prefix = len(work.shared_prefix.text(work.shared_prefix.groups).encode()) if work.shared_prefix else 0
    return prefix + max(
        sum(len(message["content"].encode()) for message in render(item, form, work.dataset))
        for item in items
        for form in forms_for(work.dataset)
    )


def _default_answer_tokens(model: ModelInfo, dataset: Dataset) -> int:
    """What a foreign task asks for itself, else by the model's size."""
    asked = [int(item.meta["max_tokens"]) for item in dataset.items if item.meta.get("max_tokens")]
    if asked:
        return max(asked)
    small = model.parameters is not None and model.parameters < SMALL_MODEL_PARAMETERS
    return SMALL_ANSWER_TOKENS if small else ANSWER_TOKENS


def goal_of(request: StudyRequest) -> tuple[Goal, tuple[Constraint, ...]]:
    """What a request wants, and the limits it sets; raises UsageError for what cannot be read."""
    if request.objectives:
        goal = Goal(objectives=parse_objectives(request.objectives), floors=())
    elif request.strategy:
        goal = strategy_goal(request.strategy)
    else:
        goal = Goal(objectives=parse_objectives("quality,answers_per_minute"), floors=())
    return goal, parse_constraints(request.constraints)


def _refuse_unseen(engine: Engine, goal: Goal, constraints: Sequence[Constraint]) -> None:
    """Raise UsageError for memory wanted of a server that runs elsewhere: it cannot be seen there."""
    wanted = {objective.name for objective in goal.objectives} | {limit.metric.name for limit in constraints}
    if engine.transport == "remote" and "memory" in wanted:
        raise UsageError("study.memory_elsewhere")


def _guarded(goal: Goal, request: StudyRequest, judge: Judge) -> Goal:
    """The goal where answers are judged by agreement: it can guard quality, but more of it is not better."""
    if judge.measure != "agreement":
        return goal
    if not request.objectives and not request.strategy:
        return strategy_goal(Strategy.SPEED)
    if goal.objectives[0].name == "quality":
        raise DataError("study.no_gold_to_optimise", name=request.dataset)
    return goal


def _seeds(request: StudyRequest, goal: Goal) -> int:
    """Answers to each item at temperatures above 0; diversity cannot be seen in one."""
    wants_diversity = any(objective.name == "diversity" for objective in goal.objectives)
    if wants_diversity and request.seeds == 1:
        raise UsageError("study.seeds_for_diversity")
    return request.seeds or (DIVERSITY_SEEDS if wants_diversity else 1)
