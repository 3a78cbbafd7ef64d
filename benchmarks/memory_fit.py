"""Estimated against measured memory of real launches.

    python benchmarks/memory_fit.py --out FILE [--launches N] [--models smollm2-135m,qwen2.5-coder-0.5b]
    python benchmarks/memory_fit.py --out FILE --engine transformers --models FOLDER [--launches N]
    python benchmarks/memory_fit.py --out FILE --engine vllm --models FOLDER [--launches N]

Each launch of a spread of settings (llama.cpp: context × slots × micro-batch × KV types × flash attention;
transformers: precision × batching × streams; vLLM: precision × sequences × length × cache) is loaded until every stream
worked through a long prompt, while the process tree's proportional set size is sampled. Raw rows go to FILE (JSON
lines); a row that is there already is not measured again. The summary compares ``memory_fit`` with the peaks.
transformers and vLLM need an environment (``llmopt engines install …``) and a folder of safetensors. Nothing else
should map the same weights meanwhile: shared pages count in part for each process, and such rows are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from llmopt.engines.launch import launch
from llmopt.engines.registry import get_engine
from llmopt.errors import EngineError
from llmopt.hardware.probe import probe
from llmopt.hardware.tree import tree_memory
from llmopt.models.catalogue import find_model
from llmopt.models.memory_fit import MARGIN, memory_fit
from llmopt.models.metadata import read_model
from llmopt.models.weights import ensure_weights
from llmopt.paths import Workspace
from llmopt.records import Load, Task
from llmopt.runtime.guardian import Guardian
from llmopt.runtime.http import request

WORDS = ("one", "two", "three", "four", "five", "six", "river", "stone", "apple", "cloud", "green", "light", "water")


def spread(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """``count`` launch settings that cover every value and many pairs, the corners first."""
    grid: dict[str, tuple[Any, ...]] = {
        "context": (1024, 2048, 8192, 16384),
        "slots": (1, 4, 8),
        "ubatch": (64, 256, 512, 1024),
        "cache": ("f16/f16", "q8_0/q8_0", "q4_0/q4_0", "f16/q8_0"),
        "flash_attention": ("on", "off"),
        "kv_unified": (False, True),
    }
    every = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    legal = [s for s in every if not (s["flash_attention"] == "off" and s["cache"].split("/")[1] != "f16")]
    rng = random.Random(seed)
    rng.shuffle(legal)
    return legal[:count]


def complete(point: dict[str, Any]) -> dict[str, Any]:
    """All launch settings of the engine, from a point of the spread."""
    key_type, value_type = str(point["cache"]).split("/")
    return {
        "threads": 2,
        "threads_batch": 2,
        "slots": point["slots"],
        "context": point["context"],
        "kv_unified": point["kv_unified"],
        "batch": min(2048, int(point["context"])),
        "ubatch": min(int(point["ubatch"]), int(point["context"])),
        "cache_type_k": key_type,
        "cache_type_v": value_type,
        "flash_attention": point["flash_attention"],
        "speculation": "off",
    }


def torch_spread(engine: str, count: int, model, hardware, seed: int = 7) -> list[dict[str, Any]]:
    """``count`` complete settings of a PyTorch engine, with the streams they are loaded with."""
    grids: dict[str, dict[str, tuple[Any, ...]]] = {
        "transformers": {
            "dtype": ("float32", "bfloat16"),
            "continuous_batching": (False, True),
            "streams": (1, 4),
            "prompt": (256, 1024),
        },
        "vllm": {
            "dtype": ("bfloat16", "float32"),
            "max_num_seqs": (1, 4, 16),
            "max_model_len": (1024, 2048),
            "kv_cache_bytes": (256 << 20, 1 << 30),
            "streams": (4,),
            "prompt": (512,),
        },
    }
    grid = grids[engine]
    every = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    random.Random(seed).shuffle(every)
    every = [{"streams": 16, "prompt": 256}, *every]  # the engine's own sizes first
    points = []
    for point in every[:count]:
        task = Task(load=Load(streams=point["streams"]), max_tokens=8, prompt_tokens=point["prompt"])
        base = dict(get_engine(engine).baseline(model, hardware, task))
        changed = {name: value for name, value in point.items() if name not in {"streams", "prompt"}}
        if engine == "vllm":
            changed |= {"enforce_eager": True, "core_binding": "nobind", "threads": 2}
            changed["max_num_batched_tokens"] = 2048
        if changed.get("continuous_batching"):
            changed |= {"block_size": 32, "cache_blocks": 256, "batch_tokens": 512}
        points.append({"settings": base | changed, "streams": point["streams"], "prompt": point["prompt"]})
    return points


async def load(running, *, streams: int, words: int) -> tuple[dict[str, int], int]:
    """Work every stream at once through a prompt of ``words``; returns the tree's peak and the longest prompt."""
    peak = {"anonymous": 0, "file": 0}
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            now = await asyncio.to_thread(lambda: tree_memory(running.pids()))
            peak["anonymous"] = max(peak["anonymous"], now.anonymous_bytes + now.shared_bytes)
            peak["file"] = max(peak["file"], now.file_bytes)
            await asyncio.sleep(0.15)

    async def one(seed: int) -> int:
        text = " ".join(random.Random(seed).choices(WORDS, k=words))
        messages = [{"role": "user", "content": text}]
        body = {"model": running.endpoint.model, "messages": messages, "max_tokens": 8, "temperature": 0}
        answer = await request(running.endpoint, "POST", "/v1/chat/completions", body=body, timeout_s=300)
        assert answer.status == 200, answer.body[:300]
        return int(json.loads(answer.body)["usage"]["prompt_tokens"])

    watcher = asyncio.create_task(watch())
    lengths = await asyncio.gather(*(one(seed) for seed in range(streams)))
    await asyncio.sleep(0.3)
    done.set()
    await watcher
    return peak, max(lengths)


