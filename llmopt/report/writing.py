"""The files of a finished study, each whole or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmopt.messages import LANGUAGES
from llmopt.paths import ensure
from llmopt.report.html import html
from llmopt.report.markdown import markdown
from llmopt.store.connection import readable_errors

__all__ = ["write_json", "write_report", "write_whole"]


def write_report(folder: Path, result: Mapping[str, Any]) -> None:
    """``result.json`` first (it is the result), then the reports made from it; raises StorageError."""
    write_json(folder, result)
    for language in LANGUAGES:
        write_whole(folder / f"report.{language}.md", markdown(result, language=language))
    write_whole(folder / "report.html", html(result))


def write_json(folder: Path, result: Mapping[str, Any]) -> None:
    """``result.json`` alone; raises StorageError."""
    ensure(folder)
    write_whole(folder / "result.json", json.dumps(result, ensure_ascii=False, indent=2, default=str) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` so that ``path`` is the old file or the new one at any moment."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with readable_errors(path):
        try:
            with part.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
