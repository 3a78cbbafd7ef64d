"""``llmopt benchmark``: speed, quality and memory of one configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import click

from llmopt.cli.data import data_fields
from llmopt.cli.measuring import DEFAULT_SAMPLES, MEASURED_FLAGS, check_load, measuring_options, opened, share_of, shown
from llmopt.cli.optimize import DEMO_DATASET
from llmopt.cli.options import Output, exported, load_words, option
from llmopt.errors import UsageError
from llmopt.messages import t

__all__ = ["command", "study_of"]


@click.command("benchmark", help=t("cli.benchmark.long"), short_help=t("cli.benchmark.short"))
@option("--model", "-m", key="opt.model", default=None)
@option("--config", key="benchmark.config", default=None)
@option("--set", "changes", key="benchmark.set", multiple=True)
@option("--precision", key="benchmark.precision", metavar="PERCENT", default=None)
@option("--most-repeats", key="benchmark.most_repeats", type=int, default=None)
@option("--sweep", key="benchmark.sweep", is_flag=True)
@option("--sweep-levels", key="benchmark.sweep_levels", type=int, default=None)
@option("--sweep-seconds", key="benchmark.sweep_seconds", type=float, default=None)
@option("--quality-only", key="opt.quality_only", is_flag=True)
@option("--choices", key="opt.choices", type=click.Choice(["generated", "logprobs"]), default="generated")
@measuring_options("benchmark")
def command(as_json: bool, debug: bool, wait: bool, exports: tuple[str, ...], **given: Any) -> int:
    """Measure one configuration and show what was found."""
    from llmopt.report.measured import benchmark_text
    from llmopt.report.swept import sweep_text
    from llmopt.study.benchmark import BenchmarkRequest
    from llmopt.study.contenders import read_pairs

    check_load(given)
    if given["config"] and given["model"]:
        raise UsageError("cli.config_and_model")
    output = Output(as_json=as_json)
    workspace, settings = opened(given, MEASURED_FLAGS, debug=debug)
    request = BenchmarkRequest(
        study=replace(
            study_of(given, settings, workspace=workspace, as_json=as_json),
            quality_only=given["quality_only"],
            choices=given["choices"],
        ),
        repeats=given["repeats"],
        precision=share_of(given["precision"], "benchmark.precision"),
        most_repeats=given["most_repeats"],
        config=given["config"],
        changes=read_pairs(given["changes"]),
        slo=given["slo"],
    )
    job = _job(given, request)
    result = shown(
        lambda view: job(workspace=workspace, settings=settings, listener=view, wait_for_lock=wait), as_json=as_json
    )
    if not as_json:
        output.say(sweep_text(result) if "sweep" in result else benchmark_text(result))
        output.say(_precision_line(result))
        output.say(t("cli.report_at", folder=workspace.results / result["study"]))
    exported(result, exports, folder=workspace.results / result["study"], output=output)
    return 0


def _job(given: dict[str, Any], request: Any) -> Callable[..., Any]:
    """One load, or with ``--sweep`` all from one stream to saturation."""
    from llmopt.study.benchmark import benchmark
    from llmopt.study.sweeping import SweepRequest, benchmark_sweep

    chosen = {name: given[f"sweep_{name}"] for name in ("levels", "seconds") if given[f"sweep_{name}"] is not None}
    if not given["sweep"]:
        if chosen:
            raise UsageError("cli.sweep_options")
        return partial(benchmark, request)
    if any(given[name] is not None for name in ("precision", "repeats", "most_repeats")):
        raise UsageError("benchmark.sweep_and_precision")
    if given["streams"] is not None:
        chosen["streams"] = given["streams"]
    return partial(benchmark_sweep, SweepRequest(one=request, **chosen))


def _precision_line(result: dict[str, Any]) -> str:
    """Whether the precision asked for was reached; empty where none was."""
    from llmopt.report.measured import percent

    found = result.get("precision") or {}
    if found.get("asked") is None:
        return ""
    reached, asked = found["reached"], found["asked"]
    if reached is None:
        return t("benchmark.precision_unknown", asked=percent(asked))
    if reached <= asked:
        return t("benchmark.precision_reached", reached=percent(reached), asked=percent(asked))
    launches = len(result["sides"][0]["launches"])
    total = math.ceil(launches * (reached / asked) ** 2)  # half-widths shrink with the square root
    values = {"reached": percent(reached), "asked": percent(asked), "more": total - launches, "total": total}
    return t("benchmark.precision_missed", **values)


def study_of(given: dict[str, Any], settings: Any, *, workspace: Any, as_json: bool) -> Any:
    """The task of both commands, from flags and settings."""
    from llmopt.study.request import StudyRequest

    plain = settings.origin("model") == "default" and settings.origin("dataset") == "default"
    samples = settings["samples"] or DEFAULT_SAMPLES
    dataset = DEMO_DATASET if plain and not given.get("config") else settings["dataset"]
    return StudyRequest(
        model=settings["model"],
        dataset=dataset,
        engine="fake" if given["dry_run"] else settings["engine"],
        samples=samples,
        confirm_samples=samples,
        streams=settings["streams"],
        **load_words(given),
        max_tokens=settings["max_tokens"],
        seed=settings["seed"],
        name=given["name"],
        **data_fields(given, dataset, workspace=workspace, as_json=as_json),
        quality_margin=settings["quality_margin"],
        speed_margin=settings["speed_margin"],
        price_per_hour=given["price_per_hour"] or settings["price_per_hour"],
    )
