"""Will it fit, and why: what a launch needs, part by part, against what this machine has.

Weights come exactly from the headers, caches from the model's layers, buffers from each engine's own rules (see
``fit_llamacpp`` and ``fit_torch``). A learned correction only ever raises an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llmopt.errors import DoesNotFit
from llmopt.messages import t
from llmopt.models.draft import draft_of
from llmopt.records import Device, Hardware, ModelInfo, Settings, Task

__all__ = [
    "NO_CORRECTION",
    "Correction",
    "MemoryFit",
    "Part",
    "learn_correction",
    "memory_fit",
    "names_one_device",
    "planned_device_bytes",
]

MARGIN = 0.08
"""Share of the available memory never planned for: the error of the estimates on real launches stays below it."""
_MIB = 1 << 20
_ONE_SIDED_95 = 1.645


@dataclass(frozen=True, kw_only=True)
class Part:
    """One reason memory is needed. ``mapped`` pages are a file's: the system may drop and re-read them."""

    name: Literal["weights", "repacked", "kv", "state", "compute", "output", "graphs", "communication", "runtime"]
    size_bytes: int
    place: Literal["host", "device"] = "host"
    mapped: bool = False
    least_bytes: int | None = None
    """What it can do with, where an engine takes as much as it is allowed (a paged KV cache)."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What past launches of an engine on this machine taught: measured over estimated, never below 1."""

    factor: float = 1.0


NO_CORRECTION = Correction()


@dataclass(frozen=True, kw_only=True)
class MemoryFit:
    """The answer. ``fits`` is None where the model is not known well enough to say (never a guess).

    ``total_bytes`` is what host and devices together hold at the peak; ``available_bytes`` belongs to the place that is
    tightest, where ``needed_bytes`` are needed. ``verdict`` is a message key, rendered with ``values``.
    """

    parts: tuple[Part, ...]
    total_bytes: int
    needed_bytes: int
    available_bytes: int
    fits: bool | None
    verdict: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def error(self) -> DoesNotFit:
        """The refusal, with the numbers; only where ``fits`` is False."""
        return DoesNotFit(self.verdict, **self.values)

    def bytes_of(self, *names: str, place: str | None = None) -> int:
        """Bytes of the named parts (all parts where none is named), in one place or both."""
        return sum(
            part.size_bytes
            for part in self.parts
            if (not names or part.name in names) and (place is None or part.place == place)
        )


Estimator = Callable[[ModelInfo, Settings, Hardware, Task], "tuple[Part, ...] | None"]


def memory_fit(
    engine_name: str,
    model: ModelInfo,
    settings: Settings,
    hardware: Hardware,
    task: Task,
    *,
    correction: Correction = NO_CORRECTION,
) -> MemoryFit:
    """What ``engine_name`` needs to run ``model`` with ``settings`` under ``task``, and whether this machine has it."""
    estimate = _estimator(engine_name)
    parts = None if estimate is None else estimate(model, settings, hardware, task)
    draft = draft_of(model)
    if estimate is not None and parts is not None and draft is not None and _guesses(settings):
        ahead = estimate(draft.model, settings, hardware, task)
        parts = None if ahead is None else (*parts, *_beside(ahead))
    if parts is None:
        values = {"model": model.name, "engine": engine_name}
        verdict = "fit.remote" if engine_name in _NOTHING_HERE else "fit.unknown"
        fits = True if engine_name in _NOTHING_HERE else None
        available = _device_available(hardware, settings) if hardware.devices else _host_available(hardware)
        return MemoryFit(
            parts=(),
            total_bytes=0,
            needed_bytes=0,
            available_bytes=available,
            fits=fits,
            verdict=verdict,
            values=values,
        )
    if correction.factor > 1:
        parts = tuple(_corrected(part, correction.factor) for part in parts)
    return _judge(model, parts, hardware, settings)


_NOTHING_HERE = {"openai", "fake"}
"""Engines whose memory is not this machine's, or next to nothing."""


def _estimator(engine_name: str) -> Estimator | None:
    # imported late: each engine's file needs the types above
    from llmopt.models import fit_llamacpp, fit_torch  # noqa: PLC0415

    table: dict[str, Estimator] = {
        "llamacpp": fit_llamacpp.parts,
        "llama-server": fit_llamacpp.parts,
        "vllm": fit_torch.paged_parts,
        "sglang": fit_torch.paged_parts,
        "transformers": fit_torch.transformers_parts,
    }
    return table.get(engine_name)


def _guesses(settings: Settings) -> bool:
    """Whether a draft model is loaded: every other way to speculate needs none."""
    return str(settings.get("speculation", "off")).startswith(("draft", "eagle"))


