"""Whether the figures may be believed: the certificates of all launches of a side, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmopt.messages import t
from llmopt.report import words
from llmopt.report.document import Block, Table, Text, plain
from llmopt.report.terminal import WIDTH, drawn_table, folded

__all__ = ["certificate_blocks", "certificate_lines"]

Certificates = Sequence[Mapping[str, Any]]
MOST_COLUMNS = 3
"""More columns than this do not fit a terminal."""


def certificate_blocks(
    certificates: Mapping[str, Certificates], warnings: Mapping[str, Mapping[str, int]]
) -> list[Block]:
    """One table, a column a side, worst launch first in mind; then every warning in a sentence."""
    table = _table(certificates)
    blocks: list[Block] = [table] if table else []
    told = [
        Text(text=t("report.side_warning", side=label, count=count, text=t(key)))
        for label, found in warnings.items()
        for key, count in found.items()
    ]
    return [*blocks, *(told or [Text(text=t("report.no_warnings"))])] if blocks or told else []


def certificate_lines(certificates: Mapping[str, Certificates], width: int = WIDTH) -> list[str]:
    """The same table for a terminal; many sides stand below each other."""
    table = _table(certificates)
    if table is None:
        return []
    headings, rows = list(table.headings), [[plain(cell) for cell in row] for row in table.rows]
    if len(headings) > MOST_COLUMNS:
        labels = headings[1:]
        rows = [[label, row[0], row[place + 1]] for place, label in enumerate(labels) for row in rows]
        headings = [t("report.side"), headings[0], t("benchmark.value")]
    return ["", *folded([table.caption], width), drawn_table(headings, rows, width)]


def _table(certificates: Mapping[str, Certificates]) -> Table | None:
    sides = {label: [one for one in found if one] for label, found in certificates.items()}
    if not any(sides.values()):
        return None
    rows = [
        [t(f"report.check_{name}"), *(say(found) if found else "–" for found in sides.values())]
        for name, say in CHECKS.items()
    ]
    return Table(caption=t("report.certificate_caption"), headings=[t("report.check"), *sides], rows=rows)


def _client(found: Certificates) -> str:
    limited = sum(bool(one.get("client_limited")) for one in found)
    lag_ms = 1e3 * max(one.get("lag_p99_s") or 0.0 for one in found)
    cpu = 100 * max(one.get("cpu_share") or 0.0 for one in found)
    key = "report.client_limited" if limited else "report.client_free"
    return t(key, count=limited, total=len(found), lag=words.brief(lag_ms), cpu=f"{cpu:.0f}")


def _steady(found: Certificates) -> str:
    told = [one.get("steady") for one in found]
    parts = [
        (t("report.steady_yes"), told.count(True)),
        (t("report.steady_no"), told.count(False)),
        (t("report.steady_unknown"), told.count(None)),
    ]
    return ", ".join(f"{text} {count}/{len(told)}" for text, count in parts if count)


def _drift(found: Certificates) -> str:
    changes = [one["drift"] for one in found if one.get("drift") is not None]
    if not changes:
        return t("report.steady_unknown")
    largest = max(changes, key=abs)
    return f"{100 * largest:+.0f} %" if largest else t("report.drift_none")


def _co_load(found: Certificates) -> str:
    shares = [one["co_load"]["share"] for one in found if one.get("co_load")]
    return t("report.co_load_most", percent=f"{100 * max(shares):.0f}") if shares else t("report.not_told")


def _requests(found: Certificates) -> str:
    good, bad = sum(one.get("n") or 0 for one in found), sum(one.get("errors") or 0 for one in found)
    return t("report.requests_counted", good=good, bad=bad)


def _noise(found: Certificates) -> str:
    floors = [one["noise_floor"] for one in found if one.get("noise_floor") is not None]
    return f"{100 * max(floors):.1f} %" if floors else t("report.noise_unknown")


def _mock(found: Certificates) -> str:
    errors = [one["client_error_ms"] for one in found if one.get("client_error_ms") is not None]
    return t("report.mock_error", error=words.brief(max(errors))) if errors else t("report.noise_unknown")


def _warm(found: Certificates) -> str:
    told = [one["warm"] for one in found if one.get("warm") is not None]
    parts = [(t("report.warm_yes"), told.count(True)), (t("report.warm_no"), told.count(False))]
    return ", ".join(f"{text} {count}/{len(told)}" for text, count in parts if count) or t("report.not_told")


CHECKS: Mapping[str, Callable[[Certificates], str]] = {
    "client": _client,
    "mock": _mock,
    "warm": _warm,
    "steady": _steady,
    "drift": _drift,
    "co_load": _co_load,
    "requests": _requests,
    "noise": _noise,
}
"""What is said of each side, in this order."""
