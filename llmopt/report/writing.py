"""The files of a result, each whole or absent, and the same again in the format somebody asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmopt.messages import LANGUAGES, current_language, set_language, t
from llmopt.paths import ensure, write_whole
from llmopt.report.detail import read_detail
from llmopt.report.document import Document
from llmopt.report.formats import export_target
from llmopt.report.html import html
from llmopt.report.markdown import markdown
from llmopt.report.measured_document import measured_document
from llmopt.report.study_document import study_document
from llmopt.report.tabular import figures_csv
from llmopt.store.connection import readable_errors

__all__ = ["rendered", "write_export", "write_report", "written"]


def write_report(folder: Path, result: Mapping[str, Any]) -> None:
    """``result.json`` first (it is the result), then the reports made from it; raises StorageError."""
    ensure(folder)
    written(folder / "result.json", rendered(result, "json", folder=folder))
    for language in LANGUAGES:
        with _speaking(language):
            written(folder / f"report.{language}.md", rendered(result, "md", folder=folder))
    written(folder / "report.html", rendered(result, "html", folder=folder))
    written(folder / "figures.csv", rendered(result, "csv", folder=folder))


def rendered(result: Mapping[str, Any], kind: str, *, folder: Path | None) -> str:
    """A result in one of ``FORMATS``, in the current language (a page has both); raw answers come from ``folder``."""
    if kind == "json":
        return json.dumps(result, ensure_ascii=False, indent=2, default=str) + "\n"
    if kind == "csv":
        return figures_csv(result)
    if kind == "md":
        return markdown(_document(result, folder))
    documents = {}
    for language in LANGUAGES:
        with _speaking(language):
            documents[language] = _document(result, folder)
    return html(documents, language=current_language())


def write_export(result: Mapping[str, Any], text: str, *, folder: Path | None) -> Path:
    """Write what ``--export`` asked for; the file. Raises UsageError or StorageError."""
    path, kind = export_target(text, result["study"])
    written(path, rendered(result, kind, folder=folder))
    return path


def written(path: Path, text: str) -> None:
    """Write ``text`` whole or not at all; raises StorageError."""
    with readable_errors(path):
        write_whole(path, text)


def _document(result: Mapping[str, Any], folder: Path | None) -> Document:
    if "sides" in result:
        labels = [one["label"] for one in result["sides"]]
        return measured_document(result, read_detail(folder, result, labels))
    return study_document(result, read_detail(folder, result, [t("report.baseline"), t("report.best")]))


@contextmanager
def _speaking(language: str) -> Iterator[None]:
    before = current_language()
    set_language(language)
    try:
        yield
    finally:
        set_language(before)
