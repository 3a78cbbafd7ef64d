"""A benchmark and a comparison as the terminal shows them: 80 columns, every figure with its interval and n."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmopt.messages import t
from llmopt.report import words
from llmopt.report.certificates import certificate_lines
from llmopt.report.notes import match_notes, side_notes
from llmopt.report.terminal import WIDTH, cells, drawn_table, folded

__all__ = [
    "ENGINE_FIGURES",
    "FIGURES",
    "benchmark_text",
    "comparable",
    "compared_sides",
    "comparison_text",
    "gate_sentences",
    "headline",
    "percent",
    "verdict_sentences",
]

FIGURES = (
    "accuracy", "diversity", "answers_per_minute", "characters_per_s", "output_tokens_per_s", "total_tokens_per_s",
    "requests_per_s", "ttft_p50_ms", "ttft_p95_ms", "ttft_p99_ms", "ttft_plan_p50_ms", "ttft_plan_p95_ms",
    "ttft_plan_p99_ms", "ttfot_p50_ms", "itl_p50_ms", "itl_p95_ms", "itl_p99_ms", "inter_chunk_p50_ms", "tpot_p50_ms",
    "e2e_p50_ms", "e2e_p95_ms", "e2e_p99_ms", "e2e_plan_p50_ms", "e2e_plan_p95_ms",
    "attainment", "goodput_per_s", "token_goodput_per_s", "memory_bytes", "error_rate", "truncated",
    "cost_per_million_tokens", "cost_per_thousand_answers", "cached_prompt_share",
)  # fmt: skip
"""Everything a report shows, in its order."""
ENGINE_FIGURES = (
    "engine_prefix_hit_share", "engine_cached_tokens", "engine_waiting_mean", "engine_waiting_max",
    "engine_running_mean", "engine_running_max", "engine_kv_usage_mean", "engine_kv_usage_max", "engine_preemptions",
)  # fmt: skip
"""What an engine tells of itself; not every engine tells all of it."""
ENGINE_WORDS = {"prefix": "engine_prefix_hit_share", "queue": "engine_waiting_max", "kv": "engine_kv_usage_max"}
"""What is said to be missing where an engine does not tell it."""
BESIDE = (
    "accuracy", "answers_per_minute", "characters_per_s", "output_tokens_per_s", "ttft_p50_ms", "itl_p50_ms",
    "inter_chunk_p50_ms", "tpot_p50_ms", "e2e_p50_ms", "attainment", "goodput_per_s", "memory_bytes", "error_rate",
    "cost_per_million_tokens", "cost_per_thousand_answers",
)  # fmt: skip
ALONE_LEFT_OUT = ("inter_chunk_p50_ms",)
"""Only of use beside another tool's figure of that meaning."""
OF_IMPORTS = ("inter_chunk_p50_ms", "tpot_p50_ms", "itl_p50_ms")
BY_TOKENS = ("output_tokens_per_s", "total_tokens_per_s", "itl_p50_ms", "tpot_p50_ms", "cost_per_million_tokens")
"""Meaningless between models with different tokenizers."""
LONG_LABEL = 22
"""Longer labels are shown once, with a letter each, and the letters stand in the tables."""
LETTERS = 26
MOST_COLUMNS = 3
"""More configurations than this stand below each other: their columns would not fit."""


def headline(result: Mapping[str, Any]) -> str:
    """What a benchmark measured."""
    one = result["sides"][0]
    return t(
        "benchmark.title",
        what=one["label"],
        engine=one["engine"],
        dataset=result["dataset"]["name"],
        items=result["dataset"]["items"],
        launches=len(one["launches"]),
    )


