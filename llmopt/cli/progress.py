"""How a running study looks: a live panel in a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self

from llmopt.messages import t
from llmopt.report.words import size

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from llmopt.study.events import Event

__all__ = ["JsonLines", "LivePanel", "PlainLines", "describe", "duration", "view_for"]

BAR_CELLS = 24
RECENT_LINES = 6


def duration(seconds: float | None) -> str:
    """``4m 05s``; a dash where it is not known."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {secs:02d}s" if minutes else f"{secs}s"


def describe(settings: Mapping[str, Any]) -> str:
    """Settings in one line: ``threads=1 · prompt_form=examples``; the words for no difference where empty."""
    return " · ".join(f"{name}={value}" for name, value in settings.items()) or t("progress.as_baseline")


def _figures(data: Mapping[str, Any]) -> str:
    parts = []
    if data.get("accuracy") is not None:
        parts.append(t("progress.quality", percent=f"{100 * data['accuracy']:.0f}", n=data.get("items", "?")))
    if data.get("answers_per_minute") is not None:
        parts.append(t("progress.speed", speed=f"{data['answers_per_minute']:.1f}"))
    if data.get("memory_bytes") is not None:
        parts.append(t("progress.memory", memory=size(data["memory_bytes"])))
    return " · ".join(parts)


def line(event: Event) -> str | None:  # noqa: PLR0911 - one return for each kind of event
    """One event as one line for a person; None where it is not worth a line."""
    data = event.data
    if event.kind == "note":
        return t(data["key"], **data.get("values", {}))
    if event.kind == "phase":
        return t(f"progress.phase_{data['name']}")
    if event.kind == "plan":
        return _plan(data)
    if event.kind == "trial_started":
        number, left = data["number"], duration(data.get("left_s"))
        return t("progress.trial_started", number=number, what=describe(data["settings"]), left=left)
    if event.kind == "trial_ended":
        if data["outcome"] == "raced_out":
            return t("progress.trial_raced", number=data["number"], items=data.get("items"), why=data.get("why"))
        if data["outcome"] != "done":
            return t("progress.trial_failed", number=data["number"], why=data.get("why") or data["outcome"])
        best = t("progress.new_best") if data.get("new_best") else ""
        return t("progress.trial_done", number=data["number"], figures=_figures(data), best=best).rstrip()
    if event.kind == "confirm_pass":
        arm = ", ".join(t(f"progress.arm_{name}") for name in data["arms"])
        left = duration(data.get("left_s"))
        return t("progress.confirm_pass", block=data["block"] + 1, blocks=data["blocks"], arm=arm, left=left)
    return None


def _plan(data: Mapping[str, Any]) -> str:
    finish = duration(data["finish_s"])
    if "ended" in data:
        return t("progress.plan_updated", **{**data, "finish": finish})
    words = {"finish": finish, "limit": duration(data["limit_s"]), "reserve": duration(data["reserve_s"])}
    text = t("progress.plan", **{**data, **words})
    if data.get("quality") is None:
        return text
    quality = t("progress.plan_points", value=f"{100 * data['quality']:.0f}")
    speed = "–" if data.get("speed") is None else f"{100 * data['speed']:.0f} %"
    return f"{text} {t('progress.plan_resolution', quality=quality, speed=speed)}"


class PlainLines:
    """One line an event, for logs, pipes and CI."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._stream = sys.stderr if to_stderr else sys.stdout
        self._shown: tuple[str | None, int] = (None, -1)

    def __call__(self, event: Event, /) -> None:
        """Print the event's line; weights in steps of ten per cent."""
        text = self._weights(event.data) if event.kind == "weights" else line(event)
        if text:
            print(text, file=self._stream, flush=True)

    def _weights(self, data: Mapping[str, Any]) -> str | None:
        percent = int(100 * data["done_bytes"] / data["total_bytes"]) // 10 * 10 if data.get("total_bytes") else 0
        if (data.get("phase"), percent) == self._shown:
            return None
        self._shown = (data.get("phase"), percent)
        if data.get("phase") == "convert":
            return t("progress.converting", what=data["what"])
        return t("progress.weights", percent=percent, done=size(data["done_bytes"]), left=duration(data.get("left_s")))


class JsonLines:
    """One JSON object a line on standard output, nothing else there; sentences also on standard error."""

    def __init__(self) -> None:
        self._plain = PlainLines(to_stderr=True)

    def __call__(self, event: Event, /) -> None:
        """Write the event."""
        sys.stdout.write(json.dumps({"event": event.kind, **event.data}, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()
        self._plain(event)


class LivePanel:
    """The last lines, what runs now with a bar, the best so far and the time left; redrawn four times a second."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._started_s = time.monotonic()
        self._now = ""
        self._done, self._total = 0, 0
        self._best = ""
        self._ends_s: float | None = None
        self._level = ""
        self._weights: Mapping[str, Any] | None = None
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, event: Event, /) -> None:
        """Take the event in; the panel shows it at its next redraw."""
        data = event.data
        if event.kind == "sample":
            self._done, self._total = data["done"], data["total"]
        elif event.kind == "memory":
            self._level = t(f"progress.level_{data['level']}", memory=size(data["bytes"]))
        elif event.kind == "weights":
            self._weights = data
            self._done, self._total = data["done_bytes"], data.get("total_bytes") or 0
            if data.get("phase") == "convert":
                self._now = t("progress.converting", what=data["what"])
                return
            self._now = t("progress.fetching", done=size(data["done_bytes"]), left=duration(data.get("left_s")))
        else:
            text = line(event)
            if event.kind in {"trial_started", "confirm_pass"}:
                self._now, self._done, self._total = text or "", 0, data.get("items", 0)
            elif text:
                self._console.print(text, highlight=False)
            if data.get("new_best"):
                self._best = _figures(data)
        if data.get("left_s") is not None:
            self._ends_s = time.monotonic() + data["left_s"]

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        share = self._done / self._total if self._total else 0.0
        filled = round(BAR_CELLS * min(share, 1.0))
        left = None if self._ends_s is None else self._ends_s - time.monotonic()
        spent = duration(time.monotonic() - self._started_s)
        rows = [
            Text(self._now, style="bold", overflow="ellipsis", no_wrap=True),
            Text.assemble(
                ("█" * filled, "cyan"),
                ("░" * (BAR_CELLS - filled), "dim"),
                f" {100 * share:3.0f} %  {t('progress.clock', spent=spent, left=duration(left))}",
            ),
        ]
        if self._best:
            rows.append(Text(t("progress.best_so_far", figures=self._best), overflow="ellipsis", no_wrap=True))
        if self._level:
            rows.append(Text(self._level, style="dim"))
        return Group(*rows)


def view_for(*, as_json: bool) -> AbstractContextManager[JsonLines | PlainLines | LivePanel]:
    """The view that suits where the output goes."""
    if as_json:
        return nullcontext(JsonLines())
    if not sys.stdout.isatty():
        return nullcontext(PlainLines(to_stderr=False))
    from rich.console import Console

    return LivePanel(Console())
