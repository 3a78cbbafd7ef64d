"""The vocabulary: frozen values and enums that cross stages. Units stand in the names (``_s`` seconds, ``_bytes``).

Nothing here computes more than a derived name or key; nothing here imports another layer's work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from functools import cached_property
from typing import Any, Literal, TypeAlias

__all__ = [
    "ENGINE_GROUP",
    "EVALUATOR_GROUP",
    "AnswerStatus",
    "Configuration",
    "Cpu",
    "DataType",
    "Dataset",
    "Device",
    "DeviceType",
    "Endpoint",
    "Estimate",
    "Hardware",
    "HostMemory",
    "InferenceParams",
    "Installation",
    "Item",
    "LaunchPlan",
    "Load",
    "Measurement",
    "Message",
    "ModelInfo",
    "ModelType",
    "Outcome",
    "Parameter",
    "Request",
    "Sample",
    "Score",
    "SettingValue",
    "Settings",
    "Strategy",
    "Task",
    "Verdict",
    "VerdictKind",
    "digest",
]

ENGINE_GROUP = "llmopt.engines.v1"
EVALUATOR_GROUP = "llmopt.evaluators.v1"

SettingValue: TypeAlias = str | int | float | bool | None
Settings: TypeAlias = Mapping[str, SettingValue]
Message: TypeAlias = Mapping[str, str]
"""One chat turn: ``{"role": "user", "content": "…"}``."""


def digest(value: Any, *, size: int = 12) -> str:
    """A short hex name of any JSON-like value, the same in every process (keys sorted, BLAKE2b)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


# ── the words of a user's settings ─────────────────────────────────────────────────────────────────────────────────


class ModelType(str, Enum):
    """The engine a model prefers. An installed package may add one: ``ModelType("their_engine")`` then resolves."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    SGLANG = "sglang"
    OPENAI = "openai"
    FAKE = "fake"

    @classmethod
    def _missing_(cls, value: object) -> ModelType | None:
        from importlib.metadata import entry_points  # noqa: PLC0415 - only for names that are not ours

        if not isinstance(value, str) or not any(ep.name == value for ep in entry_points(group=ENGINE_GROUP)):
            return None
        member = str.__new__(cls, value)
        member._name_ = value.upper()
        member._value_ = value
        cls._value2member_map_[value] = member
        return member


class DataType(str, Enum):
    """Precision of weights and arithmetic."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT8 = "float8"
    INT8 = "int8"
    INT4 = "int4"


class DeviceType(str, Enum):
    """Where a model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    ROCM = "rocm"
    XPU = "xpu"
    MPS = "mps"


class Strategy(str, Enum):
    """What a user wants most; each has its presets, objective and floor."""

    ACCURACY = "accuracy"
    CREATIVITY = "creativity"
    SPEED = "speed"


@dataclass(frozen=True)
class InferenceParams:
    """Request settings: what may differ from one request to the next on a running engine.

    ``None`` leaves a value to the engine. ``prompt_form`` names a form of ``workload.prompts`` (zero_shot, examples,
    step_by_step). ``thinking`` switches a reasoning model's thinking, ``thinking_budget`` limits it in tokens.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    prompt_form: str | None = None
    thinking: bool | None = None
    thinking_budget: int | None = None

    def given(self) -> dict[str, SettingValue]:
        """Only the values that were set."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One way to run a model: launch settings need an engine restart, request settings do not."""

    engine: str
    launch: Settings
    request: InferenceParams

    @cached_property
    def launch_key(self) -> str:
        """The same for configurations that can share one running engine."""
        return digest([self.engine, dict(self.launch)])

    @cached_property
    def key(self) -> str:
        """The same for identical configurations."""
        return digest([self.engine, dict(self.launch), self.request.given()])

    def flat(self) -> dict[str, SettingValue]:
        """Launch and request settings in one mapping (their names never collide; the space checks it)."""
        return {**self.launch, **self.request.given()}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One dimension of a search space: either ``values`` (in order when ``ordinal``) or a range ``low..high``."""

    name: str
    level: Literal["launch", "request"]
    values: tuple[SettingValue, ...] = ()
    ordinal: bool = False
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    integer: bool = False
    changes_answers: bool = True
    only_if: Mapping[str, tuple[SettingValue, ...]] = field(default_factory=dict)
    """Active only where each named parameter has one of these values (conditional spaces)."""


# ── the machine ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """What this process may use, not what the host has."""

    model: str
    architecture: str
    physical_cores: int
    logical_cores: int
    usable_cores: float
    """Logical cores left by affinity and the cgroup quota; may be a fraction."""
    features: tuple[str, ...] = ()
    numa_nodes: int = 1


@dataclass(frozen=True, kw_only=True)
class HostMemory:
    """RAM as the process may use it; ``limit_bytes`` is the cgroup limit, if any."""

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None = None
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0

    @property
    def usable_bytes(self) -> int:
        """The smaller of RAM and limit."""
        return min(self.total_bytes, self.limit_bytes) if self.limit_bytes else self.total_bytes


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator, or one slice (MIG) of it."""

    index: int
    uuid: str
    vendor: Literal["nvidia", "amd", "intel", "apple", "fake"]
    kind: DeviceType
    name: str
    total_bytes: int
    free_bytes: int
    unified_memory: bool = False
    compute_capability: tuple[int, int] | None = None
    driver: str | None = None
    parent_uuid: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A machine as probed. ``sources`` says where each fact came from, ``unread`` why a fact is missing."""

    cpu: Cpu
    memory: HostMemory
    devices: tuple[Device, ...] = ()
    disk_free_bytes: int = 0
    system: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """The same for machines whose measurements may be compared."""
        devices = [(d.name, d.total_bytes) for d in self.devices]
        return digest([self.cpu.model, self.cpu.usable_cores, self.memory.usable_bytes >> 30, devices])


# ── models and engines ─────────────────────────────────────────────────────────────────────────────────────────────


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
    health_path: str = "/health"
    stdin: str | None = field(default=None, repr=False)
    """Text handed to the child's standard input (keys); never in argv or environment."""
    ready_cap_s: float = 600.0
    stall_s: float = 120.0
    stop_grace_s: float = 10.0
    port_from_log: str | None = None
    """A regular expression whose first group is the port, where the engine picks it (``port 0``)."""


