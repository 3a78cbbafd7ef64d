"""Measured serving points by others, as tables a search can be replayed on, with a physical prediction of each point.

The tables lie in the wheel ``aiconfigurator-core==0.12.0`` (Apache-2.0). It is fetched without its dependencies, read
as a zip file, and neither installed nor kept in this repository.
"""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

WHEEL = "aiconfigurator-core==0.12.0"
TABLE = "aiconfigurator_core/systems/silicon_sample.csv"
CONFIGS = "aiconfigurator_core/model_configs/"

# peak memory bandwidth (bytes/s) and dense arithmetic (FLOP/s at 8 bits) from the vendor's data sheets
GPUS = {
    "h100_sxm": (3.35e12, 1.98e15), "h200_sxm": (4.8e12, 1.98e15), "b200_sxm": (7.7e12, 4.5e15),
    "gb200": (8.0e12, 5.0e15), "b300_sxm": (8.0e12, 4.5e15), "gb300": (8.0e12, 5.0e15),
}  # fmt: skip
LINK = 4.0e11
RENAMED = {
    "zhipuai/GLM-5": "zai-org/GLM-5",
    "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Meta-Llama-3.1-8B",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-ai/DeepSeek-R1",
    "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-ai/DeepSeek-V3",
    "nvidia/Qwen3-32B-NVFP4": "Qwen/Qwen3-32B",
}
WEIGHT_BYTES = {"fp4": 0.5625, "fp8": 1.0, "int4": 0.52, "bf16": 2.0, "": 1.0}
SPEEDUP = {"fp4": 1.6, "fp8": 1.0, "int4": 0.5, "bf16": 0.5, "": 1.0}
CONFIGURATION = ("batch_size", "tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size", "precision")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured configuration of a group."""

    model: str
    family: str
    system: str
    settings: tuple[str, ...]
    isl: int
    osl: int
    batch: int
    tp: int
    dp: int
    tpot_ms: float

    @property
    def gpus(self) -> int:
        return self.tp * self.dp

    def throughput(self, tpot_ms: float) -> float:
        """Output tokens per second and GPU at that time per token."""
        return 1000.0 * self.batch / tpot_ms / self.tp


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a model moves and computes, from its published configuration."""

    layers: int
    hidden: int
    attention: float
    """Weights of attention and dense parts, in all layers."""
    experts: float
    """Weights of one expert, in all layers."""
    expert_count: int
    active_experts: int
    always: float
    """Feed-forward weights every token passes."""
    kv_values: float
    """KV-cache values of a token, in all layers."""
    kv_heads: int
    moe: bool


def fetch(folder: Path) -> zipfile.ZipFile:
    """The wheel, downloaded once into ``folder``."""
    found = sorted(folder.glob("aiconfigurator_core-0.12.0-*.whl"))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder), WHEEL]
        subprocess.run(command, check=True)
        found = sorted(folder.glob("aiconfigurator_core-0.12.0-*.whl"))
    return zipfile.ZipFile(found[0])


def points(wheel: zipfile.ZipFile) -> list[tuple[tuple[str, ...], Point]]:
    """Aggregated rows on at most eight tensor-parallel GPUs, each with its group."""
    found: list[tuple[tuple[str, ...], Point]] = []
    for row in csv.DictReader(io.StringIO(wheel.read(TABLE).decode())):
        if row["mode"] != "agg" or not row["silicon_tpot_ms"] or int(row["tp_size"] or 99) > 8:
            continue
        model = RENAMED.get(row["model_path"], row["model_path"])
        group = (row["model_path"], row["system"], row["backend"], row["isl"], row["osl"])
        point = Point(
            model=model, family="DeepSeek" if "DeepSeek" in model else model, system=row["system"],
            settings=tuple(row[name] for name in CONFIGURATION), isl=int(row["isl"]), osl=int(row["osl"]),
            batch=int(row["batch_size"]), tp=int(row["tp_size"]), dp=max(int(row["attention_dp_size"] or 1), 1),
            tpot_ms=float(row["silicon_tpot_ms"]),
        )  # fmt: skip
        found.append((group, point))
    return found


def groups(wheel: zipfile.ZipFile, *, least: int = 16) -> dict[tuple[str, ...], list[Point]]:
    """Groups (model, GPU, engine, lengths) with at least so many different configurations; first measurement kept."""
    table: dict[tuple[str, ...], dict[tuple[str, ...], Point]] = defaultdict(dict)
    for group, point in points(wheel):
        table[group].setdefault(point.settings, point)
    return {group: list(found.values()) for group, found in table.items() if len(found) >= least}


# ── what physics says ──────────────────────────────────────────────────────────────────────────────────────────────


