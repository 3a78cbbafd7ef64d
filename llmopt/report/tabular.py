"""A result as CSV: one row a figure, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["figures_csv"]

COLUMNS = ("side", "figure", "value", "low", "high", "n", "unit", "method")
MARK = "\ufeff"
"""Spreadsheets take a file without it for the system's old encoding and show broken Korean."""


def figures_csv(result: Mapping[str, Any]) -> str:
    """Every figure of every side, load of a sweep or trial of an optimisation, under its name in ``result.json``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for side, figures in _sides(result):
        for name, estimate in figures.items():
            writer.writerow([_safe(side), name, *(estimate.get(column) for column in COLUMNS[2:])])
    return MARK + text.getvalue()


def _sides(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "sides" in result:
        for one in (*result["sides"], *(result.get("imported") or ())):
            yield one["label"], one["figures"]
        for point in (result.get("sweep") or {}).get("points") or ():
            yield f"sweep {point['flags']}", point["estimates"]
        return
    for name in ("baseline", "best"):
        for stage in ("search", "confirmed", "cost"):
            found = result[name].get(stage)
            if found:
                yield f"{name} ({stage})", found.get("estimates", found)
    for trial in result["trials"]:
        if trial["measurement"]:
            yield f"trial {trial['number']}", trial["measurement"]["estimates"]


def _safe(text: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text
