"""A sweep over loads as the terminal shows it: 80 columns, a load in two lines, every figure over its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from llmopt.messages import t
from llmopt.report import words
from llmopt.report.measured import percent
from llmopt.report.terminal import WIDTH, drawn_table, folded

__all__ = ["sweep_notes", "sweep_text"]

LATENCIES = ("ttft_p50_ms", "e2e_p50_ms")
DEFAULT = " --arrival poisson"
"""What need not be said of a rate."""
IN_THE_TABLE = frozenset({"measure.warn_saturated"})
"""Warnings that a column says already."""


def sweep_text(result: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Every load with what was delivered and how long it took, the saturation point, and the SLO's boundary."""
    swept = result["sweep"]
    judged = any("attainment" in point["estimates"] for point in swept["points"])
    rows = [_row(point, judged=judged) for point in swept["points"]]
    headings = [t("benchmark.sweep_column_load"), t("benchmark.sweep_answered"), "TTFT p50", "E2E p50"]
    headings += [words.figure_name("attainment")] if judged else []
    headings += [t("benchmark.n"), t("benchmark.sweep_saturated")]
    told = [_capacity(swept), _saturation(swept)]
    if swept["slo_boundary"] is not None:
        told.append(_boundary(swept["slo_boundary"]))
    told += sweep_notes(swept["points"])
    return "\n".join(["", t("benchmark.sweep_title"), drawn_table(headings, rows, width), "", *folded(told, width)])


def sweep_notes(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the certificates of the loads warn of, each warning once with the loads it is about."""
    loads: dict[str, list[str]] = {}
    for point in points:
        for key in point.get("warnings") or ():
            if key not in IN_THE_TABLE:
                loads.setdefault(key, []).append(words.load(point["load"]))
    return [t("benchmark.sweep_note", loads=", ".join(about), text=t(key)) for key, about in loads.items()]


def _row(point: Mapping[str, Any], *, judged: bool) -> list[str]:
    figures = point["estimates"]
    answered = figures["answers_per_minute"]
    row = [point["flags"].removesuffix(DEFAULT), _over(answered, lambda value: _per_s(value / 60))]
    row += [_over(figures.get(name), partial(words.figure, name)) for name in LATENCIES]
    row += [_over(figures.get("attainment"), percent)] if judged else []
    return [*row, str(answered["n"]), t("benchmark.sweep_yes" if point["saturated"] else "benchmark.sweep_no")]


def _over(estimate: Mapping[str, Any] | None, shown: Callable[[float], str]) -> str:
    """A figure, and its interval in the line below; a dash where there is none."""
    if estimate is None:
        return "–"
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    return shown(value) if low is None or high is None else f"{shown(value)}\n{_bare(shown(low))}–{_bare(shown(high))}"


def _bare(text: str) -> str:
    """Without the unit, which stands in the line above."""
    return text.split(maxsplit=1)[0].removesuffix("%")


def _capacity(swept: Mapping[str, Any]) -> str:
    shown = _per_s(swept["capacity_per_s"])
    found = swept.get("capacity") or {}
    if found.get("low") is None or found.get("high") is None:
        return t("benchmark.sweep_capacity", capacity=shown)
    low, high = (_per_s(found[name] / 60) for name in ("low", "high"))
    return t("benchmark.sweep_capacity_known", capacity=shown, low=low, high=high, n=found["n"])


def _saturation(swept: Mapping[str, Any]) -> str:
    rate = next((p["load"]["rate"] for p in swept["points"] if p["saturated"] and p["load"]["rate"]), None)
    return t("benchmark.sweep_no_saturation") if rate is None else t("benchmark.sweep_saturates_at", rate=_per_s(rate))


def _boundary(found: Mapping[str, Any]) -> str:
    share = percent(found["attained"])
    if found["met"] is None:
        return t("benchmark.sweep_slo_none", attained=share)
    failed = "–" if found["failed"] is None else _per_s(found["failed"])
    return t("benchmark.sweep_slo", attained=share, met=_per_s(found["met"]), failed=failed)


def _per_s(value: float) -> str:
    """Three digits, and never a power of ten."""
    return f"{float(f'{value:.3g}'):g}"
