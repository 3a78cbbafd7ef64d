"""A result as one HTML file: both languages, light and dark, charts that need no network, a table beside each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from llmopt.messages import LANGUAGES, current_language, set_language, t
from llmopt.report import words
from llmopt.report.answers import answer_notes
from llmopt.report.text import SHOWN, estimates_of

__all__ = ["html"]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --ground: #fff; --accent: #0a6ebd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --ground: #0d1117; --accent: #58a6ff; } }
body { font: 16px/1.6 Pretendard, "Noto Sans KR", "Apple SD Gothic Neo", "Malgun Gothic", system-ui, sans-serif;
  color: var(--ink); background: var(--ground); max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100%; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.verdict { font-size: 1.25rem; border-left: .3rem solid var(--accent); padding-left: 1rem; }
pre { overflow-x: auto; padding: 1rem; border: 1px solid var(--line); border-radius: .4rem; }
.wide { overflow-x: auto; } .chart { min-height: 24rem; } footer { color: var(--soft); font-size: .85rem; }
body.ko [lang=en], body.en [lang=ko] { display: none; }
nav button { font: inherit; color: var(--accent); background: none; border: 0; cursor: pointer; }
"""
SCRIPT = """
const data = JSON.parse(document.getElementById('charts').textContent);
function draw() {
  const dark = matchMedia('(prefers-color-scheme: dark)').matches, lang = document.body.className;
  const ink = dark ? '#e6edf3' : '#1b1f24', line = dark ? '#30363d' : '#d0d7de';
  const axis = (title) => ({ title: { text: title }, gridcolor: line, zerolinecolor: line });
  const chart = data[lang];
  Plotly.react('pareto-' + lang, chart.traces, { paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: { color: ink }, xaxis: axis(chart.x), yaxis: axis(chart.y), margin: { t: 20 },
    legend: { orientation: 'h', y: 1.12 } },
    { responsive: true, displayModeBar: false });
}
function show(lang) { document.body.className = lang; document.documentElement.lang = lang; draw(); }
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
draw();
"""


def html(result: Mapping[str, Any]) -> str:
    """The whole page; nothing in it reaches for the network, and no text of a model is ever markup."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - megabytes, only to write a report

    chosen = current_language()
    sections, charts = [], {}
    try:
        for language in LANGUAGES:
            set_language(language)
            sections.append(f'<section lang="{language}">{_body(result, language)}</section>')
            charts[language] = _chart(result)
    finally:
        set_language(chosen)
    inlined = json.dumps(charts, ensure_ascii=False).replace("<", "\\u003c")
    buttons = "".join(
        f"<button onclick=\"show('{language}')\">{name}</button> "
        for language, name in zip(LANGUAGES, ("한국어", "English"), strict=True)
    )
    return (
        f'<!doctype html><html lang="{chosen}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(result["study"])}</title>'
        f'<style>{STYLE}</style></head><body class="{chosen}"><nav>{buttons}</nav>{"".join(sections)}'
        f'<script type="application/json" id="charts">{inlined}</script>'
        f"<script>{get_plotlyjs()}</script><script>{SCRIPT}</script></body></html>\n"
    )


def _body(result: Mapping[str, Any], language: str) -> str:
    sides = [estimates_of(result[side]) for side in ("baseline", "best")]
    figures = [
        (t(f"report.name_{name}"), *(words.interval(name, side.get(name)) for side in sides))
        for name in SHOWN
        if any(name in side for side in sides)
    ]
    changes = [(n, words.setting(a), words.setting(b)) for n, (a, b) in words.changed_settings(result).items()]
    baseline, best = t("report.baseline"), t("report.best")
    sampling = ", ".join(f"{name}={value}" for name, value in result["command"]["request"].items())
    return "".join(
        [
            f"<h1>{escape(result['study'])}</h1>",
            f'<p class="verdict">{escape(words.verdict_sentence(result))}</p>',
            _section(
                t("report.gains"), (t("report.step"), t("report.quality"), t("report.speed")), words.gain_rows(result)
            ),
            _section(t("report.figures"), (t("report.figure"), baseline, best), figures),
            *(f"<p>{escape(note)}</p>" for note in answer_notes(result)),
            _section(t("report.changes"), (t("report.setting"), baseline, best), changes),
            f"<h2>{escape(t('report.use'))}</h2><pre>{escape(result['command']['line'])}</pre>",
            f"<p>{escape(t('report.with_requests', settings=sampling))}</p>",
            f"<h2>{escape(t('report.trials'))}</h2>",
            f'<div id="pareto-{language}" class="chart" role="img" aria-label="{escape(t("report.trials"))}"></div>',
            _trials(result),
            f"<footer>{escape(_provenance(result))}</footer>",
        ]
    )


def _section(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<h2>{escape(title)}</h2>{_table(headings, rows)}" if rows else ""


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _trials(result: Mapping[str, Any]) -> str:
    rows = []
    for trial in result["trials"]:
        estimates = (trial["measurement"] or {}).get("estimates", {})
        shown = [words.interval(n, estimates.get(n)) for n in ("accuracy", "answers_per_minute", "memory_bytes")]
        rows.append((str(trial["number"]), t(f"report.outcome_{trial['outcome']}"), _changed(result, trial), *shown))
    headings = ("#", t("report.outcome"), t("report.settings"), *(t(f"report.name_{n}") for n in SHOWN[:2]))
    return _table((*headings, t("report.name_memory_bytes")), rows)


def _changed(result: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    base = result["baseline"]["configuration"]
    flat = {**base["launch"], **base["request"]}
    own = {**trial["configuration"]["launch"], **trial["configuration"]["request"]}
    return " ".join(f"{n}={own[n]}" for n in own if flat.get(n) != own[n]) or t("progress.as_baseline")


def _chart(result: Mapping[str, Any]) -> dict[str, Any]:
    """Quality over speed: every trial, the Pareto set, baseline and winner."""
    points = {
        trial["number"]: (
            trial["measurement"]["estimates"]["answers_per_minute"]["value"],
            100 * trial["measurement"]["estimates"]["accuracy"]["value"],
            _changed(result, trial),
        )
        for trial in result["trials"]
        if trial["measurement"] and {"accuracy", "answers_per_minute"} <= trial["measurement"]["estimates"].keys()
    }
    groups = [
        (t("report.all_trials"), list(points), "circle", 9),
        (t("report.pareto"), [n for n in result["pareto"] if n in points], "circle-open", 15),
        (t("report.baseline"), [result["baseline"]["trial"]], "square", 12),
        (t("report.best"), [result["best"]["trial"]], "star", 16),
    ]
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [points[n][0] for n in numbers if n in points],
            "y": [points[n][1] for n in numbers if n in points],
            "text": [f"#{n} {points[n][2]}" for n in numbers if n in points],
            "marker": {"symbol": symbol, "size": size},
        }
        for name, numbers, symbol, size in groups
    ]
    return {"traces": traces, "x": t("report.name_answers_per_minute"), "y": t("report.name_accuracy") + " (%)"}


def _provenance(result: Mapping[str, Any]) -> str:
    from llmopt.report.markdown import provenance  # noqa: PLC0415 - the same line in both reports

    return t("report.provenance", **provenance(result))
