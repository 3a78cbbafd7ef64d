"""The report of an optimisation: the verdict, what each step gained, what was tried, and everything behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmopt.messages import t
from llmopt.objective import Objective, parse_objectives
from llmopt.report import words
from llmopt.report.certificates import certificate_blocks
from llmopt.report.charts import scatter
from llmopt.report.detail import Detail
from llmopt.report.document import Block, Chart, Document, Panel, Section, Table, Text
from llmopt.report.notes import answer_notes
from llmopt.report.shared_sections import (
    answers_sections,
    course_sections,
    figures_table,
    provenance,
    section,
    use_section,
)

__all__ = ["FIGURES", "certificates_of", "estimates_of", "study_document"]

FIGURES = (
    "accuracy", "diversity", "answers_per_minute", "characters_per_s", "output_tokens_per_s", "ttft_p50_ms",
    "ttft_p95_ms", "itl_p50_ms", "e2e_p50_ms", "e2e_p95_ms", "attainment", "goodput_per_s", "memory_bytes",
    "error_rate", "truncated", "cost_per_million_tokens", "cost_per_thousand_answers",
)  # fmt: skip
QUALITY, SPEED = "accuracy", "answers_per_minute"
PAIR = 2
SCALES: Mapping[str, tuple[float, str]] = {"share": (100.0, "%"), "bytes": (1e-6, "MB"), "ms": (1.0, "ms")}
"""Kind of objective → what its values are multiplied by on an axis, and the unit they then have."""
OF_TRIALS = ("accuracy", "answers_per_minute", "e2e_p50_ms", "memory_bytes")


def estimates_of(side: Mapping[str, Any]) -> dict[str, Any]:
    """Confirmed figures where there are any, else those of the search; what they cost where the machine has a price."""
    searched = (side["search"] or {}).get("estimates", {})
    return {**searched, **(side["confirmed"] or {}), **(side.get("cost") or {})}


def study_document(result: Mapping[str, Any], detail: Detail) -> Document:
    """The whole report in the current language."""
    labels = (t("report.baseline"), t("report.best"))
    sides = [estimates_of(result[side]) for side in ("baseline", "best")]
    gains = Table(
        caption=t("report.gains"),
        headings=[t("report.step"), t("report.quality"), t("report.speed")],
        rows=words.gain_rows(result),
    )
    changes = Table(
        caption=t("report.changes"),
        headings=[t("report.setting"), *labels],
        rows=[[n, words.setting(a), words.setting(b)] for n, (a, b) in words.changed_settings(result).items()],
    )
    sections = [
        *section("report.gains_title", gains if gains.rows else None),
        *section(
            "report.figures_title",
            figures_table(t("report.figures"), labels, sides, FIGURES),
            *(Text(text=note) for note in answer_notes(result)),
        ),
        *section("report.changes_title", changes if changes.rows else None),
        *use_section([("", result["command"])]),
        *section("report.limits", _limits(result)),
        *section("report.trials", _trials(result), _left_out(result)),
        *course_sections(detail, result),
        *answers_sections(detail),
        *_certificates(result, labels),
        *section("report.accounting", _accounting(result)),
    ]
    return Document(
        title=result["study"],
        claims=[words.verdict_sentence(result)],
        sections=sections,
        footer=provenance(result, [result["model"]]),
    )


# ── what was tried ─────────────────────────────────────────────────────────────────────────────────────────────────


def _trials(result: Mapping[str, Any]) -> Chart:
    base = result["baseline"]["configuration"]
    marks = {number: t("report.pareto") for number in result["pareto"]}
    marks[result["baseline"]["trial"]] = t("report.baseline")
    marks[result["best"]["trial"]] = t("report.best")
    rows, speeds, waits = [], {}, {}
    for trial in result["trials"]:
        number = trial["number"]
        changed = words.settings_line(trial["configuration"], base)
        found = (trial["measurement"] or {}).get("estimates", {})
        shown = [words.interval(name, found.get(name)) for name in OF_TRIALS]
        rows.append([str(number), t(f"report.outcome_{trial['outcome']}"), marks.get(number, ""), changed, *shown])
        what = f"#{number} {changed}"
        if {QUALITY, SPEED} <= found.keys():
            speeds[number] = (found[SPEED]["value"], 100 * found[QUALITY]["value"], what)
        if {"output_tokens_per_s", "e2e_p50_ms"} <= found.keys():
            waits[number] = (found["output_tokens_per_s"]["value"], found["e2e_p50_ms"]["value"], what)
    headings = ["#", t("report.outcome"), t("report.role"), t("report.settings"), *map(words.figure_name, OF_TRIALS)]
    table = Table(caption=t("report.trials_caption"), headings=headings, rows=rows)
    wished = _wished(result, base)
    front = result["pareto"] if wished is None else ()
    panels = [
        *([wished] if wished else []),
        _points(result, "quality", speeds, front, x=words.figure_name(SPEED), y=t("report.accuracy_axis")),
        _points(result, "latency", waits, (), x=words.figure_name("output_tokens_per_s"), y=t("report.e2e_axis")),
    ]
    return Chart(panels=[panel for panel in panels if panel.traces], table=table)


def _wished(result: Mapping[str, Any], base: Mapping[str, Any]) -> Panel | None:
    """The Pareto set over the study's own first two objectives, where these are not quality and speed."""
    text = (result.get("request") or {}).get("objectives")
    asked = parse_objectives(text) if text else ()
    if len(asked) < PAIR or {one.estimate for one in asked} == {QUALITY, SPEED}:
        return None
    y, x = asked[:PAIR]
    points = {}
    for trial in result["trials"]:
        found = (trial["measurement"] or {}).get("estimates", {})
        if {x.estimate, y.estimate} <= found.keys():
            placed = (found[one.estimate]["value"] * SCALES.get(one.kind, (1.0, ""))[0] for one in (x, y))
            what = f"#{trial['number']} {words.settings_line(trial['configuration'], base)}"
            points[trial["number"]] = (*placed, what)
    return _points(result, "objectives", points, result["pareto"], x=_axis(x), y=_axis(y))


