"""The two figures of the client that matter most, as pictures for the README.

    python benchmarks/client_picture.py      (docs/measurements/client/accuracy.json → docs/pictures/client*.svg)

How far from the truth (TTFT at 64 streams, p50 and p99) and at what cost (CPU seconds per 1,000 events, start-up
counted). Bars are on a logarithmic scale; the numbers stand beside them.
"""

from __future__ import annotations

import argparse
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from client_accuracy import costs_of, errors_of
from client_common import ROOT, median

STREAMS = 64
WORDS = {
    "en": {
        "p50": "TTFT error at p50, ms",
        "p99": "TTFT error at p99, ms",
        "cpu": "CPU seconds per 1,000 events",
        "title": "Measuring client against a mock of known timing: 64 streams on two cores; shorter is better",
        "ours": "llmopt",
    },
    "ko": {
        "p50": "TTFT 오차 p50, ms",
        "p99": "TTFT 오차 p99, ms",
        "cpu": "이벤트 1,000개당 CPU 초",
        "title": "시각을 아는 모의 서버로 잰 측정 프로그램: 스트림 64개, 코어 2개. 짧을수록 좋음",
        "ours": "llmopt",
    },
}
WIDTH, ROW, LABEL, BAR, GAP = 860, 22, 96, 120, 28
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; } .small { fill: #59636e; }
.bar { fill: #8c959f; } .ours { fill: #1a7f37; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .small { fill: #9198a1; } .bar { fill: #6e7681; } .ours { fill: #3fb950; }
}
"""


def panel(x: float, heading: str, values: Mapping[str, float], order: Sequence[str], ours: str) -> list[str]:
    """One set of bars."""
    known = [value for value in values.values() if value > 0]
    low, high = math.log10(min(known) / 2), math.log10(max(known))
    parts = [f'<text x="{x}" y="48" font-weight="600">{html.escape(heading)}</text>']
    for place, name in enumerate(order):
        y = 64 + place * ROW
        shown = ours if name == "ours" else name
        parts.append(f'<text x="{x}" y="{y + 13}" class="small">{html.escape(shown)}</text>')
        if (value := values.get(name)) is None:
            continue
        width = max(BAR * (math.log10(max(value, 1e-9)) - low) / (high - low), 2)
        kind = "bar ours" if name == "ours" else "bar"
        parts.append(f'<rect x="{x + LABEL}" y="{y + 2}" width="{width:.1f}" height="14" rx="2" class="{kind}"/>')
        parts.append(f'<text x="{x + LABEL + width + 5:.1f}" y="{y + 13}">{value:.3g}</text>')
    return parts


def picture(runs: Sequence[dict[str, object]], language: str) -> str:
    """The whole SVG in one language."""
    words = WORDS[language]
    cells = {client: found for (client, level), found in errors_of(list(runs)).items() if level == STREAMS}
    costs = costs_of(list(runs), STREAMS)
    figures = {
        "p50": {client: median(found["ttft p50"]) for client, found in cells.items() if found.get("ttft p50")},
        "p99": {client: median(found["ttft p99"]) for client, found in cells.items() if found.get("ttft p99")},
        "cpu": {client: found["cpu_s_per_1000"] for client, found in costs.items()},
    }
    order = [
        "ours",
        *sorted((name for name in costs if name != "ours"), key=lambda name: costs[name]["cpu_s_per_1000"]),
    ]
    height = 64 + len(order) * ROW + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{html.escape(words['title'])}</title><style>{STYLE}</style>",
        f'<text x="0" y="18">{html.escape(words["title"])}</text>',
    ]
    for place, (name, values) in enumerate(figures.items()):
        parts += panel(place * (LABEL + BAR + GAP + 45), words[name], values, order, words["ours"])
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "docs" / "measurements" / "client" / "accuracy.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    options = parser.parse_args()
    kept = json.loads(options.runs.read_text())["runs"]
    for language, name in (("en", "client.svg"), ("ko", "client-ko.svg")):
        (options.out / name).write_text(picture(kept, language), encoding="utf-8")
        print(options.out / name)
