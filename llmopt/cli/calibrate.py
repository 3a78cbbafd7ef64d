"""``llmopt calibrate``: how small a difference this machine can tell from chance."""

from __future__ import annotations

from typing import Any

import click

from llmopt.cli.benchmark import study_of
from llmopt.cli.data import data_options
from llmopt.cli.measuring import MEASURED_FLAGS, check_load, opened, shown
from llmopt.cli.options import Output, debug_option, engine_option, json_option, lang_option, load_options, option
from llmopt.messages import t

__all__ = ["command"]

PAIRS = 6


@click.command("calibrate", help=t("cli.calibrate.long"), short_help=t("cli.calibrate.short"))
@option("--model", "-m", key="opt.model", default=None)
@option("--dataset", "-d", key="opt.dataset", default=None)
@engine_option
@option("--pairs", key="calibrate.pairs", type=int, default=PAIRS)
@option("--samples", key="benchmark.samples", type=int, default=None)
@load_options
@data_options
@option("--max-tokens", key="opt.max_tokens", type=int, default=None)
@option("--seed", key="opt.seed", type=int, default=None)
@option("--name", key="opt.name", default=None)
@option("--wait", key="opt.wait", is_flag=True)
@option("--dry-run", key="opt.dry_run", is_flag=True)
@json_option
@debug_option
@lang_option
def command(as_json: bool, debug: bool, wait: bool, **given: Any) -> int:
    """Measure the noise floor, keep it in the workspace and say what follows from it."""
    from llmopt.report.calibrated import calibration_text
    from llmopt.study.calibrate import CalibrateRequest, calibrate

    given["price_per_hour"] = None
    check_load(given)
    output = Output(as_json=as_json)
    workspace, settings = opened(given, MEASURED_FLAGS, debug=debug)
    request = CalibrateRequest(
        study=study_of(given, settings, workspace=workspace, as_json=as_json), pairs=given["pairs"]
    )
    result = shown(
        lambda view: calibrate(request, workspace=workspace, settings=settings, listener=view, wait_for_lock=wait),
        as_json=as_json,
    )
    if as_json:
        output.line({"event": "calibrated", "result": result})
    else:
        output.say(calibration_text(result))
    return 0
