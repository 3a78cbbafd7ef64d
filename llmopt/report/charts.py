"""The charts of a report, each with its table: distributions of times, memory over time, quality over speed, load."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmopt.hardware.sampler import TracePoint
from llmopt.measure import timing
from llmopt.measure.stats.intervals import design_effect, quantile, quantile_interval
from llmopt.messages import t
from llmopt.records import Sample
from llmopt.report import words
from llmopt.report.detail import Detail, SideDetail
from llmopt.report.document import Chart, Panel, Table

__all__ = ["load_curve", "memory_over_time", "scatter", "times_of_answers"]

MB = 1e6
CURVE_POINTS = 200
"""A distribution is drawn through this many of its quantiles at most."""
SHARES = (0.50, 0.90, 0.95, 0.99)
WIDE = 20.0
"""Where the largest time is this many times the smallest, the axis is logarithmic."""
MOST_COURSES = 4
OF_LOADS = ("answers_per_minute", "output_tokens_per_s", "ttft_p50_ms", "e2e_p50_ms", "attainment")
Times = Callable[[Sample], Sequence[float]]


def _one(measure: Callable[[Sample], float | None]) -> Times:
    return lambda sample: () if (value := measure(sample)) is None else (value,)


TIMES: Mapping[str, Times] = {
    "ttft": _one(timing.ttft_s),
    "itl": timing.token_gaps_s,
    "e2e": _one(timing.e2e_s),
}


def times_of_answers(detail: Detail) -> Chart | None:
    """How long answers took on each side: the cumulated share of answers by time, and its percentiles."""
    panels, rows = [], []
    for name, times in TIMES.items():
        found = {side.label: sorted(itertools.chain(*_by_launch(side, times))) for side in detail.sides}
        if not any(found.values()):
            continue
        panels.append(_cumulated(name, found))
        rows += [
            [t(f"report.time_{name}"), side.label, *_percentiles(side, times), str(len(found[side.label]))]
            for side in detail.sides
            if found[side.label]
        ]
    if not panels:
        return None
    headings = [t("report.time"), t("report.side"), *(f"{100 * share:.0f} %" for share in SHARES), "n"]
    return Chart(panels=panels, table=Table(caption=t("report.times_caption"), headings=headings, rows=rows))


def _by_launch(side: SideDetail, times: Times) -> list[list[float]]:
    """Milliseconds, launch by launch."""
    return [
        [1e3 * value for sample in launch.samples if sample.ok for value in times(sample)] for launch in side.launches
    ]


def _percentiles(side: SideDetail, times: Times) -> list[str]:
    """Each percentile that the sample supports, with its interval.

    Answers of one launch, and times of one answer, are dependent: the wider of the two effects counts.
    """
    launches = [group for group in _by_launch(side, times) if group]
    answers = [[1e3 * value for value in found] for s in side.samples if s.ok and (found := times(s))]
    ordered = sorted(itertools.chain(*launches))
    cells = []
    for share in SHARES:
        threshold = quantile(ordered, share)
        effect = max(design_effect(groups, threshold) if len(groups) > 1 else 1.0 for groups in (launches, answers))
        bounds = quantile_interval(ordered, share, effect=effect)
        if bounds.low is None or bounds.high is None:
            cells.append("–")
        else:
            low, high = words.brief(bounds.low), words.brief(bounds.high)
            cells.append(f"{words.brief(bounds.value)} ({low}–{high})")
    return cells


def _cumulated(name: str, found: Mapping[str, Sequence[float]]) -> Panel:
    traces = []
    for place, (label, values) in enumerate(found.items()):
        if not values:
            continue
        count = min(len(values), CURVE_POINTS)
        places = sorted({round(k * (len(values) - 1) / max(count - 1, 1)) for k in range(count)})
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label,
                "side": place,
                "line": {"shape": "hv"},
                "x": [round(values[k], 3) for k in places],
                "y": [round(100 * (k + 1) / len(values), 2) for k in places],
            }
        )
    every = [value for values in found.values() for value in values if value > 0]
    wide = bool(every) and max(every) > WIDE * min(every)
    title = t(f"report.time_{name}")
    return Panel(
        title=title,
        alt=t("report.times_alt", time=title, sides=", ".join(found)),
        traces=traces,
        x={"title": "ms", "type": "log" if wide else "linear"},
        y={"title": t("report.share_of_answers"), "range": [0, 101]},
    )


# ── memory ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def memory_over_time(detail: Detail) -> Chart | None:
    """The engine's memory during the first launch of each side, its parts stacked, its phases marked."""
    panels, rows = [], []
    for side in detail.sides[:MOST_COURSES]:
        course = next((launch.course for launch in side.launches if len(launch.course) > 1), ())
        if course:
            panels.append(_stacked(side.label, course))
            rows += _phase_rows(side.label, course)
    if not panels:
        return None
    headings = [t("report.side"), t("report.phase"), t("report.span"), t("report.part_peak")]
    headings += [t(f"report.part_{name}") for name in ("private", "mapped", "device")]
    return Chart(panels=panels, table=Table(caption=t("report.memory_caption"), headings=headings, rows=rows))


