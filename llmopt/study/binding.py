"""What holds a configuration back: memory, its bandwidth, computing, the engine's batch, or our own client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmopt.models.memory_fit import MemoryFit, memory_fit
from llmopt.predict.devices import DeviceSpec, device_spec
from llmopt.predict.machine import cpu_spec, load_speed
from llmopt.predict.settings import serving_of
from llmopt.predict.work import work_of
from llmopt.records import Configuration, Hardware, ModelInfo, Task
from llmopt.search.trial import places

__all__ = ["Bound", "Scene", "binding"]

TIGHT = 0.85
"""Of the available memory: above it, a larger setting may not fit."""
BUSY = 0.25
"""Share of the time to an answer that is waiting for a place, from which on the batch binds."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a study ran on, as its result recorded it."""

    engine: str
    model: ModelInfo
    hardware: Hardware
    task: Task

    def fit(self, configuration: Configuration) -> MemoryFit | None:
        """What the configuration needs; None where nobody knows."""
        fit = memory_fit(self.engine, self.model, configuration.launch, self.hardware, self.task)
        return None if fit.fits is None else fit


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One candidate for what binds: ``share`` of what there is that it takes (0..1), and whether that is the limit."""

    kind: Literal["memory", "bandwidth", "compute", "batch", "client"]
    share: float | None
    binds: bool
    known: bool = True
    """False where nothing is known of it here: then ``binds`` says nothing."""


def binding(scene: Scene, configuration: Configuration, measured: Mapping[str, Any] | None) -> tuple[Bound, ...]:
    """All five, the binding ones first; ``measured`` is the configuration's measurement as plain data."""
    found = [
        _memory(scene, configuration),
        *_arithmetic(scene, configuration),
        _batch(scene, configuration),
        _client(measured),
    ]
    return tuple(sorted(found, key=lambda bound: (not bound.binds, not bound.known)))


def _memory(scene: Scene, configuration: Configuration) -> Bound:
    fit = scene.fit(configuration)
    if fit is None or not fit.available_bytes or not fit.needed_bytes:
        return Bound(kind="memory", share=None, binds=False, known=False)
    share = fit.needed_bytes / fit.available_bytes
    return Bound(kind="memory", share=share, binds=share > TIGHT)


def _arithmetic(scene: Scene, configuration: Configuration) -> tuple[Bound, Bound]:
    """Which of moving bytes and computing takes longer in a step, at the device's peaks."""
    spec = _device(scene, configuration)
    work = work_of(scene.model, serving_of(scene.model, configuration.launch, scene.task))
    if spec is None or work is None or not spec.bandwidth:
        unknown = {"share": None, "binds": False, "known": False}
        return Bound(kind="bandwidth", **unknown), Bound(kind="compute", **unknown)  # type: ignore[arg-type]
    moving_s = (work.weight_bytes + work.cache_bytes) / spec.bandwidth
    bits = work.serving.arithmetic_bits
    computing_s = (work.dense_flops + work.expert_flops) / spec.flops_at(bits) + work.attention_flops / spec.flops_at(
        16
    )
    # the prompts of the others are computed in between
    others = (work.serving.sequences - 1) / max(1, work.serving.output_tokens)
    computing_s += others * (work.prompt_dense_flops + work.prompt_expert_flops) / spec.flops_at(bits)
    share = moving_s / (moving_s + computing_s)
    return (
        Bound(kind="bandwidth", share=share, binds=share >= 1 / 2),
        Bound(kind="compute", share=1 - share, binds=share < 1 / 2),
    )


def _device(scene: Scene, configuration: Configuration) -> DeviceSpec | None:
    hardware, launch = scene.hardware, configuration.launch
    if hardware.devices and launch.get("gpu_layers") != 0 and launch.get("device") != "cpu":
        return device_spec(hardware.devices[0])
    speed = load_speed(hardware=hardware.fingerprint)
    usable = max(1, int(hardware.cpu.usable_cores))
    return None if speed is None else cpu_spec(speed, min(int(launch.get("threads") or usable), usable))


def _batch(scene: Scene, configuration: Configuration) -> Bound:
    """The share of a closed loop's requests that wait for a place in the engine."""
    streams = scene.task.load.streams
    if not streams:
        return Bound(kind="batch", share=None, binds=False, known=False)
    waiting = max(0.0, 1.0 - places(configuration) / streams)
    return Bound(kind="batch", share=waiting, binds=waiting > BUSY)


def _client(measured: Mapping[str, Any] | None) -> Bound:
    """Whether the measuring process itself was too busy, as the certificate saw it."""
    if not measured:
        return Bound(kind="client", share=None, binds=False, known=False)
    binds = "measure.warn_client_limited" in measured.get("warnings", ())
    share = (measured.get("certificate") or {}).get("cpu_share")
    return Bound(kind="client", share=share, binds=binds)
