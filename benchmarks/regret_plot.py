"""Regret over engine-seconds as one SVG that reads on light and on dark pages, without a plotting library."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

LABELS = {"auto": "llmopt", "blind": "llmopt, no guess", "tpe": "Optuna TPE", "random": "random", "grid": "grid"}
COLOURS = {
    "auto": ("#0f7b4f", "#3ddc97"), "blind": ("#7a5c00", "#e0c04a"), "tpe": ("#1f5fa8", "#6cb2ff"),
    "random": ("#b3541e", "#ffa45c"), "grid": ("#6b6b6b", "#a8a8a8"),
}  # fmt: skip
MOST = 0.35
"""The largest regret that is drawn; before the first trial it is 1."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, LOW = 720, 400, 62, 170, 34, 46


def regret_at(curve: list[list[float]], at_s: float) -> float:
    """Distance to the optimum of the best known after so many seconds; 1 before the first trial ended."""
    reached = [share for seconds, share in curve if seconds <= at_s]
    return 1.0 - reached[-1] if reached else 1.0


def plot(replayed: Path, out: Path) -> None:
    """Medians with the middle half of the seeds; the dashed lines are 5 % of regret and a tenth of the whole grid."""
    found = json.loads(replayed.read_text())
    whole = found["whole_s"]
    first = min(curve[0][0] for arm in found["methods"].values() for curve in arm["curves"])
    begin, end = math.log(first / 1.3), math.log(whole / 4)

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log(seconds) - begin) / (end - begin)

    def y(regret: float) -> float:
        return TOP + (HEIGHT - TOP - LOW) * (1.0 - min(regret, MOST) / MOST)

    parts, labels = [], []
    steps = [math.exp(begin + (end - begin) * i / 160) for i in range(161)]
    for method, arm in found["methods"].items():
        rows = [sorted(regret_at(curve, s) for curve in arm["curves"]) for s in steps]
        middle = [statistics.median(row) for row in rows]
        quarter = [(row[len(row) // 4], row[3 * len(row) // 4]) for row in rows]
        upper = [f"{x(s):.1f},{y(high):.1f}" for s, (_, high) in zip(steps, quarter, strict=True)]
        lower = [f"{x(s):.1f},{y(low):.1f}" for s, (low, _) in zip(steps, quarter, strict=True)]
        line = " ".join(f"{x(s):.1f},{y(m):.1f}" for s, m in zip(steps, middle, strict=True))
        if method in ("auto", "tpe"):
            parts.append(f'<polygon class="{method} band" points="{" ".join([*upper, *reversed(lower)])}"/>')
        parts.append(f'<polyline class="{method} line" points="{line}"/>')
        labels.append((y(middle[-1]), method))
    parts += _labels(labels)
    out.write_text(_page(_frame(found, x, y) + parts, found))


def _labels(labels: list[tuple[float, str]]) -> list[str]:
    """Names at the ends of the lines, moved apart."""
    placed: list[str] = []
    above = float(TOP)
    for left, (at, method) in zip(range(len(labels) - 1, -1, -1), sorted(labels), strict=True):
        above = min(max(at, above + 17), HEIGHT - LOW - 17 * left)
        placed.append(
            f'<text class="{method} name" x="{WIDTH - RIGHT + 8}" y="{above + 4:.1f}">{LABELS[method]}</text>'
        )
    return placed


def _frame(found, x, y) -> list[str]:
    whole = found["whole_s"]
    right, bottom = WIDTH - RIGHT, HEIGHT - LOW
    parts = [
        f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>',
        f'<path class="goal" d="M{LEFT} {y(0.05):.1f}H{right}"/>',
        f'<path class="goal" d="M{x(whole / 10):.1f} {TOP}V{bottom}"/>',
        f'<text x="{x(whole / 10) + 4:.1f}" y="{TOP + 10}">1/10 grid</text>',
    ]
    parts += [
        f'<text class="end" x="{LEFT - 6}" y="{y(r) + 4:.1f}">{round(100 * r)} %</text>'
        for r in (0, 0.05, 0.1, 0.2, 0.3)
    ]
    ticks = [t for t in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if LEFT <= x(t) <= right]
    parts += [f'<text class="middle" x="{x(t):.1f}" y="{bottom + 17}">{t}</text>' for t in ticks]
    under = f'x="{(LEFT + right) / 2}" y="{HEIGHT - 8}"'
    parts.append(f'<text class="middle" {under}>engine-seconds (whole grid: {whole:.0f})</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 14}">regret: how far the best known is from the optimum</text>')
    return parts


def _page(parts: list[str], found) -> str:
    light = "".join(f".{m}{{--c:{a}}}" for m, (a, _) in COLOURS.items())
    dark = "".join(f".{m}{{--c:{b}}}" for m, (_, b) in COLOURS.items())
    style = (
        f"{light}text{{font:13px sans-serif;fill:#333}}.end{{text-anchor:end}}.middle{{text-anchor:middle}}"
        ".line{fill:none;stroke:var(--c);stroke-width:2}.band{fill:var(--c);opacity:.15}.name{fill:var(--c)}"
        ".axis{fill:none;stroke:#777}.goal{fill:none;stroke:#999;stroke-dasharray:4 4}"
        f"@media(prefers-color-scheme:dark){{{dark}text{{fill:#ddd}}.name{{fill:var(--c)}}}}"
    )
    title = f"Regret over engine-seconds, median of {found['seeds_drawn']} seeds"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{title}</title><style>{style}</style>{''.join(parts)}</svg>\n"
    )