def shape(wheel: zipfile.ZipFile, model: str) -> Shape:
    """The model's shape from the configuration in the wheel."""
    c = json.loads(wheel.read(f"{CONFIGS}{model.replace('/', '--')}_config.json"))
    c = c.get("text_config", c)
    layers, h, heads = c["num_hidden_layers"], c["hidden_size"], c["num_attention_heads"]
    kv_heads = c.get("num_key_value_heads") or heads
    if c.get("kv_lora_rank"):
        rank, rope, nope, v = c["kv_lora_rank"], c["qk_rope_head_dim"], c["qk_nope_head_dim"], c["v_head_dim"]
        q = c.get("q_lora_rank") or h
        attention = h * q + q * heads * (nope + rope) + h * (rank + rope) + rank * heads * (nope + v) + heads * v * h
        kv_values, kv_heads = rank + rope, 1
    else:
        d = c.get("head_dim") or h // heads
        attention = 2 * h * heads * d + 2 * h * kv_heads * d
        kv_values = 2 * kv_heads * d
    kv_layers = layers // c.get("full_attention_interval", 1)
    count = c.get("n_routed_experts") or c.get("num_local_experts") or c.get("num_experts") or 0
    wide = c.get("moe_intermediate_size") or (c["intermediate_size"] if count else 0)
    dense_layers = c.get("first_k_dense_replace", 0) if count else layers
    shared = c.get("shared_expert_intermediate_size") or wide * (c.get("n_shared_experts") or 0)
    always = 3 * h * (dense_layers * c.get("intermediate_size", wide) + (layers - dense_layers) * shared)
    return Shape(
        layers=layers, hidden=h, attention=layers * attention + c["vocab_size"] * h, always=always,
        experts=3.0 * h * wide * (layers - dense_layers), expert_count=count,
        active_experts=c.get("num_experts_per_tok") or 0, kv_values=kv_layers * kv_values, kv_heads=kv_heads,
        moe=count > 0,
    )  # fmt: skip


GUESSED = np.log(np.array([0.7, 0.5, 15e-6, 8e-6, 1.0]))
"""Shares of peak bandwidth and arithmetic, seconds a layer and an all-reduce, interference of prefill with decode."""


def tpot_s(s: Shape, p: Point, constants: np.ndarray) -> float:
    """Time per output token by roofline, with the share of prefill that continuous batching mixes in."""
    bandwidth, arithmetic, per_layer, reduce_s, interference = np.exp(constants)
    peak_bytes, peak_flops = GPUS[p.system]
    precision = p.settings[CONFIGURATION.index("precision")]
    peak_flops *= SPEEDUP[precision]
    width = WEIGHT_BYTES[precision]
    dense = s.attention + s.always
    tokens = p.batch * p.dp
    touched = s.expert_count * (1 - (1 - s.active_experts / s.expert_count) ** tokens) if s.moe else 0.0
    kv_shards = min(p.tp, s.kv_heads)
    context = p.isl + p.osl / 2
    moved = dense * width / p.tp + s.experts * touched * width / p.gpus + p.batch * context * s.kv_values / kv_shards
    active = dense + s.experts * s.active_experts
    flops = 2.0 * tokens * active / p.gpus
    decode = max(moved / (peak_bytes * bandwidth), flops / (peak_flops * arithmetic)) + s.layers * per_layer
    if p.gpus > 1:
        decode += 2 * s.layers * (reduce_s + p.batch * s.hidden * 2 / LINK)
    prefill = 2.0 * active * p.isl / (p.gpus * peak_flops * arithmetic) * p.dp
    return float(decode + (p.batch - 1) / p.osl * prefill * interference)


def fit(shapes: dict[str, Shape], known: list[Point]) -> np.ndarray:
    """Constants from other models' measurements: robust least squares on logarithms, held near the guesses."""

    def residuals(constants: np.ndarray) -> list[float]:
        errors = [math.log(1000 * tpot_s(shapes[p.model], p, constants) / p.tpot_ms) for p in known]
        return [*errors, *(3.0 * (constants - GUESSED))]

    return np.asarray(least_squares(residuals, GUESSED, loss="soft_l1", f_scale=0.3).x)


def predictions(
    wheel: zipfile.ZipFile, chosen: dict[tuple[str, ...], list[Point]]
) -> dict[tuple[str, ...], list[float]]:
    """Predicted TPOT (ms) of every point, with constants fitted to the other model families of its class only."""
    everything = [point for _, point in points(wheel)]
    shapes = {model: shape(wheel, model) for model in {p.model for p in everything}}
    constants = {}
    for family in sorted({p.family for p in everything}):
        moe = next(shapes[p.model].moe for p in everything if p.family == family)
        others = [p for p in everything if p.family != family and shapes[p.model].moe == moe]
        constants[family] = fit(shapes, others[:: max(len(others) // 400, 1)])
    return {
        group: [1000 * tpot_s(shapes[p.model], p, constants[p.family]) for p in found]
        for group, found in chosen.items()
    }
