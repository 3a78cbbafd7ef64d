"""Console and JSON-lines logs whose sinks mask secrets. Nothing is configured or opened at import."""

from __future__ import annotations

import logging

__all__ = ["get_logger"]


def get_logger(name: str) -> logging.Logger:
    """The logger of a module; its text is for developers, the user's text comes from the catalogue."""
    return logging.getLogger(name)
