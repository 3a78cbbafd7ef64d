"""An optimisation's result as the terminal shows it: 80 columns, Korean cell widths counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmopt.messages import t
from llmopt.report import words
from llmopt.report.certificates import certificate_lines
from llmopt.report.notes import answer_notes
from llmopt.report.study_document import certificates_of, estimates_of
from llmopt.report.terminal import WIDTH, drawn_table, folded

__all__ = ["summary"]

SHOWN = (
    "accuracy", "diversity", "answers_per_minute", "output_tokens_per_s", "ttft_p50_ms", "e2e_p50_ms", "memory_bytes",
    "cost_per_million_tokens", "cost_per_thousand_answers",
)  # fmt: skip


def summary(result: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Verdict, what changed, what each step gained, the figures beside each other, the command to use."""
    parts = ["", *folded([words.verdict_sentence(result)], width)]
    changes = words.changed_settings(result)
    if changes:
        lines = [f"  {name}: {words.setting(old)} → {words.setting(new)}" for name, (old, new) in changes.items()]
        parts += ["", t("report.changes") + ":", *folded(lines, width)]
    rows = words.gain_rows(result)
    if rows:
        headings = (t("report.step"), t("report.quality"), t("report.speed"))
        parts += ["", drawn_table(headings, rows, width, title=t("report.gains"))]
    sides = [estimates_of(result[side]) for side in ("baseline", "best")]
    figures = [
        (words.figure_name(name), *(words.interval(name, side.get(name)) for side in sides))
        for name in SHOWN
        if any(name in side for side in sides)
    ]
    headings = (t("report.figure"), t("report.baseline"), t("report.best"))
    parts += ["", drawn_table(headings, figures, width, title=t("report.figures"))]
    limits = [f"{limit['text']}: {words.limit_status(limit)}" for limit in result["constraints"]]
    if limits:
        parts += ["", t("report.limits") + ":", *folded([f"  {line}" for line in limits], width)]
    certificates, warnings = certificates_of(result, (t("report.baseline"), t("report.best")))
    parts += certificate_lines(certificates, width)
    told = [
        t("report.side_warning", side=side, count=count, text=t(key))
        for side, found in warnings.items()
        for key, count in found.items()
    ]
    parts += ["", *folded(told, width)] if told else []
    for note in answer_notes(result):
        parts += ["", *folded([note], width)]
    parts += ["", t("report.use") + ":"]
    # a command stays in one line: it is there to be copied
    parts.append("  " + result["command"]["line"])
    sampling = ", ".join(f"{name}={value}" for name, value in result["command"]["request"].items())
    parts += folded(["  " + t("report.with_requests", settings=sampling)], width)
    return "\n".join(parts)
