"""``llmopt optimize``: the main job."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import click

from llmopt.cli.data import data_fields, data_options
from llmopt.cli.evaluated import judges_whole_runs, optimize_with_evaluator
from llmopt.cli.measuring import check_load, opened
from llmopt.cli.options import (
    Output,
    debug_option,
    engine_option,
    export_option,
    exported,
    json_option,
    lang_option,
    load_options,
    load_words,
    option,
    url_option,
)
from llmopt.errors import UsageError
from llmopt.messages import t
from llmopt.records import Strategy

__all__ = ["command"]

DEMO_LIMIT_S = 540.0
"""The time limit where neither model nor limit was given: the demo's verdict comes within ten minutes."""
DEMO_DATASET = "korean_math_easy"
"""What the demo model can do some of: a set it fails entirely would show nothing."""


SINGULAR = {"objectives": "objective", "constraints": "constraint", "columns": "column"}
"""What a repeatable option is called in the function → on the command line."""


@click.command("optimize", help=t("cli.optimize.long"), short_help=t("cli.optimize.short"))
@option("--model", "-m", key="opt.model", default=None)
@option("--dataset", "-d", key="opt.dataset", default=None)
@engine_option
@url_option
@option("--strategy", key="opt.strategy", type=click.Choice([s.value for s in Strategy]), default=None)
@option("--objective", "objectives", key="opt.objective", multiple=True)
@option("--constraint", "constraints", key="opt.constraint", multiple=True)
@option("--trials", "-n", key="opt.trials", type=int, default=None)
@option("--timeout", key="opt.timeout", type=float, default=None)
@option("--budget", key="opt.budget", default=None)
@option("--method", key="opt.method", default=None)
@option("--samples", key="opt.samples", type=int, default=None)
@load_options
@option("--max-tokens", key="opt.max_tokens", type=int, default=None)
@data_options
@option("--seed", key="opt.seed", type=int, default=None)
@option("--safe", key="opt.safe", is_flag=True)
@option("--cluster", key="opt.cluster", default=None, metavar="auto|ADDRESS")
@option("--name", key="opt.name", default=None)
@option("--resume", "resume_name", key="opt.resume", is_flag=False, flag_value="", default=None)
@option("--price-per-hour", key="opt.price", type=float, default=None)
@export_option
@option("--wait", key="opt.wait", is_flag=True)
@option("--dry-run", key="opt.dry_run", is_flag=True)
@json_option
@debug_option
@lang_option
def command(
    as_json: bool, resume_name: str | None, wait: bool, debug: bool, exports: tuple[str, ...], **given: Any
) -> int:
    """Run or continue a study and show what was found."""
    from llmopt.cli.progress import view_for
    from llmopt.measure.client import run
    from llmopt.report.text import summary
    from llmopt.study import optimize, resume

    output = Output(as_json=as_json)
    flags = ("model", "dataset", "engine", "streams", "trials", "method", "samples", "seed")
    workspace, settings = opened(given, flags, debug=debug)
    limit_s = _limit_s(given["timeout"], given["budget"])
    common: dict[str, Any] = {"workspace": workspace, "settings": settings, "wait_for_lock": wait}
    running: list[str] = []
    if resume_name is not None:
        _refuse_with_resume(given)
    request = None if resume_name is not None else _request(given, settings, limit_s, workspace, as_json=as_json)
    if request is not None and judges_whole_runs(request.evaluator):
        return optimize_with_evaluator(request, workspace=workspace, output=output)
    try:
        with view_for(as_json=as_json) as view:

            def listener(event: Any) -> None:
                if event.kind == "note" and "name" in event.data.get("values", {}):
                    running[:] = [event.data["values"]["name"]]
                view(event)

            if request is None:
                job = resume(resume_name or None, timeout_s=limit_s, listener=listener, **common)
            else:
                job = optimize(request, listener=listener, **common)
            result = run(job)
    except (KeyboardInterrupt, asyncio.CancelledError):
        if running:
            output.say("\n" + t("cli.resume_with", command=f"llmopt optimize --resume {shlex.quote(running[0])}"))
        raise KeyboardInterrupt from None
    if not as_json:
        output.say(summary(result))
        output.say(t("cli.report_at", folder=workspace.results / result["study"]))
    exported(result, exports, folder=workspace.results / result["study"], output=output)
    return 0


def _request(given: dict[str, Any], settings: Any, limit_s: float | None, workspace: Any, *, as_json: bool) -> Any:
    from llmopt.study import StudyRequest

    check_load(given)
    if given["strategy"] and given["objectives"]:
        raise UsageError("cli.strategy_and_objective")
    demo = settings.origin("model") == "default"
    plain = demo and settings.origin("dataset") == "default"
    soft = demo and limit_s is None and settings["timeout"] is None and given["trials"] is None
    dataset = DEMO_DATASET if plain else settings["dataset"]
    return StudyRequest(
        model=settings["model"],
        dataset=dataset,
        engine="fake" if given["dry_run"] else settings["engine"],
        strategy=Strategy(given["strategy"]) if given["strategy"] else None,
        objectives=",".join(given["objectives"]) or None,
        constraints=given["constraints"],
        method=settings["method"],
        trials=settings["trials"],
        timeout_s=DEMO_LIMIT_S if soft else limit_s or settings["timeout"],
        soft_limit=soft,
        samples=settings["samples"],
        streams=settings["streams"],
        **load_words(given),
        max_tokens=given["max_tokens"],
        seed=settings["seed"],
        safe=given["safe"],
        cluster=given["cluster"],
        name=given["name"],
        **data_fields(given, dataset, workspace=workspace, as_json=as_json),
        quality_margin=settings["quality_margin"],
        speed_margin=settings["speed_margin"],
        price_per_hour=given["price_per_hour"] or settings["price_per_hour"],
    )


def _limit_s(timeout: float | None, budget: str | None) -> float | None:
    """Seconds of ``--timeout`` or ``--budget``; raises UsageError for both, and for what is no duration."""
    if timeout is not None and budget is not None:
        raise UsageError("cli.timeout_and_budget")
    if budget is not None:
        from llmopt.search.budget import parse_duration

        return parse_duration(budget)
    if timeout is not None and not timeout > 0:
        raise UsageError("study.timeout", value=timeout)
    return timeout


def _refuse_with_resume(given: dict[str, Any]) -> None:
    """A resumed study keeps what it was asked for; anything but the time limit would change what is compared."""
    allowed = {"timeout", "budget", "dry_run"}
    changed = [name for name, value in given.items() if name not in allowed and value not in (None, (), False)]
    if changed:
        options = (f"--{SINGULAR.get(name, name).replace('_', '-')}" for name in changed)
        raise UsageError("cli.resume_with_others", names=", ".join(options))