PARTS: Mapping[str, Callable[[TracePoint], int]] = {
    "private": lambda point: point.anonymous_bytes + point.shared_bytes,
    "mapped": lambda point: point.file_bytes,
    "device": lambda point: sum(point.device_bytes),
}


def _stacked(label: str, course: Sequence[TracePoint]) -> Panel:
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "stackgroup": "memory",
            "name": t(f"report.part_{name}"),
            "side": place,
            "x": [point.at_s for point in course],
            "y": [round(part(point) / MB, 1) for point in course],
        }
        for place, (name, part) in enumerate(PARTS.items())
        if name == "private" or any(part(point) for point in course)
    ]
    bands = [(began_s, ended_s, t(f"report.phase_{phase}")) for phase, began_s, ended_s, _ in _phases(course)]
    return Panel(
        title=label,
        alt=t("report.memory_alt", side=label),
        traces=traces,
        x={"title": t("report.seconds")},
        y={"title": "MB", "rangemode": "tozero"},
        bands=bands,
    )


def _phases(course: Sequence[TracePoint]) -> Iterator[tuple[str, float, float, list[TracePoint]]]:
    """Each phase with its first and last moment; one ends where the next begins."""
    groups = [(phase, list(points)) for phase, points in itertools.groupby(course, key=lambda point: point.phase)]
    for place, (phase, points) in enumerate(groups):
        ended_s = groups[place + 1][1][0].at_s if place + 1 < len(groups) else points[-1].at_s
        yield phase, points[0].at_s, ended_s, points


def _phase_rows(label: str, course: Sequence[TracePoint]) -> list[list[str]]:
    rows = []
    for phase, began_s, ended_s, points in _phases(course):
        largest = max(points, key=lambda point: point.total_bytes)
        parts = [words.size(part(largest)) if part(largest) else "0" for part in PARTS.values()]
        rows.append(
            [
                label,
                t(f"report.phase_{phase}"),
                f"{began_s:.1f}–{ended_s:.1f} s",
                words.size(largest.total_bytes) if largest.total_bytes else "0",
                *parts,
            ]
        )
    return rows


# ── points ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def scatter(
    title: str,
    alt: str,
    groups: Sequence[tuple[str, Sequence[tuple[float, float, str]], str, int]],
    *,
    x: str,
    y: str,
) -> Panel:
    """Groups of points ``(name, [(x, y, what), …], symbol, size)`` in one picture."""
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "side": place,
            "x": [round(point[0], 3) for point in points],
            "y": [round(point[1], 3) for point in points],
            "text": [point[2] for point in points],
            "marker": {"symbol": symbol, "size": size},
        }
        for place, (name, points, symbol, size) in enumerate(groups)
        if points
    ]
    return Panel(title=title, alt=alt, traces=traces, x={"title": x}, y={"title": y})


def load_curve(points: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Latency over throughput at rising loads, as a sweep found them: ``load``, ``estimates``, ``saturated`` each."""
    rows, drawn = [], []
    for point in points:
        found, load = point["estimates"], point["load"]
        rate = found["answers_per_minute"]["value"]
        name = words.load(load)
        if point.get("saturated"):
            name += " " + t("report.saturated")
        rows.append([name, *(words.interval(figure, found.get(figure)) for figure in OF_LOADS)])
        drawn.append((rate, found, name))
    if not drawn:
        return None
    traces = []
    for place, figure in enumerate(("ttft_p50_ms", "e2e_p50_ms")):
        shown = [(rate, found[figure], name) for rate, found, name in drawn if figure in found]  # in rising load
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": words.figure_name(figure),
                "side": place,
                "x": [round(rate, 2) for rate, _, _ in shown],
                "y": [round(estimate["value"], 2) for _, estimate, _ in shown],
                "text": [name for _, _, name in shown],
                **_bars([estimate for _, estimate, _ in shown]),
            }
        )
    panel = Panel(
        title=t("report.load_title"),
        alt=t("report.load_alt"),
        traces=traces,
        x={"title": words.figure_name("answers_per_minute")},
        y={"title": "ms", "type": "log"},
    )
    headings = [t("report.load"), *map(words.figure_name, OF_LOADS)]
    return Chart(panels=[panel], table=Table(caption=t("report.load_caption"), headings=headings, rows=rows))


def _bars(estimates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Error bars of 95 % intervals, where every point has one."""
    if any(one["low"] is None or one["high"] is None for one in estimates):
        return {}
    return {
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [one["high"] - one["value"] for one in estimates],
            "arrayminus": [one["value"] - one["low"] for one in estimates],
        }
    }
