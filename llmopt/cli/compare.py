"""``llmopt compare``: several models or configurations on the same items, or one against an earlier result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from llmopt.cli.benchmark import study_of
from llmopt.cli.measuring import MEASURED_FLAGS, check_load, measuring_options, opened, share_of, shown
from llmopt.cli.options import Output, exported, load_words, option
from llmopt.errors import DataError, RegressionFound
from llmopt.messages import t

__all__ = ["command"]


@click.command("compare", help=t("cli.compare.long"), short_help=t("cli.compare.short"))
@option("--models", "-m", "models", key="compare.models", multiple=True)
@click.argument("more", nargs=-1, metavar="[MODEL]...")
@option("--baseline", key="compare.baseline", default=None)
@option("--fail-if-worse", key="compare.fail_if_worse", default=None)
@option("--until-decided", key="compare.until_decided", is_flag=True)
@option("--most-repeats", key="compare.most_repeats", type=int, default=None)
@measuring_options("compare")
def command(as_json: bool, debug: bool, wait: bool, exports: tuple[str, ...], **given: Any) -> int:
    """Measure all of them in turns and say what may be claimed. Raises RegressionFound where the gate fails."""
    from llmopt.report.measured import comparison_text
    from llmopt.study.compare import CompareRequest, compare
    from llmopt.study.imported import named_sides

    check_load(given)
    output = Output(as_json=as_json)
    workspace, settings = opened(given, [name for name in MEASURED_FLAGS if name != "model"], debug=debug)
    baseline, folder = _baseline(given["baseline"], workspace)
    named = named_sides((*given["models"], *given["more"]), workspace)
    request = CompareRequest(
        study=_study(given, settings, baseline, workspace=workspace, as_json=as_json),
        models=named.models,
        imported=named.imported,
        baseline=baseline,
        baseline_folder=folder,
        fail_if_worse=share_of(given["fail_if_worse"], "compare.percent"),
        repeats=given["repeats"],
        until_decided=given["until_decided"],
        most_repeats=given["most_repeats"],
        slo=given["slo"],
    )
    result = shown(
        lambda view: compare(request, workspace=workspace, settings=settings, listener=view, wait_for_lock=wait),
        as_json=as_json,
    )
    if not as_json:
        output.say(comparison_text(result))
        output.say(t("cli.report_at", folder=workspace.results / result["study"]))
    exported(result, exports, folder=workspace.results / result["study"], output=output)
    _judge_gate(result["gate"])
    return 0


def _baseline(text: str | None, workspace: Any) -> tuple[dict[str, Any] | None, Path | None]:
    """The earlier result, and the folder it lies in."""
    if text is None:
        return None, None
    from llmopt.study.contenders import find_result, load_result

    path = find_result(text, workspace)
    if path is None:
        raise DataError("benchmark.no_such_result", path=Path(text))
    return load_result(path), path.parent


def _study(
    given: dict[str, Any], settings: Any, baseline: dict[str, Any] | None, *, workspace: Any, as_json: bool
) -> Any:
    """What is asked; against a baseline everything that was not given is as the baseline had it."""
    from llmopt.study.compare import baseline_request

    asked = study_of(given, settings, workspace=workspace, as_json=as_json)
    if baseline is None:
        return asked
    names = (
        *("dataset", "streams", *load_words(given), "max_tokens", "seed", "price_per_hour", "name"),
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
