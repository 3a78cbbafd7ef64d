"""Models and engines: what was read without loading, what would be started, where it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmopt.records.values import Settings

__all__ = [
    "Endpoint",
    "Installation",
    "LaunchPlan",
    "ModelInfo",
]


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model as read from its headers, without loading it. ``None`` is *not known*, never a guess."""

    name: str
    path: str
    """A GGUF file, a folder with config.json and safetensors, or a hub id that is not here yet."""
    format: Literal["gguf", "safetensors", "hub"]
    architecture: str | None = None
    parameters: int | None = None
    weight_bytes: int | None = None
    quantization: str | None = None
    layers: int | None = None
    hidden_size: int | None = None
    heads: int | None = None
    kv_heads: int | tuple[int, ...] | None = None
    """One number, or one for each layer."""
    head_dim: int | None = None
    value_head_dim: int | None = None
    feed_forward: int | None = None
    vocabulary: int | None = None
    context_length: int | None = None
    experts: int | None = None
    active_experts: int | None = None
    sliding_window: int | None = None
    sliding_layers: int | None = None
    """How many of the layers use the sliding window."""
    recurrent_layers: int | None = None
    """How many layers keep a constant state in place of a KV cache."""
    mla_rank: int | None = None
    """Latent width (kv_lora_rank) of multi-head latent attention."""
    mla_rope_dim: int | None = None
    thinking: bool | None = None
    chat_template: bool | None = None
    sha256: str | None = None
    trust_remote_code: bool = False
    license: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Whether an engine can be used here; where it cannot, ``why_not`` is a message key."""

    engine: str
    available: bool
    version: str | None = None
    command: tuple[str, ...] = ()
    build: str = ""
    why_not: str | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where an engine answers: a Unix socket, or a host and port. The key never shows in a repr or a log."""

    model: str
    """The name to send as ``model``."""
    socket_path: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    tls: bool = False
    base_path: str = "/v1"
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class ContainerRun:
    """The container in which an engine's processes lie: its tool's daemon has them, not the command that is started."""

    id_file: str
    """Where the tool writes the container's id; the processes are known by it."""
    remove: tuple[str, ...]
    """The command that takes the container away, whatever state it is in."""


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """Everything needed to start one engine; pure data, so that the plan that won is the plan that is printed."""

    engine: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    """Additions to the allow-listed environment; secrets are not among them."""
    endpoint: Endpoint
    command: tuple[str, ...]
    """What a user would type to get the same engine (without our socket, key and worker)."""
    settings: Settings
    command_here: tuple[str, ...] = ()
    """``command`` with the very program that this machine has, where its name alone would not find it."""
    health_path: str = "/health"
    stdin: str | None = field(default=None, repr=False)
    """Text handed to the child's standard input (keys); never in argv or environment."""
    ready_cap_s: float = 600.0
    stall_s: float = 120.0
    stop_grace_s: float = 10.0
    port_from_log: str | None = None
    """A regular expression whose first group is the port, where the engine picks it (``port 0``)."""
    lists_model: bool = True
    """Whether its list of models names what it serves; where not, the first completion alone proves it."""
    container: ContainerRun | None = None
    """Where its processes are not below the command."""