def _axis(objective: Objective) -> str:
    unit = SCALES.get(objective.kind, (1.0, ""))[1]
    return f"{words.figure_name(objective.estimate)} ({unit})" if unit else words.figure_name(objective.estimate)


def _left_out(result: Mapping[str, Any]) -> Text | None:
    count = result.get("trials_left_out") or 0
    return Text(text=t("report.trials_left_out", count=count)) if count else None


def _points(
    result: Mapping[str, Any],
    kind: str,
    points: Mapping[int, tuple[float, float, str]],
    front: Sequence[int],
    *,
    x: str,
    y: str,
) -> Panel:
    groups = (
        (t("report.all_trials"), list(points), "circle", 9),
        (t("report.pareto"), [number for number in front if number in points], "circle-open", 16),
        (t("report.baseline"), [result["baseline"]["trial"]], "square", 12),
        (t("report.best"), [result["best"]["trial"]], "star", 16),
    )
    chosen = [
        (name, [points[n] for n in numbers if n in points], symbol, size) for name, numbers, symbol, size in groups
    ]
    return scatter(t(f"report.trials_{kind}"), t(f"report.trials_{kind}_alt"), chosen, x=x, y=y)


def _limits(result: Mapping[str, Any]) -> Table | None:
    rows = [
        [limit["text"], words.limit_status(limit), *(_number(limit[name]) for name in ("value", "bound"))]
        for limit in result["constraints"]
    ]
    headings = [t("report.limit"), t("report.status"), t("benchmark.value"), t("report.bound")]
    return Table(caption=t("report.limits_caption"), headings=headings, rows=rows) if rows else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"


# ── whether to believe it ──────────────────────────────────────────────────────────────────────────────────────────


def certificates_of(
    result: Mapping[str, Any], labels: tuple[str, str]
) -> tuple[dict[str, list[Any]], dict[str, dict[str, int]]]:
    """Certificates and counted warnings of the baseline and the winner: of their confirmation, else of the search."""
    certificates: dict[str, list[Any]] = {}
    warnings: dict[str, dict[str, int]] = {}
    for label, side in zip(labels, (result["baseline"], result["best"]), strict=True):
        passes = [one for one in result["confirmation"] if one["key"] == side["configuration"]["key"]]
        measured = [one["measurement"] for one in passes if one["measurement"]] or [side["search"]]
        measured = [one for one in measured if one]
        certificates[label] = [one.get("certificate") or {} for one in measured]
        counted: dict[str, int] = {}
        for key in (key for one in measured for key in one.get("warnings") or ()):
            counted[key] = counted.get(key, 0) + 1
        warnings[label] = counted
    return certificates, warnings


def _certificates(result: Mapping[str, Any], labels: tuple[str, str]) -> list[Section]:
    blocks: list[Block] = certificate_blocks(*certificates_of(result, labels))
    return [Section(title=t("report.certificate"), blocks=blocks)] if blocks else []


def _accounting(result: Mapping[str, Any]) -> Table | None:
    spent = result.get("accounting")
    if not spent:
        return None
    names = ("launch_s", "warmup_s", "measure_s", "cut_off_s", "own_s", "wall_s")
    rows = [[t(f"report.spent_{name}"), f"{spent[name]:,.1f} s"] for name in names if spent.get(name) is not None]
    if spent.get("own_peak_rss_bytes"):
        rows.append([t("report.spent_own_memory"), words.size(spent["own_peak_rss_bytes"])])
    headings = [t("report.what"), t("benchmark.value")]
    return Table(caption=t("report.accounting_caption"), headings=headings, rows=rows)
