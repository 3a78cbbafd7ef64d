"""A sweep over loads as the terminal shows it: 80 columns, one line a load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmopt.messages import t
from llmopt.report import words
from llmopt.report.measured import percent
from llmopt.report.terminal import WIDTH, drawn_table, folded

__all__ = ["sweep_text"]

FIGURES = ("ttft_p50_ms", "e2e_p50_ms", "attainment")


def sweep_text(result: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Every load with what was delivered and how long it took, the saturation point, and the SLO's boundary."""
    swept = result["sweep"]
    rows = [_row(point) for point in swept["points"]]
    headings = [t("benchmark.sweep_column_load"), t("benchmark.sweep_answered"), "TTFT p50", "E2E p50"]
    headings += [words.figure_name("attainment"), t("benchmark.sweep_saturated")]
    told = [t("benchmark.sweep_capacity", capacity=f"{swept['capacity_per_s']:.3g}"), _saturation(swept)]
    if swept["slo_boundary"] is not None:
        told.append(_boundary(swept["slo_boundary"]))
    return "\n".join(["", t("benchmark.sweep_title"), drawn_table(headings, rows, width), "", *folded(told, width)])


def _row(point: Mapping[str, Any]) -> list[str]:
    figures = point["estimates"]
    first, whole, attained = (figures.get(name) for name in FIGURES)
    return [
        point["flags"],
        f"{figures['answers_per_minute']['value'] / 60:.3g}",
        *(words.figure(name, one["value"]) if one else "–" for name, one in zip(FIGURES, (first, whole), strict=False)),
        percent(attained["value"]) if attained else "–",
        t("benchmark.sweep_yes" if point["saturated"] else "benchmark.sweep_no"),
    ]


def _saturation(swept: Mapping[str, Any]) -> str:
    rate = next((p["load"]["rate"] for p in swept["points"] if p["saturated"] and p["load"]["rate"]), None)
    return t("benchmark.sweep_no_saturation") if rate is None else t("benchmark.sweep_saturates_at", rate=f"{rate:.3g}")


def _boundary(found: Mapping[str, Any]) -> str:
    share = percent(found["attained"])
    if found["met"] is None:
        return t("benchmark.sweep_slo_none", attained=share)
    failed = "–" if found["failed"] is None else f"{found['failed']:.3g}"
    return t("benchmark.sweep_slo", attained=share, met=f"{found['met']:.3g}", failed=failed)
