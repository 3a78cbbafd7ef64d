"""For each known model: the highest precision in which it fits this machine, or why none does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from llmopt.models.entry import ModelEntry
from llmopt.models.fit_torch import weight_bytes
from llmopt.models.memory_fit import MARGIN, MemoryFit, memory_fit
from llmopt.records import Hardware, Load, ModelInfo, SettingValue, Task

__all__ = ["FitRow", "fit_row", "fit_table"]

_MIB = 1 << 20
_TASK = Task(load=Load(streams=1), max_tokens=1024, prompt_tokens=3072)
"""What a model must be able to do to count as fitting: one conversation of 4,096 tokens."""
_ON_GPU = ("float16", "int8", "int4")
_ON_CPU = {"q8_0": 8.5, "q4_k_m": 4.85}
"""GGUF precisions and their bits for each weight (mixed files are above their name's)."""


@dataclass(frozen=True, kw_only=True)
class FitRow:
    """One model's answer. ``fits`` is None where its shape is not confirmed and its weights alone would fit.

    ``precision`` is the best that fits, else the smallest tried; ``verdict`` is a message key for ``values``.
    """

    name: str
    precision: str | None
    fits: bool | None
    needed_bytes: int | None
    available_bytes: int
    verdict: str
    values: dict[str, object]


def fit_table(entries: Iterable[ModelEntry], hardware: Hardware) -> tuple[FitRow, ...]:
    """A row for each of ``entries``, in their order."""
    return tuple(fit_row(entry.facts, hardware) for entry in entries)


def fit_row(model: ModelInfo, hardware: Hardware) -> FitRow:
    """The highest precision in which ``model`` fits: on the GPUs where there are any, else in RAM as GGUF."""
    answers = list(_candidates(model, hardware))
    for precision, fit in answers:
        if fit.fits:
            return _row(model, precision, fit)
    precision, fit = answers[-1]
    return _by_weights(model, precision, fit) if fit.fits is None else _row(model, precision, fit)


def _candidates(model: ModelInfo, hardware: Hardware) -> Iterable[tuple[str, MemoryFit]]:
    if model.format == "gguf":
        context = min(_TASK.context_tokens, model.context_length or _TASK.context_tokens)
        yield model.quantization or "gguf", _llamacpp(model, hardware, context)
    elif hardware.devices:
        for precision in _ON_GPU:
            yield precision, memory_fit("transformers", model, {"dtype": precision}, hardware, _TASK)
    else:
        for precision, bits in _ON_CPU.items():
            size = None if model.parameters is None else round(model.parameters * bits / 8)
            as_gguf = replace(model, weight_bytes=size, format="gguf")
            yield precision, _llamacpp(as_gguf, hardware, _TASK.context_tokens)


def _llamacpp(model: ModelInfo, hardware: Hardware, context: int) -> MemoryFit:
    settings: dict[str, SettingValue] = {
        "slots": 1,
        "context": context,
        "ubatch": 512,
        "cache_type_k": "f16",
        "cache_type_v": "f16",
    }
    if hardware.devices:
        settings["gpu_layers"] = (model.layers or 998) + 1
    return memory_fit("llamacpp", model, settings, hardware, _TASK)


def _row(model: ModelInfo, precision: str, fit: MemoryFit) -> FitRow:
    return FitRow(
        name=model.name,
        precision=precision,
        fits=fit.fits,
        needed_bytes=fit.needed_bytes,
        available_bytes=fit.available_bytes,
        verdict=fit.verdict,
        values=dict(fit.values),
    )


def _by_weights(model: ModelInfo, precision: str, fit: MemoryFit) -> FitRow:
    """Where the shape is not confirmed, the weights alone may settle it, or at least say how much they need."""
    weights = weight_bytes(model, "int4")
    if weights is None:
        return replace(_row(model, precision, fit), precision=None, needed_bytes=None)
    too_large = weights > fit.available_bytes * (1 - MARGIN)
    return FitRow(
        name=model.name,
        precision=precision if too_large else None,
        fits=False if too_large else None,
        needed_bytes=weights,
        available_bytes=fit.available_bytes,
        verdict="fit.weights_too_large" if too_large else "fit.weights_only",
        values={"model": model.name, "needed_mb": weights // _MIB, "available_mb": fit.available_bytes // _MIB},
    )
