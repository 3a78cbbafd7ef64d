"""What a study says while it runs: one event type, written to the terminal, to JSON lines, or to nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from llmopt.records import Dataset

__all__ = ["Event", "EventKind", "Listener", "silent", "tell_data"]

EventKind = Literal[
    "note",  # a sentence: message key and values
    "weights",  # bytes fetched of a total
    "plan",  # what will be done and how long it should take
    "phase",  # baseline, search, confirm, report
    "trial_started",
    "engine",  # a phase of the running trial's engine: starting, loading, ready, stopping
    "sample",  # one answer came: done of total
    "trial_ended",
    "confirm_pass",
    "memory",  # level and bytes
    "serving",  # an engine answers: address, key file, request settings, command, log
    "ended",  # the result
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened; ``data`` is plain and JSON-able."""

    kind: EventKind
    data: Mapping[str, Any] = field(default_factory=dict)


class Listener(Protocol):
    """Whoever follows a study; called on the study's thread, must return quickly and never raise."""

    def __call__(self, event: Event, /) -> None:
        """Take one event."""
        ...


def silent(event: Event, /) -> None:
    """The listener of those who only want the result."""
    del event


def tell_data(listener: Listener, dataset: Dataset) -> None:
    """Say what became of the data when it was read: rows drawn, rows left out, what it cannot tell."""
    for key, values in dataset.notes:
        listener(Event(kind="note", data={"key": key, "values": dict(values)}))
