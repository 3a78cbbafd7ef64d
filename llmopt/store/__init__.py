"""What happened, on disk before it is believed."""

from __future__ import annotations

from llmopt.store.database import Store
from llmopt.store.rows import ErrorRow, EventRow, StudyRow, TrialPoint, TrialRow
from llmopt.store.samples import read_samples, write_samples

__all__ = ["ErrorRow", "EventRow", "Store", "StudyRow", "TrialPoint", "TrialRow", "read_samples", "write_samples"]
