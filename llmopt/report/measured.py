"""A benchmark and a comparison as the terminal shows them: 80 columns, every figure with its interval and n."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmopt.messages import t
from llmopt.report import words
from llmopt.report.answers import side_notes

__all__ = ["benchmark_text", "comparison_text", "percent"]

WIDTH = 80
IN_REPORT = ("accuracy", "answers_per_minute", "output_tokens_per_s", "ttft_p50_ms", "e2e_p50_ms", "memory_bytes")
"""Figures whose names are messages of the study's report."""
ALONE = (
    "accuracy", "answers_per_minute", "characters_per_s", "output_tokens_per_s", "total_tokens_per_s", "ttft_p50_ms",
    "ttft_p95_ms", "itl_p50_ms", "tpot_p50_ms", "e2e_p50_ms", "e2e_p95_ms", "attainment", "goodput_per_s",
    "token_goodput_per_s", "memory_bytes", "error_rate", "truncated", "cost_per_million_tokens",
    "cost_per_thousand_answers",
)  # fmt: skip
BESIDE = (
    "accuracy", "answers_per_minute", "characters_per_s", "output_tokens_per_s", "ttft_p50_ms", "e2e_p50_ms",
    "attainment", "goodput_per_s", "memory_bytes", "error_rate", "cost_per_million_tokens",
    "cost_per_thousand_answers",
)  # fmt: skip
BY_TOKENS = ("output_tokens_per_s", "cost_per_million_tokens")
"""Meaningless between models with different tokenizers."""
MOST_COLUMNS = 3
"""More configurations than this stand below each other: their columns would not fit."""