def info(name: str):
    """The model of a catalogue name or folder, read from its headers."""
    workspace = Workspace.here()
    return read_model(ensure_weights(find_model(name, workspace), workspace=workspace), Path(name).name)


async def measure(engine: str, name: str, point: dict[str, Any], guardian: Guardian, root: Path) -> dict:
    """One launch; ``point`` are its settings with the streams and words it is loaded with."""
    row = {"engine": engine, "model": name, **point}
    try:
        async with launch(
            get_engine(engine), info(name), point["settings"], guardian=guardian, run_root=root
        ) as running:
            row["peak"], row["prompt_tokens"] = await load(running, streams=point["streams"], words=point["prompt"])
    except EngineError as error:
        return {**row, "error": f"{error.key}: {error.detail[-300:]}"}
    return row


def llamacpp_spread(count: int) -> list[dict[str, Any]]:
    found = []
    for point in spread(count):
        settings = complete(point)
        share = int(settings["context"]) // int(settings["slots"])
        words = min(int((share - 40) * 0.7), 2400 // int(settings["slots"]), 1100)  # some words are two tokens
        found.append({"settings": settings, "streams": settings["slots"], "prompt": words})
    return found


def compare(rows: list[dict]) -> None:
    hardware, shared = probe(), 0
    models: dict[str, Any] = {}
    errors: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if "peak" not in row:
            continue
        name, engine = row["model"], row.get("engine", "llamacpp")
        models[name] = models.get(name) or info(name)
        settings = row["settings"]
        streams = row.get("streams") or settings["slots"]
        task = Task(load=Load(streams=streams), max_tokens=8, prompt_tokens=row["prompt_tokens"])
        fit = memory_fit(engine, models[name], settings, hardware, task)
        mapped = sum(part.size_bytes for part in fit.parts if part.mapped and part.name == "weights")
        if row["peak"]["file"] < 0.9 * mapped:
            shared += 1
            continue
        measured = row["peak"]["anonymous"] + row["peak"]["file"]
        error = fit.total_bytes / measured - 1
        errors.setdefault((engine, Path(name).name), []).append(error)
        shown = (
            "context",
            "slots",
            "ubatch",
            "cache_type_k",
            "flash_attention",
            "dtype",
            "max_num_seqs",
            "kv_cache_bytes",
        )
        brief = {key: settings[key] for key in shown if key in settings}
        print(f"{name:20} {brief} measured {measured >> 20} MB, estimated {fit.total_bytes >> 20} MB, {error:+.1%}")
    if shared:
        print(f"{shared} rows left out: another process mapped the same weights")
    for who, found in errors.items():
        summary(" ".join(who), found)
    if errors:
        summary("all", [error for found in errors.values() for error in found])


def summary(name: str, errors: list[float]) -> None:
    """Errors, and what they would do to launches on a machine that has just too little, or 15 % more than is needed."""
    mean = sum(abs(error) for error in errors) / len(errors)
    print(f"{name}: n={len(errors)}  mean |error| {mean:.1%}  worst under {min(errors):+.1%}  over {max(errors):+.1%}")
    too_large = sum(1 + error <= 1 - MARGIN for error in errors)
    refused = sum(1 + error > 1.15 * (1 - MARGIN) for error in errors)
    print(f"  admitted although too large {too_large}, refused with 15 % to spare {refused}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--launches", type=int, default=20, help="for each model")
    parser.add_argument("--engine", choices=("llamacpp", "transformers", "vllm"), default="llamacpp")
    parser.add_argument("--models", default="smollm2-135m,qwen2.5-coder-0.5b")
    given = parser.parse_args()
    lines = given.out.read_text().splitlines() if given.out.is_file() else []
    rows = [json.loads(line) for line in lines]
    known = {(row["model"], json.dumps(row["settings"], sort_keys=True), row.get("streams")) for row in rows}
    with Guardian() as guardian, tempfile.TemporaryDirectory() as folder, given.out.open("a") as out:
        for name in given.models.split(","):
            llamacpp = given.engine == "llamacpp"
            spreading = llamacpp_spread if llamacpp else lambda n: torch_spread(given.engine, n, info(name), probe())  # noqa: B023
            for point in spreading(given.launches):
                key = json.dumps(point["settings"], sort_keys=True)
                if {(name, key, point["streams"]), (name, key, None)} & known:
                    continue
                row = asyncio.run(measure(given.engine, name, point, guardian, Path(folder)))
                out.write(json.dumps(row) + "\n")
                out.flush()
                rows.append(row)
                print(json.dumps(row), flush=True)
    compare(rows)


if __name__ == "__main__":
    main()
