"""Memory of a real torch model comes back every time it is loaded, used and released under guard in one process.

    python benchmarks/gpu_memory.py --out FOLDER [--cycles 500] [--place cuda:0|cpu] [--seconds 115]

Each cycle loads a language model (random weights, the real architecture) inside ``memory_guard``, answers
with it, and leaves in one of four ways: its last reference goes, the caller keeps it, it fails half way, or only its
cache is kept. Whole engine launches are measured by ``gpu_engines.py``. Needs torch and transformers and no network.
``--seconds`` ends it early; a run that was cut short says so and has missed its figure. Prints one JSON object; FOLDER
gets every cycle (gpu_memory.json).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from llmopt.hardware.guard import Guard, ResourceManager
from llmopt.hardware.inprocess import release_caches
from llmopt.hardware.release import ReleaseReport
from llmopt.hardware.tree import tree_memory

MIB = 1 << 20
WARM_CYCLES = 3
ENDINGS = ("let go", "kept by the caller", "failed half way", "cache kept")
SIZES = {
    "cuda": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 16, "vocab_size": 32_000},
    "cpu": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "vocab_size": 16_000},
}
PROMPT = {"cuda": 256, "cpu": 16}
"""1.5 GB in half precision on a GPU: well above what a release may leave (64 MiB or 0.5 % of the device)."""
REQUIRED_GB = {"cuda": 2.5, "cpu": 0.5}


class HalfWay(Exception):
    """What a cycle that is meant to fail raises."""


def configuration(**sizes: int) -> Any:
    """A small Qwen2, the architecture of the demo's larger model."""
    return Qwen2Config(
        num_attention_heads=16, num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True, **sizes
    )


def load(place: str) -> Qwen2ForCausalLM:
    """A model with random weights, made where it is used."""
    before, kind = torch.get_default_dtype(), torch.device(place).type
    torch.set_default_dtype(torch.float16 if kind == "cuda" else torch.float32)
    try:
        with torch.device(place):
            return Qwen2ForCausalLM(configuration(**SIZES[kind])).eval()
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def answer(model: Qwen2ForCausalLM, place: str) -> Any:
    """A prompt and three tokens more; returns the cache, which is memory of its own."""
    tokens = torch.randint(0, model.config.vocab_size, (2, PROMPT[torch.device(place).type]), device=place)
    out = model(tokens, use_cache=True)
    for _ in range(3):
        out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
    return out.past_key_values


def use(guard: Guard, place: str, ending: str, kept: list[Any]) -> None:
    """Load and answer, and leave as ``ending`` says."""
    model = guard.register(load(place))
    cache = answer(model, place)
    if ending == "kept by the caller":
        kept.append(model)
    elif ending == "cache kept":
        kept.append(guard.register(Cache(cache)))
    elif ending == "failed half way":
        raise HalfWay(ending)


def one_cycle(manager: ResourceManager, place: str, ending: str, kept: list[Any]) -> ReleaseReport:
    """The proof of one guarded use."""
    with suppress(HalfWay), manager.memory_guard(ending, required_gb=REQUIRED_GB[torch.device(place).type]) as guard:
        use(guard, place, ending, kept)
    return manager.releases[-1]


class Cache:
    """A caller's own object that holds device memory and knows how to let go of it."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def close(self) -> None:
        """Let go."""
        self.cache = None


def run_cycles(count: int, place: str, until_s: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """``count`` cycles after a few that settle libraries and thread pools; summary and rows."""
    manager, rows = ResourceManager(), []
    kept: list[Any] = []
    for number in range(WARM_CYCLES):
        one_cycle(manager, place, ENDINGS[number % len(ENDINGS)], [])
    gc.collect()
    gc.freeze()  # the libraries' own million objects are not looked through again in every cycle
    peak = peak_of_one_cycle(place)
    first = held(place)
    for number in range(count):
        if time.monotonic() > until_s:
            break
        ending, began_s = ENDINGS[number % len(ENDINGS)], time.monotonic()
        report = one_cycle(manager, place, ending, kept)
        row: dict[str, Any] = {"cycle": number, "ending": ending, "verified": report.verified}
        row |= {"proof_s": round(report.seconds, 3), "holders": list(report.lines())}
        row |= {f"{name}_bytes": value for name, value in held(place).items()}
        row |= {"device_baseline_bytes": [device.baseline_bytes for device in report.devices]}
        row |= {"device_used_bytes": [device.used_bytes for device in report.devices]}
        rows.append({**row, "seconds": round(time.monotonic() - began_s, 3)})
    used = [max(row["device_used_bytes"], default=0) for row in rows]
    summary: dict[str, Any] = {
        "cycles": len(rows),
        "wanted": count,
        "not_returned": sum(not row["verified"] for row in rows),
        "held_by_the_caller": len(kept),
        "peak_of_one_cycle_mib": round(peak / MIB, 1),
        "slowest_proof_s": max((row["proof_s"] for row in rows), default=None),
    }
    if rows:
        last = held(place)
        summary |= {f"{name}_growth_mib": round((last[name] - first[name]) / MIB, 1) for name in first}
        summary |= {"device_used_first_mib": round(used[0] / MIB, 1), "device_used_last_mib": round(used[-1] / MIB, 1)}
        summary |= {"device_used_most_mib": round(max(used) / MIB, 1)}
    return summary, rows


def held(place: str) -> dict[str, int]:
    """What this process holds: its own pages, and what its allocator has on the device."""
    gc.collect()
    found = {"host": tree_memory([os.getpid()]).anonymous_bytes}
    if place != "cpu":
        found |= {"allocated": torch.cuda.memory_allocated(place), "reserved": torch.cuda.memory_reserved(place)}
    return found


def peak_of_one_cycle(place: str) -> int:
    """What one cycle takes at its height: the release of nothing would prove nothing."""
    before = held(place)["host"]
    if place != "cpu":
        torch.cuda.reset_peak_memory_stats(place)
    model = load(place)
    cache = answer(model, place)
    peak = held(place)["host"] - before if place == "cpu" else int(torch.cuda.max_memory_allocated(place))
    del model, cache
    release_caches()
    return peak


# ── all together ───────────────────────────────────────────────────────────────────────────────────────────────────


def versions() -> dict[str, str]:
    """What the figures were made with."""

    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("transformers", "nvidia-ml-py"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(0), "cuda": str(torch.version.cuda)}
    return found


def missed(cycles: dict[str, Any]) -> list[str]:
    """The figures of the specification that these cycles do not reach."""
    checks = {"cycles": cycles["cycles"] < cycles["wanted"], "not returned": cycles["not_returned"] > 0}
    return [name for name, holds in checks.items() if holds]


def main() -> int:
    """Measure, print, write."""

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--place", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=115.0)
    options = parser.parse_args()
    until_s = time.monotonic() + options.seconds
    cycles, rows = run_cycles(options.cycles, options.place, until_s)
    result = {"place": options.place, "versions": versions(), "cycles": cycles, "missed": missed(cycles)}
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**result, "raw": rows}, indent=1)
    (options.out / "gpu_memory.json").write_text(text + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
