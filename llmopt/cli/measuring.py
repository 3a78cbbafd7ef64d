"""What the measuring commands share: options, an opened workspace, the scripted engine, and how a run is shown."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from llmopt.cli.data import data_options
from llmopt.cli.options import (
    debug_option,
    engine_option,
    export_option,
    json_option,
    lang_option,
    load_options,
    option,
    url_option,
)
from llmopt.errors import UsageError

if TYPE_CHECKING:
    from llmopt.config.settings import SettingsView
    from llmopt.paths import Workspace

__all__ = ["DEFAULT_SAMPLES", "MEASURED_FLAGS", "check_load", "measuring_options", "opened", "share_of", "shown"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
DEFAULT_SAMPLES = 32
MEASURED_FLAGS = ("model", "dataset", "engine", "streams", "samples", "max_tokens", "seed")
"""Options of one measured configuration that are settings too."""


def measuring_options(area: str) -> Callable[[Decorated], Decorated]:
    """The options of both commands; help that differs is below ``cli.AREA``."""

    def decorate(command: Decorated) -> Decorated:
        for decorator in reversed(
            (
                option("--dataset", "-d", key="opt.dataset", default=None),
                engine_option,
                url_option,
                option("--samples", key=f"{area}.samples", type=int, default=None),
                load_options,
                option("--max-tokens", key="opt.max_tokens", type=int, default=None),
                option("--repeats", key=f"{area}.repeats", type=int, default=None),
                option("--slo", key="benchmark.slo", default=None),
                data_options,
                option("--seed", key="opt.seed", type=int, default=None),
                option("--price-per-hour", key="opt.price", type=float, default=None),
                option("--name", key="opt.name", default=None),
                export_option,
                option("--wait", key="opt.wait", is_flag=True),
                option("--dry-run", key="opt.dry_run", is_flag=True),
                json_option,
                debug_option,
                lang_option,
            )
        ):
            command = decorator(command)
        return command

    return decorate


def check_load(given: dict[str, Any]) -> None:
    """Refuse two loads at once, and a price below 0."""
    if given["streams"] is not None and given["rate"] is not None:
        raise UsageError("cli.streams_and_rate")
    if given["price_per_hour"] is not None and not 0 < given["price_per_hour"] < math.inf:
        raise UsageError("settings.bad_flag", option="--price-per-hour", value=given["price_per_hour"], expected="> 0")


def opened(given: Mapping[str, Any], flags: Sequence[str], *, debug: bool) -> tuple[Workspace, SettingsView]:
    """The workspace and its settings under these ``flags``, with the engines' variables exported and the log open."""
    from llmopt.config.settings import load_settings
    from llmopt.logs import configure_logging
    from llmopt.paths import Workspace

    workspace = Workspace.here()
    settings = load_settings(workspace, flags={name: given[name] for name in flags})
    settings.apply_engine_environment()
    configure_logging(workspace.logs, debug=debug)
    return workspace, settings


def share_of(text: str | None, key: str) -> float | None:
    """``5%`` or ``0.05`` as 0.05; raises UsageError ``key`` for what is no share."""
    if text is None:
        return None
    number = text.strip()
    try:
        value = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        raise UsageError(key, value=text) from None
    if not (math.isfinite(value) and 0 < value < 1):
        raise UsageError(key, value=text)
    return value


def shown(job: Callable[[Any], Coroutine[Any, Any, dict[str, Any]]], *, as_json: bool) -> dict[str, Any]:
    """Run ``job(listener)`` to its end under the view that suits the output; Ctrl-C becomes KeyboardInterrupt."""
    from llmopt.cli.progress import view_for
    from llmopt.measure.client import run

    try:
        with view_for(as_json=as_json) as view:
            return run(job(view))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise KeyboardInterrupt from None
