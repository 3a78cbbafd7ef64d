"""The words of a user's settings: what a model runs with, and what a search may vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from functools import cached_property
from typing import Literal

from llmopt.records.values import Settings, SettingValue, digest

__all__ = [
    "ENGINE_GROUP",
    "EVALUATOR_GROUP",
    "Configuration",
    "DataType",
    "DeviceType",
    "InferenceParams",
    "ModelType",
    "Parameter",
    "Strategy",
]

ENGINE_GROUP = "llmopt.engines.v1"
EVALUATOR_GROUP = "llmopt.evaluators.v1"


class ModelType(str, Enum):
    """The engine a model prefers. An installed package may add one: ``ModelType("their_engine")`` then resolves."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    LLAMA_SERVER = "llama-server"
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
