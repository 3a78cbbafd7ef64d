"""Broken files of every kind a user may hand us: each is read or refused in one sentence, quickly and in little memory.

    python benchmarks/input_fuzz.py --files 10000 --headers 2000 --out FILE     # CI runs 500 and 200

``--files`` are settings, .env files, model files, old single-file settings and datasets (JSON Lines, JSON, CSV, TSV);
``--headers`` are GGUF, safetensors and config.json. Each is a sound file with a few changes: bits, cuts, repeats,
foreign bytes, absurd numbers, deep nesting, wrong types, unknown and doubled keys. They are read by the very functions
the commands use, in a process whose peak memory is told; a file that takes longer than 10 s counts as a hang.
The specification: no traceback, no hang, less than 256 MB, refused in less than 2 s. Exit code 1 where one is missed.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmopt.config.models import ModelConfig, ModelConfigManager
from llmopt.config.settings import load_settings
from llmopt.config.v1 import convert
from llmopt.config.v1_file import parse_v1
from llmopt.errors import LlmoptError
from llmopt.messages import set_language
from llmopt.models.catalogue import all_models
from llmopt.models.metadata import read_model
from llmopt.paths import Workspace
from llmopt.workload.datasets import dataset_names, load_dataset

HANG_S = 10.0
SLOW_S = 2.0
MEMORY_MB = 256
BATCH = 250
WEIRD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        10**30,
        1e308,
        -0.0,
        "",
        " ",
        "\0",
        "\u202e",
        "한" * 3000,
        "x" * 20_000,
        "../../etc/passwd",
    ),
    *([], {}, [[]], {"": {}}, [None] * 50, {"a": {"b": {"c": [1, {"d": None}]}}}, "NaN", "1e999", "$(reboot)", "𝟙²½"),
)
PIECES = (
    *(b"{", b"}", b"[", b"]", b'"', b"'", b",", b":", b"\\", b"\\u", b"\\ud800", b"\0", b"\xff\xfe", b"\xef\xbb\xbf"),
    *(
        b"[" * 3000,
        b'{"a":' * 2000,
        b"9" * 5000,
        b"-" * 50,
        b"1e999",
        b"NaN",
        b"Infinity",
        b"\r\n",
        b"\n" * 500,
        b"\x1a",
    ),
    *(
        "한국어".encode("cp949"),
        "🙂".encode(),
        b"\xc3\x28",
        b"#",
        b"=",
        b"export ",
        b'"""',
        b"\t" * 100,
        b"A" * 100_000,
    ),
)

SETTINGS = {"lang": "ko", "trials": 12, "streams": 4, "seed": 1, "timeout": 60.0, "model": "m", "method": "random"}
DOTENV = "LLMOPT_TRIALS=12\nexport HF_HOME='/data/hub'\n# a comment\nOMP_NUM_THREADS=4\nLLMOPT_LANG=\"ko\"\n"
V1 = {
    "model_name": "qwen2.5-7b", "model_path": "Qwen/Qwen2.5-7B-Instruct", "model_type": "huggingface",
    "device": "cuda:0", "max_length": 512, "batch_size": 4, "temperature": 0.7, "top_p": 0.9,
    "n_trials": 50, "load_in_4bit": True,
    "optimization": {"n_trials": 30, "timeout": 600}, "models": {"a": {"path": "b", "type": "vllm"}},
}  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {
        "question": f"{n} 더하기 {n + 1}의 값은?",
        "answer": str(2 * n + 1),
        "level": n % 3,
        "choices": [str(2 * n + 1), "0", "-1"],
    }
    for n in range(12)
]
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 1000, "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
    "rope_scaling": {"type": "yarn", "factor": 4.0}, "sliding_window": 512, "quantization_config": {"bits": 4},
}  # fmt: skip


def model_file() -> Any:
    """A model file as the tool itself writes it."""
    with tempfile.TemporaryDirectory() as name:
        manager = ModelConfigManager()
        manager.add_config("mine", ModelConfig(name="mine", model_path="Qwen/Qwen2.5-7B-Instruct", revision="main"))
        path = Path(name) / "models.json"
        manager.save_to_file(path)
        return json.loads(path.read_text(encoding="utf-8"))


def table(separator: str) -> bytes:
    """The rows as CSV or TSV."""
    lines = [separator.join(("question", "answer", "level"))]
    lines += [separator.join((row["question"], row["answer"], str(row["level"]))) for row in ROWS]
    return "\n".join(lines).encode()


def gguf() -> bytes:
    """A small whole GGUF file: architecture, sizes, a vocabulary, two tensors."""

    def text(word: str) -> bytes:
        return struct.pack("<Q", len(word.encode())) + word.encode()

    numbers = {"block_count": 2, "embedding_length": 64, "attention.head_count": 4, "context_length": 4096}
    values = [text("general.architecture") + struct.pack("<I", 8) + text("qwen2")]
    values += [text(f"qwen2.{name}") + struct.pack("<II", 4, number) for name, number in numbers.items()]
    words = b"".join(text(f"token{n}") for n in range(200))
    values.append(text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 200) + words)
    tensors = b""
    for number in range(2):
        tensors += text(f"blk.{number}.w") + struct.pack("<IQQIQ", 2, 64, 64, 0, number * 64 * 64 * 4)
    out = b"GGUF" + struct.pack("<IQQ", 3, 2, len(values)) + b"".join(values) + tensors
    return out + b"\0" * (-len(out) % 32) + b"\0" * (2 * 64 * 64 * 4)


