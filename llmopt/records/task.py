"""The task: load, items and requests, the same for every trial of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llmopt.records.settings import InferenceParams
from llmopt.records.values import Message

__all__ = [
    "Dataset",
    "Item",
    "Load",
    "Request",
    "Task",
]


@dataclass(frozen=True, kw_only=True)
class Load:
    """How requests arrive: ``streams`` in a closed loop, or ``rate`` per second in an open one.

    An open rate may move there from ``ramp_from`` within ``ramp_s`` seconds.
    """

    streams: int | None = 4
    rate: float | None = None
    arrival: Literal["closed", "constant", "poisson", "gamma"] = "closed"
    burstiness: float = 1.0
    """Shape of gamma gaps: 1 is Poisson, less is burstier."""
    seed: int = 0
    ramp_from: float | None = None
    ramp_s: float = 0.0
    ramp_shape: Literal["linear", "exponential"] = "linear"

    @property
    def is_open(self) -> bool:
        """Whether requests start by a schedule, not when a stream is free."""
        return self.arrival != "closed" and self.rate is not None

    @property
    def flags(self) -> str:
        """The load as one writes it on the command line."""
        if not self.is_open:
            return f"--streams {self.streams}"
        shown = f"--rate {self.rate:g} --arrival {self.arrival}"
        if self.arrival == "gamma":
            shown += f" --burstiness {self.burstiness:g}"
        if self.ramp_from is not None:
            shape = "" if self.ramp_shape == "linear" else f":{self.ramp_shape}"
            shown += f" --ramp {self.ramp_from:g}:{self.ramp_s:g}{shape}"
        return shown


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the user needs, the same for every trial of a study; engines size their spaces from it."""

    load: Load
    max_tokens: int
    prompt_tokens: int
    """The longest prompt expected, in tokens (an upper estimate)."""
    prefix_cache: bool = False
    """Whether prefix caching is what is being tested; otherwise no measured request may profit from an earlier one."""

    @property
    def context_tokens(self) -> int:
        """Tokens one request may occupy."""
        return self.prompt_tokens + self.max_tokens


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question of a dataset. ``answers`` are all accepted answers, empty where there is no gold."""

    id: str
    question: str
    answers: tuple[str, ...] = ()
    kind: str = "numeric"
    """Which scorer reads the answer: numeric, qa, choice, exact, json, open …"""
    cluster: str = ""
    """Template or passage: items of one cluster are not independent."""
    level: int = 0
    split: Literal["search", "confirm", "examples"] = "search"
    unit: str = ""
    options: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Items under a name; ``fingerprint`` changes whenever any item does."""

    name: str
    items: tuple[Item, ...]
    fingerprint: str
    language: str = "ko"
    source: str = ""
    notes: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """What loading wants the user to know: message keys of area ``data`` with their values."""

    def split(self, name: str) -> tuple[Item, ...]:
        """The items of one split, in their fixed order."""
        return tuple(item for item in self.items if item.split == name)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request to send: messages and sampling, already rendered."""

    item_id: str
    messages: Sequence[Message]
    params: InferenceParams
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Engine-specific body fields (``cache_prompt``, ``ignore_eos`` …)."""
