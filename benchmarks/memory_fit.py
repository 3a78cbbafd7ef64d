"""Estimated against measured memory of real llama.cpp launches.

    python benchmarks/memory_fit.py --out FILE [--launches N] [--models smollm2-135m,qwen2.5-coder-0.5b]

Each launch of a spread of context × slots × micro-batch × KV types × flash attention is loaded until every slot worked
through a long prompt, while the process tree's proportional set size is sampled. Raw rows go to FILE (JSON lines);
a row that is there already is not measured again. The summary compares ``memory_fit`` with the peaks.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
from pathlib import Path

from llmopt.engines.launch import launch
from llmopt.engines.llamacpp import LlamaCpp
from llmopt.errors import EngineError
from llmopt.hardware.probe import probe
from llmopt.hardware.tree import tree_memory
from llmopt.models.catalogue import find_model
from llmopt.models.memory_fit import memory_fit
from llmopt.models.metadata import read_model
from llmopt.models.weights import ensure_weights
from llmopt.paths import Workspace
from llmopt.records import Load, Task
from llmopt.runtime.guardian import Guardian
from llmopt.runtime.http import request

WORDS = ("one", "two", "three", "four", "five", "six", "river", "stone", "apple", "cloud", "green", "light", "water")


def spread(count: int, seed: int = 7) -> list[dict[str, object]]:
    """``count`` launch settings that cover every value and many pairs, the corners first."""
    grid = {
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


def complete(point: dict[str, object]) -> dict[str, object]:
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


async def load(running, settings) -> tuple[dict[str, int], int]:
    """Work every slot at once through a prompt of most of its share; returns the tree's peak and the longest prompt."""
    share = int(settings["context"]) // int(settings["slots"])
    words = min(int((share - 40) * 0.7), 2400 // int(settings["slots"]), 1100)  # some words are two tokens
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
        body = {"model": running.endpoint.model, "prompt": text, "max_tokens": 8, "cache_prompt": False}
        answer = await request(running.endpoint, "POST", "/v1/completions", body=body, timeout_s=300)
        assert answer.status == 200, answer.body[:300]
        return int(json.loads(answer.body)["usage"]["prompt_tokens"])

    watcher = asyncio.create_task(watch())
    lengths = await asyncio.gather(*(one(seed) for seed in range(int(settings["slots"]))))
    await asyncio.sleep(0.3)
    done.set()
    await watcher
    return peak, max(lengths)


async def measure(name: str, point: dict[str, object], guardian: Guardian, root: Path) -> dict[str, object]:
    workspace = Workspace.here()
    model = read_model(ensure_weights(find_model(name, workspace), workspace=workspace), name)
    settings = complete(point)
    row: dict[str, object] = {"model": name, "settings": settings}
    try:
        async with launch(LlamaCpp(), model, settings, guardian=guardian, run_root=root) as running:
            row["peak"], row["prompt_tokens"] = await load(running, settings)
    except EngineError as error:
        return {**row, "error": f"{error.key}: {error.detail[-300:]}"}
    return row


def compare(rows: list[dict]) -> None:
    hardware, workspace = probe(), Workspace.here()
    models = {}
    errors = []
    for row in rows:
        if "peak" not in row:
            continue
        name = row["model"]
        if name not in models:
            models[name] = read_model(ensure_weights(find_model(name, workspace), workspace=workspace), name)
        settings = row["settings"]
        task = Task(load=Load(streams=settings["slots"]), max_tokens=8, prompt_tokens=row["prompt_tokens"])
        fit = memory_fit("llamacpp", models[name], settings, hardware, task)
        measured = row["peak"]["anonymous"] + row["peak"]["file"]
        error = fit.total_bytes / measured - 1
        errors.append(error)
        brief = {key: settings[key] for key in ("context", "slots", "ubatch", "cache_type_k", "flash_attention")}
        print(f"{name:20} {brief} measured {measured >> 20} MB, estimated {fit.total_bytes >> 20} MB, {error:+.1%}")
    if errors:
        mean = sum(abs(error) for error in errors) / len(errors)
        print(
            f"n={len(errors)}  mean |error| {mean:.1%}  worst under {min(errors):+.1%}  worst over {max(errors):+.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--launches", type=int, default=20, help="for each model")
    parser.add_argument("--models", default="smollm2-135m,qwen2.5-coder-0.5b")
    given = parser.parse_args()
    lines = given.out.read_text().splitlines() if given.out.is_file() else []
    rows = [json.loads(line) for line in lines]
    known = {(row["model"], json.dumps(row["settings"], sort_keys=True)) for row in rows}
    with Guardian() as guardian, tempfile.TemporaryDirectory() as folder, given.out.open("a") as out:
        for point, name in itertools.product(spread(given.launches), given.models.split(",")):
            if (name, json.dumps(complete(point), sort_keys=True)) in known:
                continue
            row = asyncio.run(measure(name, point, guardian, Path(folder)))
            out.write(json.dumps(row) + "\n")
            out.flush()
            rows.append(row)
            print(json.dumps({"model": name, **point, "peak": row.get("peak"), "error": row.get("error")}), flush=True)
    compare(rows)


if __name__ == "__main__":
    main()
