"""What a device can do at best: bandwidth, arithmetic by precision, links. Published figures, or this machine's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from llmopt.records import Device, DeviceType

__all__ = ["DeviceSpec", "device_spec", "hypothetical", "known_devices"]

_SIXTEEN = 16
FREE_SHARE = 0.98
"""Of a device nobody uses: the driver keeps a little."""


@dataclass(frozen=True, kw_only=True)
class DeviceSpec:
    """Peaks of one device; ``flops`` by bits of the inputs (dense). ``family`` is what constants were learned on."""

    name: str
    family: str
    bandwidth: float
    """Bytes a second from its memory."""
    flops: Mapping[int, float] = field(default_factory=dict)
    prompt_speedup: float = 1.0
    """How much faster prompts are computed than ``flops`` says: an engine may give them more of a CPU's threads."""
    link_bandwidth: float = 0.0
    """Bytes a second to another device, one direction."""
    memory_bytes: int = 0
    capability: tuple[int, int] | None = None
    """Compute capability, of NVIDIA devices."""
    source: str = ""
    checked: str = ""
    """What the figures were compared with, beside their source."""

    def flops_at(self, bits: float) -> float:
        """The peak for inputs of ``bits``: the narrowest unit at least as wide."""
        for width in sorted(self.flops):
            if width >= bits - 0.6:  # block formats of 4.5 bits run on 4-bit units
                return self.flops[width]
        return self.flops.get(_SIXTEEN) or max(self.flops.values(), default=0.0)


@cache
def known_devices() -> Mapping[str, DeviceSpec]:
    """The published devices by short name (``h100-sxm`` …)."""
    data = json.loads(Path(__file__).with_name("devices.json").read_text(encoding="utf-8"))
    return {name: _spec(name, raw) for name, raw in data["devices"].items()}


def _spec(name: str, raw: Mapping[str, Any]) -> DeviceSpec:
    return DeviceSpec(
        name=name,
        family=raw["family"],
        bandwidth=raw["bandwidth_gb_s"] * 1e9,
        flops={int(bits): tera * 1e12 for bits, tera in raw["tflops"].items()},
        link_bandwidth=raw.get("link_gb_s", 0) * 1e9,
        memory_bytes=int(raw["memory_gb"] * 1e9),
        capability=(raw["capability"][0], raw["capability"][1]) if "capability" in raw else None,
        source=raw["source"],
        checked=raw["checked"],
    )


def device_spec(device: Device | str) -> DeviceSpec | None:
    """The spec of a probed device (by the words in its name) or of a short name; None for one never described.

    Among several that match, the one with most words, then the one whose memory is nearest. Slices of a device and
    laptop parts, which reach only a share of their namesakes, count as never described.
    """
    known = known_devices()
    if isinstance(device, str):
        if device.lower() in known:
            return known[device.lower()]
        name, memory = device, 0
    else:
        if device.parent_uuid is not None:
            return None
        name, memory = device.name, device.total_bytes
    words = name.lower().replace("-", " ").replace("(", " ").replace(")", " ").split()
    if "laptop" in words or "max-q" in name.lower():
        return None
    matches = [spec for spec in known.values() if all(_said(part, words) for part in spec.name.split("-"))]
    if not matches:
        return None
    most = max(len(spec.name.split("-")) for spec in matches)
    best = [spec for spec in matches if len(spec.name.split("-")) == most]
    return min(best, key=lambda spec: abs(spec.memory_bytes - memory))


def _said(part: str, words: list[str]) -> bool:
    """Whether a part of a short name is among the words; form factors carry a number (``SXM4``)."""
    return part in words or (part == "sxm" and any(word.startswith("sxm") for word in words))


def hypothetical(spec: DeviceSpec, count: int) -> tuple[Device, ...]:
    """``count`` devices of ``spec`` as a probe would find them on a machine of their own."""
    amd = spec.capability is None
    return tuple(
        Device(
            index=index,
            uuid=f"hypothetical-{spec.name}-{index}",
            vendor="amd" if amd else "nvidia",
            kind=DeviceType.ROCM if amd else DeviceType.CUDA,
            name=spec.name,
            total_bytes=spec.memory_bytes,
            free_bytes=round(spec.memory_bytes * FREE_SHARE),
            compute_capability=spec.capability,
        )
        for index in range(count)
    )
