"""The specification's starting defaults for a machine: where the search begins, each value with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmopt.messages import t
from llmopt.records import DataType, DeviceType, InferenceParams, ModelType, Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmopt.records import Device, Hardware, ModelInfo, SettingValue

__all__ = ["STRATEGY_SAMPLING", "StartingDefault", "starting_defaults", "starting_threads"]

_GIB = 1 << 30
_SMALL_GB, _LARGE_GB = 8, 16
_ROOM = 0.85
"""Of a device's memory, what weights and KV cache may take before 4-bit weights are the better start."""

STRATEGY_SAMPLING: Mapping[Strategy, InferenceParams] = {
    Strategy.ACCURACY: InferenceParams(temperature=0.1, top_p=0.3, top_k=10),
    Strategy.CREATIVITY: InferenceParams(temperature=0.8, top_p=0.9, top_k=50),
}
"""Sampling of the strategies that set it; ``speed`` sets the engine and its batch instead."""


@dataclass(frozen=True, kw_only=True)
class StartingDefault:
    """One value and the message key of its reason; ``values`` fill the reason's placeholders."""

    name: str
    value: SettingValue
    reason: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The reason in the reader's language."""
        return t(self.reason, **self.values)


def starting_threads(hardware: Hardware) -> int:
    """Physical cores, and no more than affinity, container and batch system leave."""
    return max(1, min(hardware.cpu.physical_cores, int(hardware.cpu.usable_cores)))


def starting_defaults(
    hardware: Hardware,
    model: ModelInfo | None = None,
    *,
    kv_cache_bytes: int = 0,
    strategy: Strategy | None = None,
) -> tuple[StartingDefault, ...]:
    """The starting point for this machine; with ``model`` (and its KV cache at the task's size) decided for it.

    Names: ``engine``, ``dtype``, ``quantization``, ``batch_size``, ``gradient_checkpointing``, ``threads``,
    ``tensor_parallel_size``, ``pipeline_parallel_size``, ``dynamic_batching`` and the sampling parameters.
    """
    rows = _without_device(hardware) if not hardware.devices else _with_devices(hardware, model, kv_cache_bytes)
    chosen = {row.name: row for row in rows}
    if strategy is not None:
        chosen |= {row.name: row for row in _for_strategy(strategy, hardware)}
    return tuple(chosen.values())


def _without_device(hardware: Hardware) -> list[StartingDefault]:
    threads = starting_threads(hardware)
    cores = {"physical": hardware.cpu.physical_cores, "usable": f"{hardware.cpu.usable_cores:g}"}
    return [
        _row("engine", ModelType.LLAMACPP.value, "no_gpu_engine"),
        _row("quantization", "Q4_K_M", "no_gpu_quantization"),
        _row("batch_size", 1, "no_gpu_batch"),
        _row("threads", threads, "no_gpu_threads", **cores),
    ]


def _with_devices(hardware: Hardware, model: ModelInfo | None, kv_cache_bytes: int) -> list[StartingDefault]:
    group = _like_the_largest(hardware.devices)
    # the nominal size: an "8 GB" card reports 7.996 GiB
    size_gb = round(min(device.total_bytes for device in group) / _GIB)
    rows: list[StartingDefault] = []
    if group[0].kind is DeviceType.MPS:
        rows.append(_row("engine", ModelType.LLAMACPP.value, "apple_engine"))
    if group[0].unified_memory:
        rows.append(_row("unified_memory", value=True, reason="unified", gb=size_gb))
    rows += _by_size(size_gb, group, model, kv_cache_bytes)
    ways, reason = _ways(group, model)
    if len(group) > 1:
        rows.append(_row("tensor_parallel_size", ways, reason, count=len(group), ways=ways))
        rows.append(_row("pipeline_parallel_size", 1, "pipeline"))
    return rows


def _by_size(
    size_gb: int, group: tuple[Device, ...], model: ModelInfo | None, kv_cache_bytes: int
) -> list[StartingDefault]:
    half = _row("dtype", DataType.FLOAT16.value, "float16", gb=size_gb)
    if size_gb <= _SMALL_GB:
        return [
            half,
            _row("quantization", DataType.INT4.value, "small_quantization", gb=size_gb),
            _row("batch_size", 1, "small_batch", gb=size_gb),
            _row("gradient_checkpointing", value=True, reason="small_checkpointing"),
        ]
    if size_gb >= _LARGE_GB:
        return [
            half,
            _row("quantization", None, "large_quantization", gb=size_gb),
            _row("batch_size", 4, "large_batch", gb=size_gb),
        ]
    batch = _row("batch_size", 2, "middle_batch", gb=size_gb)
    if model is None or model.parameters is None:
        return [half, _row("quantization", None, "middle_unknown", percent=round(_ROOM * 100)), batch]
    needed = model.parameters * 2 + kv_cache_bytes
    share = needed / min(device.total_bytes for device in group)
    figures = {"percent": round(share * 100), "limit": round(_ROOM * 100)}
    if share <= _ROOM:
        return [half, _row("quantization", None, "middle_fits", **figures), batch]
    return [half, _row("quantization", DataType.INT4.value, "middle_too_large", **figures), batch]


def _like_the_largest(devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """The devices that may share one model: equal to the largest, and no slices, which cannot talk to each other."""
    best = max(devices, key=lambda device: (device.total_bytes, -device.index))
    if best.parent_uuid is not None:
        return (best,)
    return tuple(d for d in devices if (d.name, d.total_bytes, d.parent_uuid) == (best.name, best.total_bytes, None))


def _ways(group: tuple[Device, ...], model: ModelInfo | None) -> tuple[int, str]:
    """How many devices share a model: the most that divide its attention heads, else a power of two."""
    if model is not None and model.heads:
        ways = max(n for n in range(1, len(group) + 1) if model.heads % n == 0)
        return ways, "tensor_heads"
    return 1 << (len(group).bit_length() - 1), "tensor"


def _for_strategy(strategy: Strategy, hardware: Hardware) -> list[StartingDefault]:
    if strategy is not Strategy.SPEED:
        sampling = STRATEGY_SAMPLING[strategy].given()
        return [_row(name, value, f"strategy_{strategy.value}") for name, value in sampling.items()]
    rows = [
        _row("batch_size", 16, "strategy_speed"),
        _row("dynamic_batching", value=True, reason="strategy_speed"),
    ]
    runs_vllm = hardware.system.startswith("Linux") and any(d.vendor in {"nvidia", "amd"} for d in hardware.devices)
    if runs_vllm:
        rows.append(_row("engine", ModelType.VLLM.value, "strategy_speed_engine"))
    return rows


def _row(name: str, value: SettingValue, reason: str, **values: Any) -> StartingDefault:
    return StartingDefault(name=name, value=value, reason=f"hardware.default_{reason}", values=values)
