"""``llmopt benchmark``: speed, quality and memory of one configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from llmopt.cli.data import data_fields
from llmopt.cli.measuring import DEFAULT_SAMPLES, check_load, measuring_options, shown
from llmopt.cli.optimize import DEMO_DATASET
from llmopt.cli.options import Output, option
from llmopt.errors import UsageError
from llmopt.messages import t

__all__ = ["command", "study_of"]

REPEATS = 3


@click.command("benchmark", help=t("cli.benchmark.long"), short_help=t("cli.benchmark.short"))
@option("--model", "-m", key="opt.model", default=None)
@option("--config", key="benchmark.config", default=None)
@option("--set", "changes", key="benchmark.set", multiple=True)
@option("--quality-only", key="opt.quality_only", is_flag=True)
@option("--choices", key="opt.choices", type=click.Choice(["generated", "logprobs"]), default="generated")
@measuring_options("benchmark")
def command(as_json: bool, debug: bool, wait: bool, **given: Any) -> int:
    """Measure one configuration and show what was found."""
    from llmopt.config.settings import load_settings
    from llmopt.logs import configure_logging
    from llmopt.paths import Workspace
    from llmopt.report.measured import benchmark_text
    from llmopt.study.benchmark import BenchmarkRequest, benchmark
    from llmopt.study.contenders import read_pairs

    check_load(given)
    if given["config"] and given["model"]:
        raise UsageError("cli.config_and_model")
    output = Output(as_json=as_json)
    workspace = Workspace.here()
    flags = {name: given[name] for name in ("model", "dataset", "engine", "streams", "samples", "max_tokens", "seed")}
    settings = load_settings(workspace, flags=flags)
    settings.apply_engine_environment()
    configure_logging(workspace.logs, debug=debug)
    request = BenchmarkRequest(
        study=replace(
            study_of(given, settings, workspace=workspace, as_json=as_json),
            quality_only=given["quality_only"],
            choices=given["choices"],
        ),
        repeats=REPEATS if given["repeats"] is None else given["repeats"],
        config=given["config"],
        changes=read_pairs(given["changes"]),
        slo=given["slo"],
    )
    result = shown(
        lambda view: benchmark(request, workspace=workspace, settings=settings, listener=view, wait_for_lock=wait),
        as_json=as_json,
    )
    if not as_json:
        output.say(benchmark_text(result))
        output.say(t("cli.benchmark.result_at", path=workspace.results / result["study"] / "result.json"))
    return 0


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
        rate=given["rate"],
        max_tokens=settings["max_tokens"],
        seed=settings["seed"],
        name=given["name"],
        **data_fields(given, dataset, workspace=workspace, as_json=as_json),
        quality_margin=settings["quality_margin"],
        speed_margin=settings["speed_margin"],
        price_per_hour=given["price_per_hour"] or settings["price_per_hour"],
    )
