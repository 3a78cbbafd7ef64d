"""Draw what the measuring client costs and how near it comes to the truth, against its peers: client.en.svg, client.ko.svg.

python docs/pictures/client.py      from docs/measurements/client/accuracy.json, as it is now
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
RAW = HERE.parent / "measurements" / "client" / "accuracy.json"
STREAMS = 64
NAMES = {"ours": "llmopt", "vllm": "vllm bench serve"}
WORDS = {
    "en": {
        "cpu": "CPU seconds for 1,000 streamed events, start-up counted",
        "error": "Error of the reported p99 TTFT, milliseconds",
        "note": "{streams} streams, {cores} cores, {runs} rounds in turns; bars are medians, dots are single runs. The truth: "
        "what the mock server stamped itself.",
        "versions": "Shorter is better.  llmopt {llmopt}, {peers}",
    },
    "ko": {
        "cpu": "스트리밍 이벤트 1,000개에 쓴 CPU 시간(초), 시작 비용 포함",
        "error": "보고한 첫 토큰 시간(p99)의 오차(밀리초)",
        "note": "동시 요청 {streams}개, 코어 {cores}개, 번갈아 {runs}번. 막대는 중앙값, 점은 한 번씩의 실행. 기준은 모의 서버가 직접 찍은 시각.",
        "versions": "짧을수록 좋습니다.  llmopt {llmopt}, {peers}",
    },
}
WIDTH, LABEL, BAR, ROW, TOP = 940, 132, 250, 34, 50
FONT = "system-ui, 'Noto Sans KR', 'Apple SD Gothic Neo', 'Malgun Gothic', NanumGothic, sans-serif"


def figures(raw: Mapping[str, object]) -> dict[str, dict[str, list[float]]]:
    """Panel → client → one value a run: the longest runs at ``STREAMS`` that did not fail."""
    runs = [run for run in raw["runs"] if run["streams"] == STREAMS and not run["failed"]]
    most = max(run["each"] for run in runs)
    found: dict[str, dict[str, list[float]]] = {"cpu": {}, "error": {}}
    for run in (run for run in runs if run["each"] == most):
        found["cpu"].setdefault(run["client"], []).append(1000 * run["cpu_s"] / run["events"])
        if "ttft p99" in run["errors_ms"]:
            found["error"].setdefault(run["client"], []).append(abs(run["errors_ms"]["ttft p99"]))
    return found


def panel(title: str, values: Mapping[str, Sequence[float]], left: float) -> str:
    """Bars of medians with a dot for each run, best first."""
    longest = max(max(found) for found in values.values())
    parts = [f'<text class="h" x="{left}" y="{TOP - 22}">{escape(title)}</text>']
    for place, (client, found) in enumerate(sorted(values.items(), key=lambda pair: median(pair[1]))):
        y, middle = TOP + place * ROW, median(found)
        kind, size = ("ours" if client == "ours" else "peer"), max(2.0, BAR * middle / longest)
        name = NAMES.get(client, client)
        parts.append(
            f'<text class="{kind}" x="{left + LABEL - 10}" y="{y + 17}" text-anchor="end">{escape(name)}</text>'
        )
        parts.append(f'<rect class="{kind}" x="{left + LABEL}" y="{y + 3}" width="{size:.1f}" height="20" rx="3"/>')
        parts += [f'<circle cx="{left + LABEL + BAR * value / longest:.1f}" cy="{y + 13}" r="2.6"/>' for value in found]
        after = left + LABEL + BAR * max(*found, middle) / longest + 9
        parts.append(f'<text class="v" x="{after:.1f}" y="{y + 17}">{middle:.3g}</text>')
    return "".join(parts)


def svg(raw: Mapping[str, object], language: str) -> str:
    """The whole picture."""
    words, found = WORDS[language], figures(raw)
    rows = max(map(len, found.values()))
    height = TOP + rows * ROW + 62
    versions = raw["versions"]
    peers = ", ".join(f"{name} {version}" for name, version in versions.items())
    runs = min(len(values) for values in found["cpu"].values())
    note = words["note"].format(streams=STREAMS, cores=raw["cores"], runs=runs)
    told = words["versions"].format(llmopt=raw["llmopt"], peers=peers)
    style = (
        f"text{{font:13px {FONT};fill:#1b1f24}}.h{{font-weight:600;font-size:15px}}.s{{fill:#57606a;font-size:12px}}"
        "rect.ours{fill:#0a5cad}rect.peer{fill:#b6bec8}text.ours,.v{font-weight:600}circle{fill:#1b1f24;fill-opacity:.55}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" '
        f'aria-label="{escape(words["cpu"])}; {escape(words["error"])}"><style>{style}</style>'
        f'<rect width="100%" height="100%" rx="8" fill="#fff"/>'
        f"{panel(words['cpu'], found['cpu'], 16)}{panel(words['error'], found['error'], WIDTH / 2 + 10)}"
        f'<text class="s" x="16" y="{height - 34}">{escape(note)}</text>'
        f'<text class="s" x="16" y="{height - 14}">{escape(told)}</text></svg>\n'
    )


def main() -> int:
    """Draw both."""
    raw = json.loads(RAW.read_text(encoding="utf-8"))
    for language in WORDS:
        (HERE / f"client.{language}.svg").write_text(svg(raw, language), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