def _beside(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """What a second model in the same process adds: not the process itself, and of a paged cache only the least."""
    added = [part for part in parts if part.name not in ("runtime", "graphs", "communication")]
    return tuple(replace(part, size_bytes=part.least_bytes or part.size_bytes) for part in added)


def _corrected(part: Part, factor: float) -> Part:
    """Weights and caches are known exactly; what was learned concerns the rest."""
    return part if part.name in {"weights", "kv"} else replace(part, size_bytes=math.ceil(part.size_bytes * factor))


def _judge(model: ModelInfo, parts: tuple[Part, ...], hardware: Hardware, settings: Settings) -> MemoryFit:
    host = sum(_least(part) for part in parts if part.place == "host")
    device = sum(_least(part) for part in parts if part.place == "device")
    places = [(host, _host_available(hardware), "RAM")]
    if device:
        places.append((device, _device_available(hardware, settings), "GPU"))
    needed, available, where = max(places, key=lambda place: place[0] / max(1, place[1]))
    fits = needed <= available * (1 - MARGIN)
    taken = sum(part.size_bytes for part in parts if part.place == "device")
    free = _device_available(hardware, {**settings, "gpu_memory_utilization": None})
    if fits and taken > free:  # an engine that is allowed more than is free refuses to start
        needed, available, where, fits = taken, free, "GPU", False
    largest = max(parts, key=lambda part: part.size_bytes)
    values = {
        "model": model.name,
        "place": where,
        "needed_mb": math.ceil(needed / _MIB),
        "available_mb": available // _MIB,
        "largest": t(f"fit.part.{largest.name}"),
        "largest_mb": largest.size_bytes // _MIB,
    }
    return MemoryFit(
        parts=parts,
        total_bytes=sum(part.size_bytes for part in parts),
        needed_bytes=needed,
        available_bytes=available,
        fits=fits,
        verdict="fit.fits" if fits else "fit.too_large",
        values=values,
    )


def _least(part: Part) -> int:
    return part.size_bytes if part.least_bytes is None else part.least_bytes


def _host_available(hardware: Hardware) -> int:
    memory = hardware.memory
    return min(memory.available_bytes, memory.usable_bytes)


def _device_available(hardware: Hardware, settings: Settings) -> int:
    """What the devices of a launch may hold together, in the portions it gives them; never above an allowed share."""
    share = float(settings.get("gpu_memory_utilization") or 1)
    portions = _portions(settings, hardware)
    rooms = [min(device.free_bytes, device.total_bytes * share) / portion for device, portion in portions]
    return int(min(rooms, default=0))


def planned_device_bytes(fit: MemoryFit, settings: Settings, hardware: Hardware) -> dict[str, int]:
    """What each device (by uuid) is meant to hold of this launch: the levels of memory are judged against it.

    Empty where the launch uses none, or is not known well enough.
    """
    total = fit.bytes_of(place="device")
    if not total:
        return {}
    return {device.uuid: int(total * portion) for device, portion in _portions(settings, hardware)}


def names_one_device(settings: Settings) -> bool:
    """Whether a launch names the one device that its model lies on (``cuda:0``): the others are left alone."""
    return str(settings.get("device")).endswith(":0")


def _portions(settings: Settings, hardware: Hardware) -> list[tuple[Device, float]]:
    """The devices a launch uses, each with its portion of what lies on devices: as split, else in equal parts.

    Used are as many as there are ranks, or one where the launch names one, those with most room first; else all.
    """
    split = [float(portion) for portion in str(settings.get("tensor_split") or "").split(",") if portion]
    if split and len(split) == len(hardware.devices):
        return [(device, portion / sum(split)) for device, portion in zip(hardware.devices, split, strict=True)]
    ranks = int(settings.get("tensor_parallel") or 1) * int(settings.get("pipeline_parallel") or 1)
    alone = settings.get("split_mode") == "none" or names_one_device(settings)
    used = sorted(hardware.devices, key=lambda device: -device.free_bytes)
    if alone or "tensor_parallel" in settings:
        used = used[: 1 if alone else ranks]
    return [(device, 1 / len(used)) for device in used]


def learn_correction(estimated: Sequence[float], measured: Sequence[float], *, least: int = 3) -> Correction:
    """The factor that covers 95 % of what was seen, from pairs of uncertain bytes (weights and caches left out).

    One-sided: mean + 1.645 standard deviations of the logarithm of measured over estimated, and never below 1. Fewer
    than ``least`` pairs teach only what they prove: the largest ratio seen.
    """
    ratios = [math.log(seen / said) for said, seen in zip(estimated, measured, strict=True) if said > 0 and seen > 0]
    if not ratios:
        return NO_CORRECTION
    if len(ratios) < least:
        return Correction(factor=max(1.0, math.exp(max(ratios))))
    mean = sum(ratios) / len(ratios)
    spread = math.sqrt(sum((ratio - mean) ** 2 for ratio in ratios) / (len(ratios) - 1))
    return Correction(factor=max(1.0, math.exp(mean + _ONE_SIDED_95 * spread)))
