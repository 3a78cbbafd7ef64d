"""A user's models: what each entry of config/models.json may say, checked; and the file itself, read and written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from llmopt.config.model_file import Problem, atomic_json, read_model_file, unknown_key
from llmopt.errors import SettingsError
from llmopt.messages import t
from llmopt.paths import Workspace
from llmopt.records import DataType, DeviceType, InferenceParams, ModelType

__all__ = [
    "DataType",
    "DeviceType",
    "InferenceParams",
    "ModelConfig",
    "ModelConfigManager",
    "ModelType",
    "QuantizationConfig",
]

SCHEMA_VERSION = 1
_NAME = re.compile(r"[\w][\w.:@+-]{0,127}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_RANGES: Mapping[str, tuple[float, float]] = {
    "temperature": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "top_k": (-1, 1_000_000),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "max_tokens": (1, 10_000_000),
    "thinking_budget": (0, 10_000_000),
}


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """How weights are made smaller: at load time (``load_in_…``, bitsandbytes), or as the files are (``method``).

    ``compute_dtype``, ``quant_type`` and ``double_quant`` concern bitsandbytes' 4-bit form only.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": False}

    load_in_4bit: bool = False
    load_in_8bit: bool = False
    method: str | None = None
    """awq, gptq, fp8, compressed-tensors, or the name of a GGUF quantisation such as Q4_K_M."""
    compute_dtype: DataType = DataType.AUTO
    quant_type: str = "nf4"
    double_quant: bool = True

    @property
    def bits(self) -> int | None:
        """4 or 8 where chosen at load time, else None."""
        return 4 if self.load_in_4bit else 8 if self.load_in_8bit else None


