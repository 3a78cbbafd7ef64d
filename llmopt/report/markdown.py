"""A result as Markdown, for a repository or a ticket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmopt.messages import current_language, set_language, t
from llmopt.report import words
from llmopt.report.answers import answer_notes
from llmopt.report.text import SHOWN, estimates_of

__all__ = ["markdown", "provenance"]


def markdown(result: Mapping[str, Any], *, language: str) -> str:
    """The whole report in one language."""
    before = current_language()
    set_language(language)
    try:
        return _render(result)
    finally:
        set_language(before)


def _render(result: Mapping[str, Any]) -> str:
    parts = [f"# {result['study']}", words.verdict_sentence(result)]
    rows = words.gain_rows(result)
    if rows:
        parts.append(f"## {t('report.gains')}")
        parts.append(_table((t("report.step"), t("report.quality"), t("report.speed")), rows))
    sides = [estimates_of(result[side]) for side in ("baseline", "best")]
    figures = [
        (t(f"report.name_{name}"), *(words.interval(name, side.get(name)) for side in sides))
        for name in SHOWN
        if any(name in side for side in sides)
    ]
    parts.append(f"## {t('report.figures')}")
    parts.append(_table((t("report.figure"), t("report.baseline"), t("report.best")), figures))
    parts += ["\n".join(f"- {note}" for note in notes)] if (notes := answer_notes(result)) else []
    changes = [(f"`{n}`", words.setting(a), words.setting(b)) for n, (a, b) in words.changed_settings(result).items()]
    if changes:
        parts.append(f"## {t('report.changes')}")
        parts.append(_table((t("report.setting"), t("report.baseline"), t("report.best")), changes))
    sampling = ", ".join(f"`{name}={value}`" for name, value in result["command"]["request"].items())
    parts += [f"## {t('report.use')}", f"```sh\n{result['command']['line']}\n```"]
    parts += [t("report.with_requests", settings=sampling)]
    parts += [f"## {t('report.trials')}", _trials(result)]
    parts += [t("report.provenance", **provenance(result))]
    return "\n\n".join(parts) + "\n"


def _trials(result: Mapping[str, Any]) -> str:
    base = result["baseline"]["configuration"]
    flat = {**base["launch"], **base["request"]}
    rows = []
    for trial in result["trials"]:
        configuration = trial["configuration"]
        own = {**configuration["launch"], **configuration["request"]}
        changed = " ".join(f"`{n}={own[n]}`" for n in own if flat.get(n) != own[n]) or t("progress.as_baseline")
        estimates = (trial["measurement"] or {}).get("estimates", {})
        shown = [words.interval(n, estimates.get(n)) for n in ("accuracy", "answers_per_minute", "memory_bytes")]
        rows.append((str(trial["number"]), t(f"report.outcome_{trial['outcome']}"), changed, *shown))
    headings = (
        "#",
        t("report.outcome"),
        t("report.settings"),
        *(t(f"report.name_{n}") for n in SHOWN[:2]),
        t("report.name_memory_bytes"),
    )
    return _table(headings, rows)


def provenance(result: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the line that says what was measured with what."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    cpu = result["hardware"]["cpu"]
    return {
        "model": result["model"]["name"],
        "sha256": result["model"]["sha256"] or "–",
        "versions": versions,
        "cpu": f"{cpu['model']} ({cpu['usable_cores']:g})",
        "created": result["created"],
    }


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(headings), line(["---"] * len(headings)), *(line(row) for row in rows)])
