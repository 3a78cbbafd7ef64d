"""Which scorer reads which kind of item, and evaluators that other installed packages bring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from llmopt.errors import UsageError
from llmopt.measure.evaluators.base import Scorer
from llmopt.records import EVALUATOR_GROUP
from llmopt.workload.columns import near

__all__ = ["evaluator_names", "load_evaluator", "offered", "scorer_for"]

_SCORERS: Mapping[str, str] = {
    "numeric": "llmopt.measure.evaluators.builtin:Numeric",
    "qa": "llmopt.measure.evaluators.builtin:Qa",
    "exact": "llmopt.measure.evaluators.builtin:Exact",
    "char_f1": "llmopt.measure.evaluators.builtin:CharF1",
    "choice": "llmopt.measure.evaluators.builtin:Choice",
    "instructions": "llmopt.measure.evaluators.instructions:Instructions",
    "open": "llmopt.measure.evaluators.builtin:Answered",
    "lm_eval": "llmopt.measure.evaluators.lm_eval:LmEval",
    "json": "llmopt.measure.evaluators.json_schema:JsonSchema",
}


def evaluator_names() -> tuple[str, ...]:
    """Built-in kinds, then the evaluators of installed packages."""
    return (*_SCORERS, *offered())


def offered() -> tuple[str, ...]:
    """What installed packages offer."""
    return tuple(sorted(point.name for point in entry_points(group=EVALUATOR_GROUP)))


@cache
def scorer_for(kind: str) -> Scorer:
    """The scorer of a kind of item; raises UsageError for a kind nobody scores."""
    if kind in _SCORERS:
        module, _, name = _SCORERS[kind].partition(":")
        return cast("Scorer", getattr(import_module(module), name)())
    found = load_evaluator(kind)
    if not isinstance(found, Scorer):
        raise UsageError("quality.not_a_scorer", name=kind)
    return found


def load_evaluator(name: str) -> Any:
    """The object an installed package offers under ``name``; a class is instantiated without arguments."""
    for point in entry_points(group=EVALUATOR_GROUP):
        if point.name == name:
            loaded = point.load()
            return loaded() if isinstance(loaded, type) else loaded
    known = evaluator_names()
    raise UsageError("quality.unknown_evaluator", name=name, near=near(name, known), known=", ".join(known))