@dataclass(frozen=True)
class ModelConfig:
    """One model as its user wants it run. ``model_path`` is a file, folder or hub id; ``None`` leaves a choice open.

    ``trust_remote_code`` is consent to run Python code that comes with exactly this ``model_path`` at this
    ``revision``; without one, at the commit it has when it first runs (code that changed later is refused).
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "protected_namespaces": ()}

    name: str
    model_path: str
    model_type: ModelType | None = None
    device: DeviceType = DeviceType.AUTO
    dtype: DataType = DataType.AUTO
    quantization: QuantizationConfig | None = None
    description: str = ""
    revision: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    gguf_repo: str | None = None
    gguf_file: str | None = None
    sha256: str | None = None
    """Of ``gguf_file``; checked once after it was fetched."""
    draft_model: str | None = None
    """A small model of the same tokenizer (a name, path or hub id) that engines may let guess ahead."""
    inference: InferenceParams = field(default_factory=InferenceParams)
    """Request settings to start from."""

    def validate(self) -> bool:
        """True, or SettingsError naming the field, its value and what it takes."""
        self.checked()
        return True

    def checked(self) -> ModelConfig:
        """This configuration with plain strings turned into their enums; raises SettingsError like ``validate``."""
        typed = _typed(self.to_json(full=True), str(self.name))
        problem = next(typed.problems(), None)
        if problem is not None:
            raise problem.error(typed.name)
        return typed

    def problems(self) -> Iterator[Problem]:
        """Each rule this (well-typed) configuration breaks."""
        if not _NAME.fullmatch(self.name):
            yield Problem(field="name", value=self.name, expected="name")
        for name, path in (("model_path", self.model_path), ("draft_model", self.draft_model)):
            if path is not None and (not path.strip() or _CONTROL.search(path)):
                yield Problem(field=name, value=path, expected="path")
        if self.revision is not None and (not _REVISION.fullmatch(self.revision) or ".." in self.revision):
            yield Problem(field="revision", value=self.revision, expected="revision")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            yield Problem(field="sha256", value=self.sha256, expected="sha256")
        if self.gguf_file is not None and (
            not self.gguf_file.endswith(".gguf") or ".." in Path(self.gguf_file).parts or self.gguf_file[0] in "/\\"
        ):
            yield Problem(field="gguf_file", value=self.gguf_file, expected="gguf_file")
        if (self.gguf_file is None) != (self.gguf_repo is None):
            yield Problem(field="gguf_file", value=self.gguf_file, expected="gguf_pair")
        if self.quantization is not None:
            yield from _quantization_problems(self.quantization)
        yield from _range_problems(self.inference)

    def to_json(self, *, full: bool = False) -> dict[str, Any]:
        """Plain data; only what differs from the defaults unless ``full``."""
        data: dict[str, Any] = asdict(self)
        inference: Any = self.inference  # may be anything until it was checked
        data["inference"] = inference.given() if isinstance(inference, InferenceParams) else inference
        if full:
            return data
        if isinstance(data["quantization"], dict):
            data["quantization"] = _without_defaults(data["quantization"], QuantizationConfig())
        kept = _without_defaults(data, ModelConfig(name="", model_path=""))
        return {key: value for key, value in kept.items() if value is not None and (key, value) != ("inference", {})}


def _without_defaults(data: Mapping[str, Any], default: Any) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value != getattr(default, key)}


def _range_problems(given: InferenceParams) -> Iterator[Problem]:
    for name, (low, high) in _RANGES.items():
        value = getattr(given, name)
        if value is not None and not low <= value <= high:
            yield Problem(field=f"inference.{name}", value=value, expected=f"{low:g}–{high:g}")


def _quantization_problems(given: QuantizationConfig) -> Iterator[Problem]:
    if given.load_in_4bit and given.load_in_8bit:
        yield Problem(field="quantization", value="load_in_4bit + load_in_8bit", expected="one_width")
    if given.quant_type not in {"nf4", "fp4"}:
        yield Problem(field="quantization.quant_type", value=given.quant_type, expected="nf4 | fp4")
    if given.bits and given.method is not None and given.method != "bitsandbytes":
        yield Problem(field="quantization.method", value=given.method, expected="bitsandbytes")


class ModelConfigManager:
    """The entries of one models.json: the workspace's own unless ``path`` names another; absent means empty."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Workspace.here().models_file if path is None else Path(path)
        self._configs: dict[str, ModelConfig] = {}
        if self.path.is_file():
            self.load_from_file(self.path)

    def add_config(self, name: str, config: ModelConfig) -> None:
        """Add or replace the entry ``name``; raises SettingsError where ``config`` is not valid."""
        config = config if config.name == name else replace(config, name=name)
        self._configs[name] = config.checked()

    def get_config(self, name: str) -> ModelConfig:
        """The entry ``name``; raises SettingsError naming those there are."""
        if name not in self._configs:
            known = ", ".join(self._configs) or t("data.none")
            raise SettingsError("models.no_entry", name=name, path=self.path, known=known)
        return self._configs[name]

    def remove_config(self, name: str) -> ModelConfig:
        """Take the entry ``name`` out and return it; raises SettingsError where there is none."""
        config = self.get_config(name)
        del self._configs[name]
        return config

    def list_configs(self) -> list[str]:
        """The names of all entries, in the file's order."""
        return list(self._configs)

    def load_from_file(self, path: str | Path) -> None:
        """Replace all entries by those of ``path``; raises SettingsError with line and column for a broken file."""
        path = Path(path)
        entries, text = read_model_file(path, SCHEMA_VERSION)
        loaded = {}
        for name, entry in entries.items():
            for key, nested, allowed in _nested_keys(entry):
                if key not in allowed:
                    raise unknown_key(path, text, nested, key, allowed)
            loaded[name] = _typed({**entry, "name": name}, name).checked()
        self._configs = loaded

    def save_to_file(self, path: str | Path | None = None) -> Path:
        """Write all entries to ``path`` (default: where they came from), atomically; returns the path.

        Raises StorageError where it cannot be written; the former file is then untouched.
        """
        target = self.path if path is None else Path(path)
        models = {}
        for name, config in self._configs.items():
            data = config.to_json()
            del data["name"]
            models[name] = data
        atomic_json(target, {"schema_version": SCHEMA_VERSION, "models": models})
        return target


def _nested_keys(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each key of an entry with the part it stands in and the keys allowed there."""
    parts = (("", entry, ModelConfig), ("quantization", entry.get("quantization"), QuantizationConfig))
    for part, values, kind in (*parts, ("inference", entry.get("inference"), InferenceParams)):
        if isinstance(values, Mapping):
            allowed = tuple(f.name for f in fields(kind))
            for key in values:
                yield key, part, allowed


def _typed(data: Mapping[str, Any], name: str) -> ModelConfig:
    """``data`` with every value of its declared type; raises SettingsError for the first that is not."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - takes longer to import than `list` to run

    given = {key: value for key, value in data.items() if not (key == "inference" and value is None)}
    try:
        return TypeAdapter(ModelConfig).validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        expected = str(first.get("ctx", {}).get("expected", "")) or first["type"].removesuffix("_type")
        value = None if first["type"] == "missing" else first.get("input")
        problem = Problem(field=where, value=value, expected=expected)
        raise problem.error(name) from None
