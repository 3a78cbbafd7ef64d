"""What a device can do at best: bandwidth, arithmetic by precision, links. Published figures, or this machine's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from llmopt.records import Device

__all__ = ["DeviceSpec", "device_spec", "known_devices"]

_SIXTEEN = 16


@dataclass(frozen=True, kw_only=True)
class DeviceSpec:
    """Peaks of one device; ``flops`` by bits of the inputs (dense). ``family`` is what constants were learned on."""

    name: str
    family: str
    bandwidth: float
    """Bytes a second from its memory."""
    flops: Mapping[int, float] = field(default_factory=dict)
    link_bandwidth: float = 0.0
    """Bytes a second to another device, one direction."""
    memory_bytes: int = 0

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
    )


def device_spec(device: Device | str) -> DeviceSpec | None:
    """The spec of a probed device (by the words in its name) or of a short name; None for one never described."""
    wanted = device if isinstance(device, str) else device.name
    known = known_devices()
    if wanted.lower() in known:
        return known[wanted.lower()]
    words = set(wanted.lower().replace("-", " ").split())
    matches = [spec for name, spec in known.items() if set(name.split("-")) <= words]
    return max(matches, key=lambda spec: len(spec.name), default=None)