def safetensors() -> bytes:
    """A small whole safetensors file."""
    header = {
        f"layer.{n}": {"dtype": "BF16", "shape": [8, 8], "data_offsets": [128 * n, 128 * (n + 1)]} for n in range(6)
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * (128 * 6)


# ── changing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def weird(source: random.Random) -> Any:
    """A value nobody expects, a copy of its own."""
    return copy.deepcopy(source.choice(WEIRD))


def bent(value: Any, source: random.Random) -> Any:
    """A JSON value with one node replaced, added, removed, doubled or buried."""
    where, key = value, None
    while isinstance(where, (dict, list)) and where and source.random() < 0.8:
        parent, key = where, source.choice(list(where) if isinstance(where, dict) else range(len(where)))
        where = parent[key]
        if source.random() < 0.5:
            parent[key] = weird(source)
            return value
    if isinstance(where, dict):
        where[source.choice(["unknown", "trails", "model_pth", "", "\0", "x" * 5000])] = weird(source)
    elif isinstance(where, list):
        where.extend(weird(source) for _ in range(source.randint(1, 4)))
    return source.choice([value, value, value, [value], {"models": value}, weird(source)])


def broken(data: bytes, source: random.Random) -> bytes:
    """Bytes with one to four changes."""
    out = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 4))):
        at = source.randrange(len(out) + 1)
        kind = source.randrange(6)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            out[at:at] = source.choice(PIECES)
        elif kind == 2:
            del out[at : at + source.randint(1, 40)]
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = out[source.randrange(len(out) + 1) :][:200]
        else:
            out[at : at + 8] = struct.pack("<Q", source.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
    return bytes(out)


def changed(seed_value: Any, source: random.Random) -> bytes:
    """A broken file of a kind: JSON kinds are bent, broken, or both."""
    if isinstance(seed_value, bytes):
        return broken(seed_value, source)
    value, how = json.loads(json.dumps(seed_value)), source.randrange(3)
    if how != 0:
        for _ in range(source.choice((1, 1, 2))):
            value = bent(value, source)
    text = json.dumps(value, ensure_ascii=source.random() < 0.5, indent=source.choice([None, 2])).encode(
        "utf-8", "replace"
    )
    return text if how == 1 else broken(text, source)


def as_bytes(seed_value: Any) -> bytes:
    """The sound file."""
    return seed_value if isinstance(seed_value, bytes) else json.dumps(seed_value).encode()


def lines(rows: Any) -> bytes:
    """Rows as JSON Lines."""
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────


def placed(folder: Path, name: str, data: bytes) -> Path:
    """The file on disk."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read_settings(folder: Path, data: bytes) -> None:
    placed(folder, "config/settings.json", data)
    load_settings(Workspace(root=folder))


def read_dotenv(folder: Path, data: bytes) -> None:
    placed(folder, ".env", data)
    load_settings(Workspace(root=folder))


def read_models(folder: Path, data: bytes) -> None:
    placed(folder, "config/models.json", data)
    all_models(Workspace(root=folder))


def read_v1(folder: Path, data: bytes) -> None:
    path = placed(folder, "llm_config.json", data)
    convert(parse_v1(path.read_bytes(), str(path)), datasets=dataset_names())


def read_dataset(suffix: str) -> Callable[[Path, bytes], None]:
    def read(folder: Path, data: bytes) -> None:
        load_dataset(placed(folder, f"data.{suffix}", data), workspace=Workspace(root=folder))

    return read


def read_weights(name: str) -> Callable[[Path, bytes], None]:
    def read(folder: Path, data: bytes) -> None:
        placed(folder, "config.json", json.dumps(CONFIG).encode())
        path = placed(folder, name, data)
        read_model(path if path.suffix == ".gguf" else folder)

    return read


def read_config(folder: Path, data: bytes) -> None:
    placed(folder, "model.safetensors", safetensors())
    placed(folder, "config.json", data)
    read_model(folder)


Reader = Callable[[Path, bytes], None]
FILES: Mapping[str, tuple[Callable[[], Any], Reader]] = {
    "settings": (lambda: SETTINGS, read_settings),
    ".env": (DOTENV.encode, read_dotenv),
    "models": (model_file, read_models),
    "v1 settings": (lambda: V1, read_v1),
    "dataset .jsonl": (lambda: lines(ROWS), read_dataset("jsonl")),
    "dataset .json": (lambda: ROWS, read_dataset("json")),
    "dataset .csv": (lambda: table(","), read_dataset("csv")),
    "dataset .tsv": (lambda: table("\t"), read_dataset("tsv")),
}
HEADERS: Mapping[str, tuple[Callable[[], Any], Reader]] = {
    "gguf": (gguf, read_weights("model.gguf")),
    "safetensors": (safetensors, read_weights("model.safetensors")),
    "config.json": (lambda: CONFIG, read_config),
}


def one(kind: str, number: int) -> tuple[str, float, str]:
    """Read one file: how it ended, in which time, and the traceback or sentence."""
    make, read = {**FILES, **HEADERS}[kind]
    source = random.Random(f"{kind} {number}")
    data = changed(make(), source)
    set_language("ko" if number % 2 else "en")
    with tempfile.TemporaryDirectory() as name:
        began_s = time.perf_counter()
        try:
            read(Path(name), data)
            ended, said = "read", ""
        except LlmoptError as error:
            ended, said = "refused", str(error)
        except Exception:  # noqa: BLE001 - the boundary that is measured
            ended, said = "traceback", traceback.format_exc()
        return ended, time.perf_counter() - began_s, said


def work(kind: str, first: int, count: int) -> None:
    """A worker: one line for each file, before and after."""
    for number in range(first, first + count):
        print(json.dumps({"number": number}), flush=True)
        ended, seconds, said = one(kind, number)
        row = {"number": number, "ended": ended, "seconds": round(seconds, 4)}
        print(
            json.dumps({**row, **({"said": said[-1500:]} if ended == "traceback" else {"letters": len(said)})}),
            flush=True,
        )
    status = Path("/proc/self/status")
    peak = (
        next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), "")
        if status.exists()
        else ""
    )
    print(json.dumps({"peak_mb": int(peak.split()[1]) / 1024 if peak else None}), flush=True)


# ── measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run_batch(kind: str, first: int, count: int) -> tuple[list[dict[str, Any]], float | None]:
    """The rows of one worker process and its peak memory; a hang ends the worker and counts the file it hung at."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", kind, str(first), str(count)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    rows, begun, peak = [], first, None
    moved = time.monotonic()
    hung = threading.Event()

    def watch() -> None:
        while process.poll() is None:
            if time.monotonic() - moved > HANG_S:
                hung.set()
                process.kill()
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    for line in process.stdout:
        moved = time.monotonic()
        row = json.loads(line)
        if "ended" in row:
            rows.append(row)
        elif "number" in row:
            begun = row["number"]
        else:
            peak = row["peak_mb"]
    code = process.wait()
    if len(rows) < count:
        rows.append({"number": begun, "ended": "hang" if hung.is_set() else f"died {code}", "seconds": HANG_S})
        following, other = (
            run_batch(kind, begun + 1, first + count - begun - 1) if begun + 1 < first + count else ([], None)
        )
        rows, peak = rows + following, max(filter(None, (peak, other)), default=None)
    return rows, peak


def run_kinds(kinds: Mapping[str, Any], count: int) -> dict[str, dict[str, Any]]:
    """``count`` files spread evenly over the kinds."""
    found = {}
    for place, kind in enumerate(kinds):
        share = count // len(kinds) + (place < count % len(kinds))
        rows: list[dict[str, Any]] = []
        peaks: list[float] = []
        for first in range(0, share, BATCH):
            more, peak = run_batch(kind, first, min(BATCH, share - first))
            rows += more
            peaks += [peak] if peak is not None else []
        ended = Counter(row["ended"] for row in rows)
        times = sorted(row["seconds"] for row in rows)
        found[kind] = {
            "n": len(rows),
            "ended": dict(ended),
            "silent_refusals": sum(row["ended"] == "refused" and not row["letters"] for row in rows),
            "slowest_s": times[-1] if times else 0.0,
            "p99_s": times[int(0.99 * (len(times) - 1))] if times else 0.0,
            "peak_mb": round(max(peaks), 1) if peaks else None,
            "bad": [row for row in rows if row["ended"] not in {"read", "refused"} or row["seconds"] >= SLOW_S][:20],
        }
        print(kind, {name: value for name, value in found[kind].items() if name != "bad"}, file=sys.stderr, flush=True)
    return found


def missed(result: dict[str, Any]) -> list[str]:
    """The figures of the specification that this result does not reach."""
    found = []
    for kind, row in {**result.get("files", {}), **result.get("headers", {})}.items():
        found += [f"{kind}: {word}" for word in row["ended"] if word not in {"read", "refused"}]
        found += [f"{kind}: refused without a word"] if row["silent_refusals"] else []
        found += [f"{kind}: slow"] if row["slowest_s"] >= SLOW_S else []
        found += [f"{kind}: memory"] if (row["peak_mb"] or 0) >= MEMORY_MB else []
    return found


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--headers", type=int, default=200)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], int(options.worker[1]), int(options.worker[2]))
        return 0
    for make, read in {
        **FILES,
        **HEADERS,
    }.values():  # a sound file is read, else everything would be refused for one dull reason
        with tempfile.TemporaryDirectory() as name:
            read(Path(name), as_bytes(make()))
    result: dict[str, Any] = {"python": platform.python_version(), "system": platform.system()}
    result["files"] = run_kinds(FILES, options.files) if options.files else {}
    result["headers"] = run_kinds(HEADERS, options.headers) if options.headers else {}
    result["missed"] = missed(result)
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
