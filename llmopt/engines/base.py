"""What an engine is to us: a pure description of how to run it. Nothing here starts a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llmopt.records import (
    Endpoint,
    Hardware,
    InferenceParams,
    Installation,
    LaunchPlan,
    ModelInfo,
    Parameter,
    Settings,
    Strategy,
    Task,
)

__all__ = [
    "COMMON_REQUEST_SETTINGS",
    "SERVER_REQUEST_SETTINGS",
    "Engine",
    "Forgetful",
    "Forgetting",
    "InTurn",
    "Rehearsed",
    "RunFolder",
]

COMMON_REQUEST_SETTINGS = frozenset({"temperature", "top_p", "max_tokens", "seed", "prompt_form"})
"""What every OpenAI-compatible endpoint takes (``prompt_form`` is ours: it shapes the messages)."""
SERVER_REQUEST_SETTINGS = COMMON_REQUEST_SETTINGS | {
    "top_k",
    "min_p",
    "repetition_penalty",
    "thinking",
    "thinking_budget",
}
"""What the open-source servers take beyond it."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Where one launch keeps its files: ``folder`` (mode 0700) for log and key, and its endpoint."""

    folder: Path
    endpoint: Endpoint


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """What keeps a trial on a running engine from profiting from earlier ones; prompts and answers stay as they are."""

    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Path and body of what is posted, in order, before the trial."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Body fields of all of the trial's requests."""


@runtime_checkable
class Engine(Protocol):
    """A back end. Implementations are stateless; ``engines.launch`` starts what they plan.

    ``settings`` are always complete and explicit: engines change unset values silently, so we leave none unset. Their
    names are those of the active ``parameters``: one whose ``only_if`` does not hold is absent.
    """

    name: str
    transport: str
    """``socket`` where it can listen on a Unix socket, ``port`` on loopback, ``remote`` where it already runs."""
    metric_names: Mapping[str, str]
    """Our words (running, waiting, kv_usage, prompt_tokens, generation_tokens …) → its own metric names."""

    needs_weights: bool
    """Whether weights must be on this machine; not for a remote engine, nor for the scripted one."""
    default_sampling: InferenceParams
    """What the engine samples with where a request says nothing: the baseline's request settings, made explicit."""
    request_settings: frozenset[str]
    """The fields of InferenceParams it takes; any other must not be sent (some servers refuse the whole request)."""

    def installation(self) -> Installation:
        """Is it here, which version, by which command; cheap enough for ``status``."""
        ...

    def supports(self, model: ModelInfo) -> str | None:
        """None where it can run this model's format, else the message key of the reason."""
        ...

    def parameters(self, model: ModelInfo, hardware: Hardware, task: Task) -> tuple[Parameter, ...]:
        """The launch settings worth searching here, with only legal values; baseline and presets are among them."""
        ...

    def baseline(self, model: ModelInfo, hardware: Hardware, task: Task) -> Settings:
        """What the plain engine command resolves to, made explicit (trial 0)."""
        ...

    def preset(self, model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> Settings:
        """The hardware and strategy defaults of the specification, as a starting point."""
        ...

    def conflict(self, settings: Settings, model: ModelInfo, hardware: Hardware, task: Task) -> str | None:
        """None where the combination is legal, else the message key of the rule it breaks."""
        ...

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """How to start it: argv, environment, readiness; pure. Raises SettingsError for a missing or unknown name."""
        ...

    def request_extra(self, settings: Settings) -> Mapping[str, Any]:
        """Body fields every measured request carries so that no request profits from an earlier one's cache."""
        ...

    def remembers(self, settings: Settings) -> bool:
        """Whether a request may profit from an earlier one (prefix caching): then every pass starts a fresh engine.

        Unless it can be made to forget: see ``Forgetful``.
        """
        ...


@runtime_checkable
class Forgetful(Protocol):
    """An engine that remembers, but need not be restarted between two trials."""

    def forget(self, settings: Settings, turn: int) -> Forgetting | None:
        """What keeps pass number ``turn`` apart from all others; None where only a restart does."""
        ...


@runtime_checkable
class InTurn(Protocol):
    """An engine that does not say what it works at, but answers one request after another under some settings."""

    def in_turn(self, settings: Settings) -> bool:
        """Whether an answer shows that all earlier requests have ended."""
        ...


@runtime_checkable
class Rehearsed(Protocol):
    """An engine that plays a part: what a study asks it is told before, so that what a prompt gains can be seen."""

    def rehearse(self, answers: Path) -> Engine:
        """The same engine, knowing the questions and answers of a JSON-lines file."""
        ...
