"""``llmopt compare``: several models or configurations on the same items, or one against an earlier result."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from llmopt.cli.benchmark import study_of
from llmopt.cli.measuring import check_load, measuring_options, shown
from llmopt.cli.options import Output, option
from llmopt.errors import DataError, RegressionFound, UsageError
from llmopt.messages import t

__all__ = ["command"]


@click.command("compare", help=t("cli.compare.long"), short_help=t("cli.compare.short"))
@option("--models", "-m", "models", key="compare.models", multiple=True)
@click.argument("more", nargs=-1, metavar="[MODEL]...")
@option("--baseline", key="compare.baseline", default=None)
@option("--fail-if-worse", key="compare.fail_if_worse", default=None)
@measuring_options("compare")
def command(as_json: bool, debug: bool, wait: bool, **given: Any) -> int:
    """Measure all of them in turns and say what may be claimed. Raises RegressionFound where the gate fails."""
    from llmopt.config.settings import load_settings
    from llmopt.logs import configure_logging
    from llmopt.paths import Workspace
    from llmopt.report.measured import comparison_text
    from llmopt.study.compare import CompareRequest, compare

    check_load(given)
    output = Output(as_json=as_json)
    workspace = Workspace.here()
    flags = {name: given[name] for name in ("dataset", "engine", "streams", "samples", "max_tokens", "seed")}
    settings = load_settings(workspace, flags=flags)
    settings.apply_engine_environment()
    configure_logging(workspace.logs, debug=debug)
    baseline = _baseline(given["baseline"], workspace)
    request = CompareRequest(
        study=_study(given, settings, baseline, workspace=workspace, as_json=as_json),
        models=(*given["models"], *given["more"]),
        baseline=baseline,
        fail_if_worse=_share(given["fail_if_worse"]),
        repeats=given["repeats"],
        slo=given["slo"],
    )
    result = shown(
        lambda view: compare(request, workspace=workspace, settings=settings, listener=view, wait_for_lock=wait),
        as_json=as_json,
    )
    if not as_json:
        output.say(comparison_text(result))
        output.say(t("cli.benchmark.result_at", path=workspace.results / result["study"] / "result.json"))
    _judge_gate(result["gate"])
    return 0


def _baseline(text: str | None, workspace: Any) -> dict[str, Any] | None:
    if text is None:
        return None
    from llmopt.study.contenders import find_result, load_result

    path = find_result(text, workspace)
    if path is None:
        raise DataError("benchmark.no_such_result", path=Path(text))
    return load_result(path)


def _study(
    given: dict[str, Any], settings: Any, baseline: dict[str, Any] | None, *, workspace: Any, as_json: bool
) -> Any:
    """What is asked; against a baseline everything that was not given is as the baseline had it."""
    from llmopt.study.compare import baseline_request

    asked = study_of(given, settings, workspace=workspace, as_json=as_json)
    if baseline is None:
        return asked
    names = (
        *("dataset", "streams", "rate", "max_tokens", "seed", "price_per_hour", "name"),
        *("encoding", "examples", "evaluator", "seeds"),
    )
    changed = {name: getattr(asked, name) for name in names if given[name] is not None}
    if given["columns"]:
        changed["columns"] = asked.columns
    return replace(
        baseline_request(baseline),
        **changed,
        engine=asked.engine,
        quality_margin=asked.quality_margin,
        speed_margin=asked.speed_margin,
    )


def _share(text: str | None) -> float | None:
    """``5%`` or ``0.05`` as 0.05; raises UsageError for what is no share."""
    if text is None:
        return None
    number = text.strip()
    try:
        value = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        raise UsageError("compare.percent", value=text) from None
    if not (math.isfinite(value) and 0 < value < 1):
        raise UsageError("compare.percent", value=text)
    return value


def _judge_gate(gate: dict[str, Any] | None) -> None:
    from llmopt.report.measured import percent

    if gate is None or not gate["failed"]:
        return
    lost = [
        t("compare.loss", what=check["what"], figure=t(f"report.{check['figure']}"), loss=f"−{percent(check['loss'])}")
        for check in gate["checks"]
        if check["status"] == "failed"
    ]
    raise RegressionFound("compare.regression", limit=percent(gate["limit"]), what=", ".join(lost))
