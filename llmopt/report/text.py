"""A result as the terminal shows it: 80 columns, Korean cell widths counted."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from llmopt.messages import t
from llmopt.report import words
from llmopt.report.answers import answer_notes

__all__ = ["SHOWN", "estimates_of", "summary"]

WIDTH = 80
SHOWN = (
    "accuracy",
    "answers_per_minute",
    "output_tokens_per_s",
    "ttft_p50_ms",
    "e2e_p50_ms",
    "memory_bytes",
    "diversity",
)


def summary(result: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Verdict, what changed, what each step gained, the figures beside each other, the command to use."""
    from rich.console import Console  # noqa: PLC0415 - only where something is drawn
    from rich.table import Table  # noqa: PLC0415

    console = Console(file=io.StringIO(), width=width, highlight=False, emoji=False, markup=False, color_system=None)
    console.print()
    console.print(words.verdict_sentence(result))
    changes = words.changed_settings(result)
    if changes:
        console.print()
        console.print(t("report.changes") + ":")
        for name, (before, after) in changes.items():
            console.print(f"  {name}: {words.setting(before)} → {words.setting(after)}")
    rows = words.gain_rows(result)
    if rows:
        console.print()
        table = Table(box=None, padding=(0, 2, 0, 0), title=t("report.gains"), title_justify="left", title_style="")
        for heading in (t("report.step"), t("report.quality"), t("report.speed")):
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print()
    console.print(_figures(result))
    for note in answer_notes(result):
        console.print()
        console.print(note)
    console.print()
    console.print(t("report.use") + ":")
    console.print("  " + result["command"]["line"], soft_wrap=True)
    sampling = ", ".join(f"{name}={value}" for name, value in result["command"]["request"].items())
    console.print("  " + t("report.with_requests", settings=sampling), soft_wrap=True)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def _figures(result: Mapping[str, Any]) -> Any:
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn

    table = Table(box=None, padding=(0, 2, 0, 0), title=t("report.figures"), title_justify="left", title_style="")
    for heading in (t("report.figure"), t("report.baseline"), t("report.best")):
        table.add_column(heading, overflow="fold")
    sides = [estimates_of(result[side]) for side in ("baseline", "best")]
    for name in SHOWN:
        if any(name in side for side in sides):
            table.add_row(t(f"report.name_{name}"), *(words.interval(name, side.get(name)) for side in sides))
    return table


def estimates_of(side: Mapping[str, Any]) -> dict[str, Any]:
    """Confirmed figures where there are any, else those of the search."""
    searched = (side["search"] or {}).get("estimates", {})
    return {**searched, **(side["confirmed"] or {})}
