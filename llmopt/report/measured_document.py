"""The report of a benchmark or a comparison: figures with intervals, verdicts, and everything behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmopt.messages import t
from llmopt.objective import pareto_front, parse_objectives
from llmopt.report import words
from llmopt.report.certificates import certificate_blocks
from llmopt.report.charts import scatter
from llmopt.report.detail import Detail
from llmopt.report.document import Block, Chart, Document, Section, Table, Text
from llmopt.report.measured import FIGURES, comparable, compared_sides, gate_sentences, headline, verdict_sentences
from llmopt.report.notes import match_notes
from llmopt.report.shared_sections import (
    answers_sections,
    course_sections,
    figures_table,
    provenance,
    section,
    use_section,
)

__all__ = ["measured_document"]


def measured_document(result: Mapping[str, Any], detail: Detail) -> Document:
    """The whole report in the current language."""
    compared = result["kind"] == "compare"
    shown = compared_sides(result) if compared else list(result["sides"])
    labels = [one["label"] for one in shown]
    claims = verdict_sentences(result) if compared else [headline(result)]
    if compared and result["gate"]:
        claims += gate_sentences(result["gate"])
    caption = t("report.figures") if compared else t("report.figures_of", what=headline(result))
    figures: list[Block] = [
        figures_table(caption, labels, [one["figures"] for one in shown], comparable(shown, FIGURES)),
        *_differences(result),
    ]
    measured = result["sides"]
    sections = [
        Section(title=t("report.figures_title"), blocks=figures),
        *(section("report.pairs_title", _pairs(result), *_matches(result), _beside(shown)) if compared else []),
        *use_section([(one["label"], one["command"]) for one in measured]),
        *course_sections(detail, result),
        *answers_sections(detail),
        *section("report.statuses", _statuses(measured)),
        *_certificates(measured),
        *section("report.launches", _launches(measured)),
    ]
    models = [one["facts"] for one in measured]
    return Document(title=result["study"], claims=claims, sections=sections, footer=provenance(result, models))


def _pairs(result: Mapping[str, Any]) -> Table | None:
    rows = [
        [f"{entry['before']} → {entry['after']}", words.judged(entry["quality"]), words.judged(entry["speed"])]
        for entry in result["comparisons"]
    ]
    headings = [t("compare.pair"), t("report.quality"), t("report.speed")]
    return Table(caption=t("compare.pairs"), headings=headings, rows=rows) if rows else None


def _matches(result: Mapping[str, Any]) -> list[Text]:
    return [Text(text=note) for note in match_notes(result)]


def _beside(sides: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Quality over speed of every side, and which of them no other beats in both."""
    known = [one for one in sides if {"accuracy", "answers_per_minute"} <= one["figures"].keys()]
    if len(known) < 2:  # noqa: PLR2004 - one point says nothing
        return None
    values = [(one["figures"]["accuracy"]["value"], one["figures"]["answers_per_minute"]["value"]) for one in known]
    front = set(pareto_front(values, parse_objectives("quality,answers_per_minute")))
    points = [(speed, 100 * quality, one["label"]) for one, (quality, speed) in zip(known, values, strict=True)]
    groups = [(point[2], [point], "circle", 11) for point in points]
    groups.append((t("report.pareto"), [points[place] for place in sorted(front)], "circle-open", 18))
    panel = scatter(
        t("report.trials_quality"),
        t("report.sides_alt"),
        groups,
        x=words.figure_name("answers_per_minute"),
        y=t("report.accuracy_axis"),
    )
    names = ("accuracy", "answers_per_minute", "memory_bytes")
    rows = [
        [
            one["label"],
            t("list.yes") if place in front else t("list.no"),
            *(words.interval(name, one["figures"].get(name)) for name in names),
        ]
        for place, one in enumerate(known)
    ]
    headings = [t("report.side"), t("report.pareto"), *map(words.figure_name, names)]
    return Chart(panels=[panel], table=Table(caption=t("report.sides_caption"), headings=headings, rows=rows))


def _differences(result: Mapping[str, Any]) -> list[Block]:
    """What other tools mean differently, a sentence each."""
    return [
        Text(text=t("compare.imported_note", label=one["label"], text=t(key)))
        for one in result.get("imported") or ()
        for key in one["differences"]
    ]


def _statuses(sides: Sequence[Mapping[str, Any]]) -> Table | None:
    names = list(dict.fromkeys(name for one in sides for name in one["statuses"]))
    rows = [
        [
            t(f"benchmark.status_{name}"),
            *(words.interval("accuracy", one["statuses"].get(name)) for one in sides),
        ]
        for name in names
    ]
    headings = [t("report.status"), *(one["label"] for one in sides)]
    return Table(caption=t("report.statuses_caption"), headings=headings, rows=rows) if rows else None


def _certificates(sides: Sequence[Mapping[str, Any]]) -> list[Section]:
    certificates = {
        one["label"]: [launch["certificate"] for launch in one["launches"] if launch.get("certificate")]
        for one in sides
    }
    blocks = certificate_blocks(certificates, {one["label"]: one["warnings"] for one in sides})
    return [Section(title=t("report.certificate"), blocks=blocks)] if blocks else []


def _launches(sides: Sequence[Mapping[str, Any]]) -> Table | None:
    """Every launch with its own figures: the spread that the intervals come from."""
    names = ("accuracy", "answers_per_minute", "output_tokens_per_s", "ttft_p50_ms")
    rows = [
        [
            one["label"],
            str(place + 1),
            *(words.figure(name, launch["figures"].get(name)) for name in names),
            *(f"{launch[name]:.1f} s" for name in ("launch_s", "warmup_s", "measure_s")),
        ]
        for one in sides
        for place, launch in enumerate(one["launches"])
    ]
    headings = [t("report.side"), t("report.launch"), *map(words.figure_name, names)]
    headings += [t(f"report.spent_{name}") for name in ("launch_s", "warmup_s", "measure_s")]
    return Table(caption=t("report.launches_caption"), headings=headings, rows=rows, long=True) if rows else None
