"""The sections that a study, a benchmark and a comparison have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmopt.messages import t
from llmopt.report import words
from llmopt.report.answers import answers_blocks, levels_table
from llmopt.report.charts import load_curve, memory_over_time, times_of_answers
from llmopt.report.detail import Detail
from llmopt.report.document import Block, Code, Section, Table, Text
from llmopt.report.swept import sweep_notes

__all__ = ["answers_sections", "course_sections", "provenance", "section", "use_section"]


def section(key: str, *blocks: Block | None) -> list[Section]:
    """A section under the message ``key``; none where nothing stands in it."""
    kept = [block for block in blocks if block is not None]
    return [Section(title=t(key), blocks=kept)] if kept else []


def course_sections(detail: Detail, result: Mapping[str, Any]) -> list[Section]:
    """Times of answers, the load curve where loads were swept, memory over time."""
    sweep = (result.get("sweep") or {}).get("points") or ()
    return [
        *section("report.times", times_of_answers(detail)),
        *section("report.load_section", load_curve(sweep), *(Text(text=note) for note in sweep_notes(sweep))),
        *section("report.memory", memory_over_time(detail)),
    ]


def answers_sections(detail: Detail) -> list[Section]:
    """Levels with their weights, and every answer."""
    answers = answers_blocks(detail)
    return [
        *section("report.levels", levels_table(detail)),
        *([Section(title=t("report.answers"), blocks=answers)] if answers else []),
    ]


def use_section(commands: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Section]:
    """The commands to copy, each under its label (none where there is only one)."""
    blocks: list[Block] = []
    for label, command in commands:
        if len(commands) > 1:
            blocks.append(Text(text=label))
        blocks.append(Code(text=command["line"]))
        sampling = ", ".join(f"{name}={value}" for name, value in command["request"].items())
        if sampling:
            blocks.append(Text(text=t("report.with_requests", settings=sampling)))
    return [Section(title=t("report.use"), blocks=blocks)] if blocks else []


def provenance(result: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    """What was measured with what."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    cpu = result["hardware"]["cpu"]
    named = "; ".join(
        f"{model['name']} (sha256 {model['sha256']})" if model.get("sha256") else str(model["name"])
        for model in {model["name"]: model for model in models}.values()
    )
    return t(
        "report.provenance",
        models=named or "–",
        versions=versions,
        cpu=f"{cpu['model']} ({cpu['usable_cores']:g})",
        created=result["created"],
    )


def figures_table(
    caption: str, labels: Sequence[str], sides: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Table:
    """Figures down, sides across; figures that no side has are left out."""
    rows = [
        [words.figure_name(name), *(words.interval(name, side.get(name)) for side in sides)]
        for name in names
        if any(side.get(name) for side in sides)
    ]
    return Table(caption=caption, headings=[t("report.figure"), *labels], rows=rows)