def benchmark_text(result: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Figures, quality by level, how answers ended, and what the certificate warns of."""
    one = result["sides"][0]
    heading = t(
        "benchmark.title",
        what=one["label"],
        engine=one["engine"],
        dataset=result["dataset"]["name"],
        items=result["dataset"]["items"],
        launches=len(one["launches"]),
    )
    rows = [_row(_name(name), name, one["figures"][name]) for name in ALONE if name in one["figures"]]
    parts = ["", *_folded([heading], width), "", _table(_headings(), rows, width)]
    if one["levels"]:
        levels = [_row(t("benchmark.level", level=row["level"]), "accuracy", row) for row in one["levels"]]
        parts += ["", t("benchmark.levels"), _table(_headings(), levels, width)]
    statuses = [_row(t(f"benchmark.status_{name}"), "accuracy", row) for name, row in one["statuses"].items()]
    parts += ["", t("benchmark.statuses"), _table(_headings(), statuses, width)]
    notes = [] if (measure := one.get("quality_measure", "gold")) == "gold" else [_measure_note(measure)]
    parts += [line for note in (*notes, *side_notes(one)) for line in ("", *_folded([note], width))]
    parts += _folded(_warnings([one]), width)
    parts += ["", t("report.use") + ":", "  " + one["command"]["line"]]
    return "\n".join(parts)


def comparison_text(result: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Verdicts, the configurations beside each other, every pair, and the gate."""
    sides = result["sides"]
    if not any(entry["before"] == sides[0]["label"] for entry in result["comparisons"]):
        sides = [{**result["baseline"], "label": result["comparisons"][0]["before"]}, *sides]
    parts = ["", *_folded(_verdicts(result), width), "", _beside(sides, width)]
    if not _one_tokenizer(sides):
        parts.append(t("compare.tokenizers"))
    rows = [
        [f"{entry['before']} → {entry['after']}", _judged(entry["quality"]), _judged(entry["speed"])]
        for entry in result["comparisons"]
    ]
    headings = [t("compare.pair"), t("report.quality"), t("report.speed")]
    parts += ["", t("compare.pairs"), _table(headings, rows, width)]
    if not result["same_machine"]:
        parts.append(t("compare.speed_left_out"))
    for one in result["sides"]:
        parts += _folded([f"{one['label']} — {note}" for note in side_notes(one)], width)
    parts += _folded(_warnings(result["sides"]), width)
    if result["gate"]:
        parts += ["", *_folded(_gate(result["gate"]), width)]
    return "\n".join(parts)


def _measure_note(measure: str) -> str:
    """One configuration alone has nothing to agree with."""
    return t(f"answers.measure_{'unjudged' if measure == 'agreement' else measure}")


def percent(share: float) -> str:
    """``5%``, or ``0.5%``."""
    return f"{100 * share:.3g}%"


def _verdicts(result: Mapping[str, Any]) -> list[str]:
    verdict = result["verdict"]
    by_figure = {verdict["objective"]: verdict, **verdict["others"]}
    if not result["same_machine"]:
        by_figure.pop("speed", None)
    return [
        t(f"compare.verdict_{found['kind']}", figure=t(f"report.{figure}"), **_winner(found))
        for figure, found in sorted(by_figure.items())
    ]


def _winner(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"winner": found["winner"]} if found["winner"] else {}


def _beside(sides: Sequence[Mapping[str, Any]], width: int) -> str:
    """One table: figures down, configurations across; turned round where there are many."""
    names = [name for name in BESIDE if any(name in one["figures"] for one in sides)]
    if not _one_tokenizer(sides):
        names = [name for name in names if name not in BY_TOKENS]
    cells = [[_cell(name, one["figures"].get(name)) for one in sides] for name in names]
    if len(sides) <= MOST_COLUMNS:
        rows = [[_name(name), *values] for name, values in zip(names, cells, strict=True)]
        return _table([t("report.figure"), *(one["label"] for one in sides)], rows, width)
    rows = [
        [one["label"], _name(name), values[place]]
        for place, one in enumerate(sides)
        for name, values in zip(names, cells, strict=True)
    ]
    return _table([t("compare.sides"), t("report.figure"), t("benchmark.value")], rows, width)


def _cell(name: str, estimate: Mapping[str, Any] | None) -> str:
    """Value, interval and n in one cell."""
    if estimate is None:
        return "–"
    value, low, high = _figure(name, estimate["value"]), estimate["low"], estimate["high"]
    if low is None or high is None:
        return f"{value} (n={estimate['n']})"
    unit = value.rpartition(" ")[2] if " " in value else ""
    bounds = [_figure(name, bound).removesuffix(f" {unit}") for bound in (low, high)]
    return f"{value} ({bounds[0]}–{bounds[1]}, n={estimate['n']})"


def _one_tokenizer(sides: Sequence[Mapping[str, Any]]) -> bool:
    return len({one["model"] for one in sides}) == 1


def _judged(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return t("report.not_measured")
    return f"{words.effect(verdict)} — {t('report.kind_' + verdict['kind'])}"


def _gate(found: Mapping[str, Any]) -> list[str]:
    limit = percent(found["limit"])
    lines = []
    for check in found["checks"]:
        values = {"what": check["what"], "figure": t(f"report.{check['figure']}"), "limit": limit}
        if check["status"] == "failed":
            values["loss"] = percent(check["loss"])
        lines.append(t(f"compare.gate_{check['status']}", **values))
    return lines


def _warnings(sides: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = []
    for one in sides:
        for key, count in one["warnings"].items():
            lines.append(f"{one['label']} — " + t("benchmark.warning", count=count, text=t(key)))
    return ["", *lines] if lines else []


def _name(name: str) -> str:
    return t(f"report.name_{name}") if name in IN_REPORT else t(f"benchmark.name_{name}")


def _headings() -> list[str]:
    return [t("benchmark.figure"), t("benchmark.value"), t("benchmark.interval"), t("benchmark.n")]


def _row(label: str, name: str, estimate: Mapping[str, Any]) -> list[str]:
    low, high = estimate["low"], estimate["high"]
    bounds = "–" if low is None or high is None else f"{_figure(name, low)} … {_figure(name, high)}"
    return [label, _figure(name, estimate["value"]), bounds, str(estimate["n"])]


def _figure(name: str, value: float) -> str:
    """As in the study's report; costs and short times need their digits, not their decimals."""
    if name.startswith("cost_"):
        return f"{value:,.3g}"
    if name.endswith("_ms"):
        return f"{value:,.3g} ms" if value < 100 else words.figure(name, value)  # noqa: PLR2004 - three digits
    return words.figure("accuracy" if name == "attainment" else name, value)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn

    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    for heading in headings:
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return "\n".join(_drawn([drawn], width))


def _folded(sentences: Sequence[str], width: int) -> list[str]:
    """Sentences in lines of at most ``width`` cells."""
    return _drawn(sentences, width) if sentences else []


def _drawn(things: Sequence[Any], width: int) -> list[str]:
    from rich.console import Console  # noqa: PLC0415 - only where something is drawn

    console = Console(file=io.StringIO(), width=width, highlight=False, emoji=False, markup=False, color_system=None)
    for thing in things:
        console.print(thing)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]
