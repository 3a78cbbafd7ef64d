"""How a model file's header can be wrong: one error, its reasons in the message catalogue."""

from __future__ import annotations

from pathlib import Path

from llmopt.errors import WeightsError
from llmopt.messages import t

__all__ = ["bad_header"]


def bad_header(path: Path, code: str, **values: str | float) -> WeightsError:
    """The error for ``path`` with the reason ``weights.header.CODE``."""
    return WeightsError("weights.bad_header", path=path, reason=t(f"weights.header.{code}", lang=None, **values))
