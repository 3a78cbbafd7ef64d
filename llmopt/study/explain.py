"""Why a study ended as it did: what matters, what each setting does, what binds, and why not another value.

Everything comes from the result file; neither engine nor weights are needed, so that a result can be explained on
another machine. Where the engine's rules are at hand they are asked too.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from llmopt.engines.registry import get_engine
from llmopt.errors import DataError, EngineMissing, UsageError
from llmopt.models.memory_fit import MemoryFit, memory_fit
from llmopt.objective import Goal
from llmopt.paths import Workspace
from llmopt.records import (
    Configuration,
    Cpu,
    Device,
    Hardware,
    HostMemory,
    InferenceParams,
    Load,
    ModelInfo,
    Outcome,
    Settings,
    SettingValue,
    Task,
)
from llmopt.search.importance import ENOUGH, Effect, Explainer, WhyNot
from llmopt.search.proposer import Result
from llmopt.search.recorded_space import space_from_plain
from llmopt.search.space import Space, grid_values
from llmopt.study.binding import Scene, binding
from llmopt.study.contenders import find_result, guess, load_result, read_pairs
from llmopt.study.prepare import goal_of
from llmopt.study.request import StudyRequest

__all__ = ["explain"]

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class _Study:
    """A result, read back."""

    result: Mapping[str, Any]
    goal: Goal
    scene: Scene
    space: Space
    trials: tuple[tuple[Configuration, Result], ...]
    best: Configuration


def explain(name: str, workspace: Workspace, *, why_not: Sequence[str] = ()) -> dict[str, Any]:
    """The explanation of the result ``name`` as plain data; each of ``why_not`` is a question, ``setting=value,…``.

    Of fewer than ``needed`` measured trials, importance and effects are empty. Raises DataError for what is no result
    of an optimisation, UsageError for unknown settings.
    """
    path = find_result(name, workspace)
    if path is None:
        raise DataError("benchmark.no_such_result", path=name)
    study = _read(load_result(path), path)
    objectives = study.goal.objectives
    explainer = Explainer(study.space, objectives, study.trials, limits=len(study.result["constraints"]))
    found: dict[str, Any] = {
        "study": study.result["study"],
        "trials": len(study.trials),
        "measured": sum(result.objectives is not None for _, result in study.trials),
        "needed": ENOUGH,
        "best": study.result["best"]["trial"],
        "objectives": [
            {
                "name": objective.name,
                "importance": [asdict(one) for one in explainer.importance(k)],
                "effects": [_effect(one) for one in explainer.effects(study.best, k)],
            }
            for k, objective in enumerate(objectives)
        ],
        "binds": [asdict(one) for one in binding(study.scene, study.best, study.result["best"].get("search"))],
    }
    if why_not:
        found["why_not"] = [
            _answer(study, explainer.why_not(study.best, changes, k), changes, k)
            for changes in (_changes(study.space, pairs) for pairs in why_not)
            for k in range(len(objectives))
        ]
    return found


# ── answers as plain data ──────────────────────────────────────────────────────────────────────────────────────────


def _effect(one: Effect) -> dict[str, Any]:
    return asdict(one)


def _answer(study: _Study, answer: WhyNot, changes: Mapping[str, SettingValue], k: int) -> dict[str, Any]:
    best = next(r for c, r in study.trials if c.key == study.best.key and r.objectives is not None)
    found: dict[str, Any] = {
        "objective": study.goal.objectives[k].name,
        "changes": dict(changes),
        "kind": answer.kind,
        "here": best.objectives[k] if best.objectives else None,
        "rule": None if answer.problem is None else answer.problem.key,
        "rule_values": None,
        "runs": answer.runs,
        "allowed": answer.allowed,
        "effect": None if answer.effect is None else _effect(answer.effect),
    }
    if answer.result is not None:
        trial = next(t for t in study.result["trials"] if t["configuration"]["key"] == answer.configuration.key)
        found |= {
            "trial": trial["number"],
            "outcome": trial["outcome"],
            "there": answer.result.objectives[k] if answer.result.objectives else None,
            "limits_broken": [
                limit["text"]
                for limit, violation in zip(study.result["constraints"], answer.result.violations or (), strict=False)
                if violation > 0
            ],
            "why": (trial["failure"] or {}).get("text"),
        }
    fit = study.scene.fit(answer.configuration)
    if answer.problem is not None:
        misfit = fit is not None and fit.verdict == answer.problem.key
        values = fit.values if misfit and fit is not None else asdict(answer.problem)
        found["rule_values"] = {name: value for name, value in values.items() if name != "key"}
    if fit is not None and fit.total_bytes:
        found["memory"] = {"needed_bytes": fit.needed_bytes, "available_bytes": fit.available_bytes, "fits": fit.fits}
    return found


def _changes(space: Space, pairs: str) -> dict[str, SettingValue]:
    """``setting=value`` texts in the types the settings have here."""
    found: dict[str, SettingValue] = {}
    for name, text in read_pairs(pairs.split(",")).items():
        parameter = space.by_name.get(name)
        if parameter is None:
            near = difflib.get_close_matches(name, space.by_name, n=3, cutoff=0.5) or sorted(space.by_name)
            raise UsageError("explain.unknown_setting", name=name, near=", ".join(near))
        known = {str(value).lower(): value for value in grid_values(parameter)}
        value = known.get(text.lower(), guess(text))
        words = [v for v in parameter.values if isinstance(v, str)]
        if len(words) == len(parameter.values) > 0 and value not in parameter.values:
            raise UsageError("benchmark.bad_setting", name=name, value=text, expected=", ".join(words))
        found[name] = value
    return found


# ── reading a result back ──────────────────────────────────────────────────────────────────────────────────────────


def _read(result: Mapping[str, Any], path: Path) -> _Study:
    if result.get("kind"):
        raise DataError("explain.not_an_optimisation", path=path, kind=result["kind"])
    if "space" not in result:
        raise DataError("explain.older_result", path=path)
    try:
        request = StudyRequest.from_spec(result["request"])
        scene = _scene(result)
        space = space_from_plain(result["space"], _rules(scene))
        trials = tuple((_configuration(t["configuration"]), _told(t)) for t in result["trials"])
        best = _configuration(result["best"]["configuration"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # a JSON file that only looks like a result
        raise DataError("benchmark.not_a_result", path=path, reason=repr(error)) from None
    goal, _ = goal_of(request)
    return _Study(result=result, goal=goal, scene=scene, space=space, trials=trials, best=best)


def _scene(result: Mapping[str, Any]) -> Scene:
    hardware, task = result["hardware"], result["task"]
    machine = _made(
        Hardware,
        {
            **hardware,
            "cpu": _made(Cpu, hardware["cpu"]),
            "memory": _made(HostMemory, hardware["memory"]),
            "devices": tuple(_made(Device, device) for device in hardware["devices"]),
        },
    )
    return Scene(
        engine=result["best"]["configuration"]["engine"],
        model=_made(ModelInfo, result["model"]),
        hardware=machine,
        task=_made(Task, {**task, "load": _made(Load, task["load"])}),
    )


def _made(kind: Callable[..., Made], values: Mapping[str, Any]) -> Made:
    """A record from plain data: fields of later versions are ignored, lists are tuples."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items() if n in known})


def _rules(scene: Scene) -> Callable[[Settings], str | None] | None:
    """The engine's rules and the memory's, where this installation has them."""
    try:
        engine = get_engine(scene.engine)
    except (EngineMissing, UsageError):
        return None

    def conflict(settings: Settings) -> str | None:
        broken = engine.conflict(settings, scene.model, scene.hardware, scene.task)
        if broken is not None:
            return broken
        fit: MemoryFit = memory_fit(scene.engine, scene.model, settings, scene.hardware, scene.task)
        return fit.verdict if fit.fits is False else None

    return conflict


def _configuration(data: Mapping[str, Any]) -> Configuration:
    return Configuration(
        engine=data["engine"], launch=dict(data["launch"]), request=_made(InferenceParams, data["request"])
    )


def _told(trial: Mapping[str, Any]) -> Result:
    objectives, violations = trial["objectives"], trial["violations"]
    return Result(
        outcome=Outcome(trial["outcome"]),
        objectives=None if objectives is None else tuple(objectives),
        violations=None if violations is None else tuple(violations),
        fidelity=trial.get("fidelity", 1.0),
    )
