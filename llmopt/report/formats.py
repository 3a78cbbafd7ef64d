"""The formats a result can be had in, and which of them a name asks for."""

from __future__ import annotations

from pathlib import Path

from llmopt.errors import UsageError

__all__ = ["FORMATS", "export_target"]

FORMATS = ("html", "md", "csv", "json")


def export_target(text: str, name: str) -> tuple[Path, str]:
    """The file and format that ``--export`` names: a file by its ending, or a format alone (``NAME.FORMAT`` here).

    Raises UsageError for any other.
    """
    if text in FORMATS:
        return Path(f"{name}.{text}"), text
    path = Path(text)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise UsageError("report.format", value=text, known=", ".join(FORMATS))
    return path, kind