def benchmark_text(result: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Figures, quality by level, how answers ended, and what the certificate warns of."""
    one = result["sides"][0]
    names = [name for name in FIGURES if name in one["figures"] and _worth_showing(name, result)]
    rows = [_row(words.figure_name(name), name, one["figures"][name]) for name in names]
    parts = ["", *folded([headline(result)], width), "", drawn_table(_headings(), rows, width)]
    parts += _engine_lines(one["figures"], width)
    if one["levels"]:
        levels = [_row(t("benchmark.level", level=row["level"]), "accuracy", row) for row in one["levels"]]
        parts += ["", t("benchmark.levels"), drawn_table(_headings(), levels, width)]
    statuses = [_row(t(f"benchmark.status_{name}"), "accuracy", row) for name, row in one["statuses"].items()]
    parts += ["", t("benchmark.statuses"), drawn_table(_headings(), statuses, width)]
    notes = [] if (measure := one.get("quality_measure", "gold")) == "gold" else [_measure_note(measure)]
    parts += [line for note in (*notes, *side_notes(one)) for line in ("", *folded([note], width))]
    parts += _certificate([one], width)
    parts += folded(_warnings([one]), width)
    parts += ["", t("report.use") + ":", "  " + one["command"]["line"]]
    return "\n".join(parts)


def _worth_showing(name: str, result: Mapping[str, Any]) -> bool:
    """Not what only another tool has, nor a time from the planned start where nothing was planned."""
    if "_plan_" in name:
        return result["task"]["load"].get("rate") is not None
    figures = result["sides"][0]["figures"]
    if name == "ttfot_p50_ms":  # the same without thinking
        return bool(figures[name]["value"] != (figures.get("ttft_p50_ms") or {}).get("value"))
    return name not in ALONE_LEFT_OUT


def _engine_lines(figures: Mapping[str, Any], width: int) -> list[str]:
    """Queue, KV use and prefix-cache hits as the engine's own counters have them, and what it does not tell."""
    rows = [
        _row(words.figure_name(name), name, figures[name])
        for name in ENGINE_FIGURES
        if name in figures and figures[name]["value"] is not None
    ]
    lines = ["", t("report.engine_told"), drawn_table(_headings(), rows, width)] if rows else []
    missing = [t(f"report.engine_word_{word}") for word, name in ENGINE_WORDS.items() if name not in figures]
    note = folded([t("report.engine_not_told", what=", ".join(missing))], width) if missing else []
    return [*lines, *(note if rows else ["", *note])]


# ── a comparison ───────────────────────────────────────────────────────────────────────────────────────────────────


def compared_sides(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Every side of a comparison: a stored baseline first, then what was measured, then other tools' results."""
    sides = list(result["sides"])
    pairs = result["comparisons"]
    if pairs and not any(entry["before"] == sides[0]["label"] for entry in pairs):
        sides = [{**result["baseline"], "label": pairs[0]["before"]}, *sides]
    return [*sides, *(result.get("imported") or ())]


def comparable(sides: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The figures that mean the same on all sides: none by tokens where the models, and so the tokenizers, differ."""
    if _one_tokenizer(sides):
        return list(names)
    return [name for name in names if name not in BY_TOKENS]


def comparison_text(result: Mapping[str, Any], *, width: int = WIDTH) -> str:
    """Verdicts, the configurations beside each other, every pair, other tools' meanings, and the gate."""
    sides, imported = compared_sides(result), result.get("imported") or ()
    letters = _letters([one["label"] for one in sides])
    parts = ["", *folded(verdict_sentences(result), width), ""]
    if any(letter != label for label, letter in letters.items()):
        parts += [*folded([f"{letter} = {label}" for label, letter in letters.items()], width), ""]
    parts.append(_beside(sides, letters, width, others=bool(imported)))
    if not _one_tokenizer(sides):
        parts += folded([t("compare.tokenizers")], width)
    for one in imported:
        notes = [t("compare.imported_note", label=one["label"], text=t(key)) for key in one["differences"]]
        parts += ["", *folded(notes, width)]
    if result["comparisons"]:
        rows = [
            [
                f"{letters[entry['before']]} → {letters[entry['after']]}",
                words.judged(entry["quality"]),
                words.judged(entry["speed"]),
            ]
            for entry in result["comparisons"]
        ]
        headings = [t("compare.pair"), t("report.quality"), t("report.speed")]
        parts += ["", t("compare.pairs"), drawn_table(headings, rows, width)]
    parts += folded(match_notes(result, letters), width)
    if not result["same_machine"]:
        parts += folded([t("compare.speed_left_out")], width)
    for one in result["sides"]:
        parts += folded([f"{one['label']} — {note}" for note in side_notes(one)], width)
    parts += _certificate(result["sides"], width, letters)
    parts += folded(_warnings(result["sides"]), width)
    if result["gate"]:
        parts += ["", *folded(gate_sentences(result["gate"]), width)]
    return "\n".join(parts)


def _measure_note(measure: str) -> str:
    """One configuration alone has nothing to agree with."""
    return t(f"answers.measure_{'unjudged' if measure == 'agreement' else measure}")


def percent(share: float) -> str:
    """``5%``, or ``0.5%``."""
    return f"{100 * share:.3g}%"


def verdict_sentences(result: Mapping[str, Any]) -> list[str]:
    """One claim for quality and one for speed; why there is none where nothing was paired."""
    if not result["comparisons"]:
        return [t("compare.nothing_paired")]
    verdict = result["verdict"]
    by_figure = {verdict["objective"]: verdict, **verdict["others"]}
    if not result["same_machine"]:
        by_figure.pop("speed", None)
    return [
        t(f"compare.verdict_{found['kind']}", figure=t(f"report.{figure}"), **_winner(found), **_further(found))
        for figure, found in sorted(by_figure.items())
    ]


def gate_sentences(found: Mapping[str, Any]) -> list[str]:
    """What the regression gate says of each figure."""
    limit = percent(found["limit"])
    lines = []
    for check in found["checks"]:
        values = {"what": check["what"], "figure": t(f"report.{check['figure']}"), "limit": limit}
        if check["status"] == "failed":
            values["loss"] = percent(check["loss"])
        if check["status"] == "open":
            values["further"] = words.further({"relative": False, **check, "kind": "undecided"})
        lines.append(t(f"compare.gate_{check['status']}", **values))
    return lines


def _winner(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"winner": found["winner"]} if found["winner"] else {}


def _further(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"further": words.further(found)} if found["kind"] == "undecided" else {}


def _letters(labels: Sequence[str]) -> dict[str, str]:
    """What each configuration is called in tables: its label, or a letter where any label is long."""
    if all(cells(label) <= LONG_LABEL for label in labels):
        return {label: label for label in labels}
    return {label: chr(ord("A") + place) if place < LETTERS else f"#{place + 1}" for place, label in enumerate(labels)}


def _beside(sides: Sequence[Mapping[str, Any]], letters: Mapping[str, str], width: int, *, others: bool) -> str:
    """One table: figures down, configurations across; turned round where there are many."""
    names = [
        name
        for name in comparable(sides, BESIDE)
        if any(name in one["figures"] for one in sides) and (others or name not in OF_IMPORTS)
    ]
    table = [[words.interval(name, one["figures"].get(name)) for one in sides] for name in names]
    if len(sides) <= MOST_COLUMNS:
        rows = [[words.figure_name(name), *values] for name, values in zip(names, table, strict=True)]
        return drawn_table([t("report.figure"), *(letters[one["label"]] for one in sides)], rows, width)
    rows = [
        [letters[one["label"]], words.figure_name(name), values[place]]
        for place, one in enumerate(sides)
        for name, values in zip(names, table, strict=True)
    ]
    return drawn_table([t("compare.sides"), t("report.figure"), t("benchmark.value")], rows, width)


def _one_tokenizer(sides: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what was measured here is one model; which model another tool's file names is not known to us."""
    return len({one["model"] for one in sides if one.get("engine")}) <= 1


def _certificate(sides: Sequence[Mapping[str, Any]], width: int, letters: Mapping[str, str] | None = None) -> list[str]:
    """What stands behind the figures, worst launch of each side."""
    found = {
        (letters or {}).get(one["label"], one["label"]): [
            launch["certificate"] for launch in one["launches"] if launch.get("certificate")
        ]
        for one in sides
    }
    return certificate_lines(found, width)


def _warnings(sides: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = []
    for one in sides:
        for key, count in one["warnings"].items():
            lines.append(f"{one['label']} — " + t("benchmark.warning", count=count, text=t(key)))
    return ["", *lines] if lines else []


def _headings() -> list[str]:
    return [t("benchmark.figure"), t("benchmark.value"), t("benchmark.interval"), t("benchmark.n")]


def _row(label: str, name: str, estimate: Mapping[str, Any]) -> list[str]:
    low, high = estimate["low"], estimate["high"]
    bounds = "–" if low is None or high is None else f"{words.figure(name, low)} … {words.figure(name, high)}"
    return [label, words.figure(name, estimate["value"]), bounds, str(estimate["n"])]