# ── the task ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Load:
    """How requests arrive: ``streams`` in a closed loop, or ``rate`` per second in an open one."""

    streams: int | None = 4
    rate: float | None = None
    arrival: Literal["closed", "constant", "poisson", "gamma"] = "closed"
    burstiness: float = 1.0
    seed: int = 0


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


# ── what was measured ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One answered (or failed) request; all times are seconds on the client's monotonic clock."""

    item_id: str
    planned_s: float
    sent_s: float
    ended_s: float
    token_s: tuple[float, ...] = ()
    """Arrival of each content-bearing event."""
    token_counts: tuple[int, ...] = ()
    """Tokens in each of those events; empty means one each (or not known)."""
    first_answer_s: float | None = None
    """Arrival of the first event that is not reasoning."""
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    tokens_counted_by: Literal["usage", "tokenizer", "chunks"] = "usage"
    error: str | None = None
    """A short class and message where the request failed; never the key."""

    @property
    def ok(self) -> bool:
        """Whether an answer came."""
        return self.error is None


class AnswerStatus(str, Enum):
    """How an answer ended, besides its score."""

    OK = "ok"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    NO_ANSWER = "no_answer_found"
    WRONG_LANGUAGE = "wrong_language"
    REFUSED = "refused"
    REQUEST_ERROR = "request_error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One scored answer; ``value`` is 0..1, ``rule`` names the extraction rule that fired."""

    item_id: str
    value: float
    status: AnswerStatus
    extracted: str | None = None
    rule: str = ""

    @property
    def counted(self) -> bool:
        """Whether it says anything about quality: a failed request does not, and is never averaged in as zero."""
        return self.status is not AnswerStatus.REQUEST_ERROR


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its unit, sample count and 95 % interval; ``low``/``high`` are None where n supports none."""

    value: float
    unit: str
    n: int
    low: float | None = None
    high: float | None = None
    method: str = ""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one trial found: named estimates, and whether they may be believed.

    Names in use: ``accuracy`` (0..1), ``answers_per_minute``, ``output_tokens_per_s``, ``ttft_p50_ms``,
    ``ttft_p95_ms``, ``itl_p50_ms``, ``tpot_p50_ms``, ``e2e_p50_ms``, ``memory_bytes``, ``error_rate``, ``diversity``.
    """

    estimates: Mapping[str, Estimate]
    valid: bool = True
    warnings: tuple[str, ...] = ()
    """Message keys of the certificate: client-limited, not steady, co-load, too few samples."""
    certificate: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """The figure of one estimate, or None where it was not measured."""
        estimate = self.estimates.get(name)
        return None if estimate is None else estimate.value

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the database and ``result.json``."""
        return asdict(self)


class Outcome(str, Enum):
    """How a trial ended."""

    RUNNING = "running"
    DONE = "done"
    INFEASIBLE = "infeasible"
    """Refused before launch, or ended by memory or an unsupported combination."""
    FAILED = "failed"
    RACED_OUT = "raced_out"
    ABANDONED = "abandoned"


class VerdictKind(str, Enum):
    """What a comparison may claim."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    TIE = "tie"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One configuration against another on one objective: ``effect`` is the ratio or difference, with its interval."""

    kind: VerdictKind
    objective: str
    effect: Estimate
    relative: bool
    """True where the effect is a ratio (speed), False where it is a difference (quality)."""
    method: str = ""
    more_samples: int | None = None
    """How many further samples would probably decide, where undecided."""
