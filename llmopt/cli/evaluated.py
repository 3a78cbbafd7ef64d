"""``llmopt optimize --evaluator NAME`` where NAME judges whole configurations: no engine is started."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

from llmopt.cli.options import Output
from llmopt.messages import t

if TYPE_CHECKING:
    from llmopt.paths import Workspace
    from llmopt.study.request import StudyRequest

__all__ = ["judges_whole_runs", "optimize_with_evaluator"]


def judges_whole_runs(name: str | None) -> bool:
    """Whether an installed package offers ``name`` as an object with ``evaluate`` that cannot score single answers."""
    if name is None:
        return False
    from llmopt.measure.evaluators.base import Evaluator, Scorer
    from llmopt.measure.evaluators.registry import load_evaluator, offered

    if name not in offered():
        return False
    found = load_evaluator(name)
    return isinstance(found, Evaluator) and not isinstance(found, Scorer)


def optimize_with_evaluator(request: StudyRequest, *, workspace: Workspace, output: Output) -> int:
    """Search the request settings with it and show what was found."""
    from llmopt.measure.evaluators.registry import load_evaluator
    from llmopt.study.optimizer import SafeOptimizer

    optimizer = SafeOptimizer(
        workspace=workspace,
        trials=request.trials,
        timeout_s=request.timeout_s,
        method=request.method,
        seed=request.seed,
    )
    evaluator = load_evaluator(str(request.evaluator))
    found = asyncio.run(optimizer.optimize_parameters(request.model, request.dataset, evaluator, name=request.name))
    best = found.best_params.given()
    output.data(
        {
            "study": found.study,
            "best": {"request": best, "score": found.best_score},
            "baseline": {"request": found.baseline_params.given(), "score": found.baseline_score},
            "verdict": {**asdict(found.verdict), "kind": found.verdict.kind.value},
            "trials": found.trials,
            "held_out": found.held_out,
        }
    )
    shown = ", ".join(f"{name}={value}" for name, value in best.items()) or t("report.engine_default")
    kind = t(f"report.kind_{found.verdict.kind.value}")
    output.say(
        t(
            "cli.evaluated",
            study=found.study,
            evaluator=request.evaluator,
            settings=shown,
            score=f"{found.best_score:.4g}",
            baseline=f"{found.baseline_score:.4g}",
            kind=kind,
        )
    )
    return 0
