"""An explanation as the terminal shows it: 80 columns, Korean cell widths counted."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from llmopt.messages import t
from llmopt.report import words

__all__ = ["explanation"]

WIDTH = 80
MOST_EFFECTS = 12
"""Changes shown, the strongest first; all of them are in the JSON."""


def explanation(found: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Importance, effects, what binds, and the answer to *why not*, for a person."""
    from rich.console import Console  # noqa: PLC0415 - only where something is drawn

    console = Console(file=io.StringIO(), width=width, highlight=False, emoji=False, markup=False, color_system=None)
    console.print(
        t("explain.title", study=found["study"], measured=found["measured"], trials=found["trials"], best=found["best"])
    )
    enough = found["measured"] >= found["needed"]
    if not enough:
        console.print()
        console.print(t("explain.too_few", measured=found["measured"], needed=found["needed"]))
    for answer in found.get("why_not", ()):
        console.print()
        for line in _why_not(answer):
            console.print(line)
    for objective in found["objectives"] if enough else ():
        console.print()
        console.print(_importance(objective))
        console.print()
        console.print(_effects(objective))
    console.print()
    console.print(t("explain.binds") + ":")
    for bound in found["binds"]:
        console.print("  " + _bound(bound))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def _table(title: str, headings: Sequence[str]) -> Any:
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn

    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _importance(objective: Mapping[str, Any]) -> Any:
    headings = (t("explain.setting"), t("explain.share"), t("explain.interval"))
    table = _table(t("explain.importance", objective=_name(objective["name"])), headings)
    for one in objective["importance"]:
        interval = f"{100 * one['low']:.0f}–{100 * one['high']:.0f} %"
        table.add_row(one["parameter"], f"{100 * one['share']:.0f} %", interval)
    return table


def _effects(objective: Mapping[str, Any]) -> Any:
    effect = t("explain.effect_points") if objective["name"] in _POINTS else t("explain.effect")
    headings = (t("explain.change"), effect, t("explain.interval"), t("explain.tried"))
    table = _table(t("explain.effects", objective=_name(objective["name"])), headings)
    strongest = sorted(objective["effects"], key=lambda one: -abs(one["value"] - (1.0 if one["relative"] else 0.0)))
    for one in strongest[:MOST_EFFECTS]:
        value, low, high = (_amount(one[end], relative=one["relative"]) for end in ("value", "low", "high"))
        tried = str(one["trials"]) if one["trials"] else t("explain.estimated")
        table.add_row(f"{one['parameter']}={words.setting(one['setting'])}", value, f"{low} … {high}", tried)
    return table


def _amount(value: float, *, relative: bool) -> str:
    return f"× {value:.2f}" if relative else f"{100 * value:+.1f}"


def _name(objective: str) -> str:
    return t(f"explain.objective_{objective}") if objective in _NAMED else objective


_NAMED = {"quality", "answers_per_minute", "memory", "diversity"}
_POINTS = {"quality", "diversity", "error_rate"}


def _bound(bound: Mapping[str, Any]) -> str:
    kind = bound["kind"]
    if not bound["known"]:
        return t(f"explain.{kind}_unknown")
    share = "–" if bound["share"] is None else f"{100 * bound['share']:.0f} %"
    return t(f"explain.{kind}_{'binds' if bound['binds'] else 'free'}", share=share)


def _why_not(answer: Mapping[str, Any]) -> list[str]:
    changes = ", ".join(f"{name}={words.setting(value)}" for name, value in answer["changes"].items())
    objective = _name(answer["objective"])
    lines = [t("explain.why_not", changes=changes, objective=objective)]
    kind, effect = answer["kind"], answer["effect"]
    if kind == "illegal":
        lines.append("  " + t("explain.why_illegal", rule=t(answer["rule"], **answer["rule_values"])))
    elif kind == "failed":
        lines.append("  " + t("explain.why_failed", trial=answer["trial"], why=answer.get("why") or "-"))
    elif kind == "measured":
        shown = {"trial": answer["trial"], "there": _figure(answer["there"]), "here": _figure(answer["here"])}
        lines.append("  " + t(f"explain.why_{'raced' if answer['outcome'] == 'raced_out' else 'measured'}", **shown))
        lines += ["  " + t("explain.why_limits", limits=", ".join(found))] if (found := answer["limits_broken"]) else []
    elif kind == "untried":
        lines.append("  " + t("explain.why_untried"))
    elif effect is not None:
        value, low, high = (_amount(effect[end], relative=effect["relative"]) for end in ("value", "low", "high"))
        lines.append("  " + t("explain.why_estimated", effect=value, low=low, high=high))
        lines.append(
            "  " + t("explain.why_chances", runs=_percent(answer["runs"]), allowed=_percent(answer["allowed"]))
        )
    memory = answer.get("memory")
    if memory is not None:
        sizes = {name: words.size(memory[f"{name}_bytes"]) for name in ("needed", "available")}
        lines.append("  " + t("explain.why_memory", **sizes))
    return lines


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
