"""A ``llama-server`` made of the ``xllamacpp`` wheel: the same command line, so plan and printed command are one.

Stand-alone: started by path, imports nothing of ours. Standard output carries one JSON object a line (``resolved``
before the model is loaded, ``ready`` after); llama.cpp's own log goes to standard error. Exit codes: 0 stopped, 1 did
not start, 2 wrong command line. The key comes from a file or standard input (``--api-key-file /dev/stdin``), never
from argv.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
SPECULATION_TYPES = (
    *("none", "draft-simple", "draft-eagle3"),
    *("ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache"),
)
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""The tensors of mixture-of-experts layers, as llama.cpp's own ``--cpu-moe`` names them."""
ON_OFF = {"on": True, "off": False}


class CommandLineError(Exception):
    """The command line is wrong; the text says how."""


@dataclass(frozen=True)
class Flag:
    """One option of ``llama-server``: its spellings, how its text is read, and where the value goes."""

    names: tuple[str, ...]
    target: str
    """A dotted attribute of ``CommonParams``, or a word that ``build_params`` handles."""
    read: Callable[[str], Any] | None = str
    """None where the option takes no value and means ``constant``."""
    constant: Any = True


def integer(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """A reader of whole numbers between ``low`` and ``high``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise CommandLineError(f"expected a whole number, got {text!r}") from None
        if not low <= value <= high:
            raise CommandLineError(f"expected a whole number from {low} to {high}, got {value}")
        return value

    return read


def decimal(text: str) -> float:
    """Read a number with a fraction."""
    try:
        return float(text)
    except ValueError:
        raise CommandLineError(f"expected a number, got {text!r}") from None


def one_of(*allowed: str) -> Callable[[str], str]:
    """A reader of one word among ``allowed``."""

    def read(text: str) -> str:
        if text not in allowed:
            raise CommandLineError(f"expected one of {', '.join(allowed)}; got {text!r}")
        return text

    return read


def switch(text: str) -> bool:
    """Read ``on`` or ``off``."""
    return ON_OFF[one_of(*ON_OFF)(text)]


def several(*allowed: str) -> Callable[[str], tuple[str, ...]]:
    """A reader of comma-separated words among ``allowed``."""
    word = one_of(*allowed)
    return lambda text: tuple(word(part.strip()) for part in text.split(","))


def words(text: str) -> list[str]:
    """Read comma-separated words, dropping empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def layers(text: str) -> int:
    """Read ``--gpu-layers``: a number, ``auto`` (-1) or ``all`` (-2), as llama.cpp numbers them."""
    return {"auto": -1, "all": -2}.get(text) or integer(-2, 65536)(text)


def proportions(text: str) -> list[float]:
    """Read ``3,1``-like shares of the devices."""
    return [decimal(part) for part in text.replace("/", ",").split(",")]


def json_object(text: str) -> dict[str, str]:
    """Read a JSON object; every value stays JSON text, as llama.cpp wants it."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandLineError(f"expected a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise CommandLineError("expected a JSON object")
    return {str(name): json.dumps(part) for name, part in value.items()}


def on(target: str, *names: str) -> Flag:
    """An option without a value that turns ``target`` on."""
    return Flag(names, target, read=None)


def off(target: str, *names: str) -> Flag:
    """An option without a value that turns ``target`` off."""
    return Flag(names, target, read=None, constant=False)


SIZE = integer(0)
COUNT = integer(1, 65536)


def ngram_flags(kind: str) -> tuple[Flag, ...]:
    """The sizes of one n-gram drafter that looks up ``n`` tokens and drafts ``m``."""
    target = "speculative." + kind.replace("-", "_")
    return (
        Flag((f"--spec-{kind}-size-n",), f"{target}.size_n", integer(1, 1024)),
        Flag((f"--spec-{kind}-size-m",), f"{target}.size_m", integer(1, 1024)),
        Flag((f"--spec-{kind}-min-hits",), f"{target}.min_hits", integer(1, 1024)),
    )


FLAGS: tuple[Flag, ...] = (
    Flag(("-m", "--model"), "model.path"),
    Flag(("-a", "--alias"), "alias", words),
    Flag(("--host",), "hostnames", words),
    Flag(("--port",), "port", integer(0, 65535)),
    Flag(("--api-key-file",), "api_key_file"),
    Flag(("--cors-origins",), "cors_origins"),
    on("cors_credentials", "--cors-credentials"),
    off("cors_credentials", "--no-cors-credentials"),
    Flag(("-t", "--threads"), "cpuparams.n_threads", integer(-1, 512)),
    Flag(("-tb", "--threads-batch"), "cpuparams_batch.n_threads", integer(-1, 512)),
    Flag(("--threads-http",), "n_threads_http", integer(-1, 4096)),
    Flag(("--poll",), "cpuparams.poll", integer(0, 100)),
    Flag(("--poll-batch",), "cpuparams_batch.poll", integer(0, 100)),
    Flag(("--prio",), "cpuparams.priority", integer(-1, 3)),
    Flag(("--numa",), "numa", one_of("distribute", "isolate", "numactl")),
    Flag(("-np", "--parallel"), "n_parallel", integer(-1, 4096)),
    Flag(("-b", "--batch-size"), "n_batch", COUNT),
    Flag(("-ub", "--ubatch-size"), "n_ubatch", COUNT),
    Flag(("-c", "--ctx-size"), "n_ctx", SIZE),
    Flag(("-n", "--predict", "--n-predict"), "n_predict", integer(-2)),
    Flag(("--keep",), "n_keep", integer(-1)),
    Flag(("-ctk", "--cache-type-k"), "cache_type_k", one_of(*KV_TYPES)),
    Flag(("-ctv", "--cache-type-v"), "cache_type_v", one_of(*KV_TYPES)),
    Flag(("-fa", "--flash-attn"), "flash_attn_type", one_of("on", "off", "auto")),
    on("kv_unified", "-kvu", "--kv-unified"),
    off("kv_unified", "-no-kvu", "--no-kv-unified"),
    on("swa_full", "--swa-full"),
    Flag(("-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"), "n_ctx_checkpoints", SIZE),
    on("cache_prompt", "--cache-prompt"),
    off("cache_prompt", "--no-cache-prompt"),
    Flag(("--cache-reuse",), "n_cache_reuse", SIZE),
    Flag(("-cram", "--cache-ram"), "cache_ram_mib", integer(-1)),
    on("cache_idle_slots", "--cache-idle-slots"),
    off("cache_idle_slots", "--no-cache-idle-slots"),
    on("cont_batching", "-cb", "--cont-batching"),
    off("cont_batching", "-nocb", "--no-cont-batching"),
    on("ctx_shift", "--context-shift"),
    off("ctx_shift", "--no-context-shift"),
    on("warmup", "--warmup"),
    off("warmup", "--no-warmup"),
    Flag(("-sps", "--slot-prompt-similarity"), "slot_prompt_similarity", decimal),
    Flag(("--slot-save-path",), "slot_save_path"),
    Flag(("-fit", "--fit"), "fit_params", switch),
    Flag(("--load-mode",), "load_mode", one_of("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")),
    Flag(("--mlock",), "load_mode", read=None, constant="mmap+mlock"),
    Flag(("--no-mmap",), "load_mode", read=None, constant="none"),
    Flag(("-ngl", "--gpu-layers", "--n-gpu-layers"), "n_gpu_layers", layers),
    Flag(("-sm", "--split-mode"), "split_mode", one_of("none", "layer", "row", "tensor")),
    Flag(("-ts", "--tensor-split"), "tensor_split", proportions),
    Flag(("-mg", "--main-gpu"), "main_gpu", SIZE),
    on("cpu_moe", "-cmoe", "--cpu-moe"),
    Flag(("-ncmoe", "--n-cpu-moe"), "n_cpu_moe", SIZE),
    off("repack", "-nr", "--no-repack"),
    Flag(("--spec-type",), "speculation", several(*SPECULATION_TYPES)),
    Flag(("-md", "--spec-draft-model", "--model-draft"), "speculative.draft.mparams.path"),
    Flag(("--spec-draft-n-max",), "speculative.draft.n_max", integer(1, 1024)),
    Flag(("--spec-draft-n-min",), "speculative.draft.n_min", integer(0, 1024)),
    Flag(("--spec-draft-ngl",), "speculative.draft.n_gpu_layers", layers),
    *ngram_flags("ngram-simple"),
    *ngram_flags("ngram-map-k"),
    *ngram_flags("ngram-map-k4v"),
    Flag(("--spec-ngram-mod-n-match",), "speculative.ngram_mod.n_match", integer(1, 1024)),
    Flag(("--spec-ngram-mod-n-min",), "speculative.ngram_mod.n_min", integer(0, 1024)),
    Flag(("--spec-ngram-mod-n-max",), "speculative.ngram_mod.n_max", integer(0, 1024)),
    Flag(("-s", "--seed"), "sampling.seed", integer(-1, 2**32 - 1)),
    Flag(("--chat-template",), "chat_template"),
    Flag(("--chat-template-file",), "chat_template_file"),
    Flag(("--chat-template-kwargs",), "default_template_kwargs", json_object),
    on("use_jinja", "--jinja"),
    off("use_jinja", "--no-jinja"),
    Flag(("--reasoning-format",), "reasoning_format", one_of("none", "deepseek", "deepseek-legacy", "auto")),
    Flag(("--reasoning-budget",), "sampling.reasoning_budget_tokens", integer(-1)),
    on("endpoint_metrics", "--metrics"),
    on("endpoint_slots", "--slots"),
    off("endpoint_slots", "--no-slots"),
    on("endpoint_props", "--props"),
    off("ui", "--no-ui", "--no-webui"),
    Flag(("-to", "--timeout"), "timeout_read", SIZE),
    Flag(("--sse-ping-interval",), "sse_ping_interval", integer(-1)),
    Flag(("-lv", "--verbosity", "--log-verbosity"), "verbosity", integer(0, 5)),
    on("offline", "--offline"),
)


def parse(argv: Sequence[str]) -> dict[str, Any]:
    """Targets and values of a ``llama-server`` command line, the last one winning; raises CommandLineError."""
    by_name = {name: flag for flag in FLAGS for name in flag.names}
    values: dict[str, Any] = {}
    rest = list(argv)
    while rest:
        name = rest.pop(0)
        flag = by_name.get(name)
        if flag is None:
            raise CommandLineError(f"unknown option {name!r}{_near(name, by_name)}")
        if flag.read is None:
            values[flag.target] = flag.constant
            continue
        if not rest:
            raise CommandLineError(f"option {name} needs a value")
        try:
            values[flag.target] = flag.read(rest.pop(0))
        except CommandLineError as problem:
            raise CommandLineError(f"option {name}: {problem}") from None
    if not values.get("model.path"):
        raise CommandLineError("option -m MODEL is missing")
    return values


def _near(name: str, known: dict[str, Flag]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def physical_cores() -> int:
    """What llama.cpp takes for ``-t`` when none is given: physical cores of the host, by sibling masks where it can."""
    masks = set()
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings"):
        with contextlib.suppress(OSError):
            masks.add(path.read_text())
    if masks:
        return len(masks)
    logical = os.cpu_count() or 1
    return logical if logical <= 4 else logical // 2  # noqa: PLR2004 - llama.cpp's own rule


def resolve(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with llama.cpp's own automatic choices written out, as far as they are known before loading."""
    resolved = {"cpuparams.n_threads": -1, "cpuparams_batch.n_threads": -1, "n_parallel": -1, **values}
    if resolved["cpuparams.n_threads"] <= 0:
        resolved["cpuparams.n_threads"] = physical_cores()
    if resolved["cpuparams_batch.n_threads"] <= 0:
        resolved["cpuparams_batch.n_threads"] = resolved["cpuparams.n_threads"]
    if resolved["n_parallel"] < 0:
        resolved.update(n_parallel=4, kv_unified=True)  # what the server does with "auto"
    elif resolved["n_parallel"] == 0:
        raise CommandLineError("option --parallel: 0 slots serve nobody")
    return resolved


def read_keys(path: str) -> list[str]:
    """The keys in a file or on standard input, one a line, ``#`` starts a comment; raises CommandLineError."""
    try:
        text = sys.stdin.read() if path in ("-", "/dev/stdin") else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise CommandLineError(f"option --api-key-file: {error.strerror}: {path}") from None
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not keys:
        raise CommandLineError("option --api-key-file: no key in it")
    return keys


def assign(params: Any, target: str, value: Any) -> None:
    """Set the dotted attribute ``target`` of ``params``."""
    *owners, name = target.split(".")
    for owner in owners:
        params = getattr(params, owner)
    setattr(params, name, value)


def assignments(target: str, value: Any, x: Any) -> dict[str, Any]:
    """What one parsed option means in attributes of ``CommonParams``; ``x`` is the ``xllamacpp`` module."""
    translations: dict[str, Callable[[Any], dict[str, Any]]] = {
        "alias": lambda v: {"model_alias": set(v)},
        "api_key_file": lambda v: {"api_keys": read_keys(v)},
        "cache_type_k": lambda v: {"cache_type_k": x.ggml_type[f"GGML_TYPE_{v.upper()}"]},
        "cache_type_v": lambda v: {"cache_type_v": x.ggml_type[f"GGML_TYPE_{v.upper()}"]},
        "chat_template_file": lambda v: {"chat_template": Path(v).read_text(encoding="utf-8")},
        "cors_origins": lambda v: {"cors_origins": v, "cors_origins_explicit": True},
        "cpu_moe": lambda _: {"tensor_buft_overrides": rf"{EXPERTS}=CPU"},
        "cpuparams.priority": lambda v: {"cpuparams.priority": x.ggml_sched_priority(v)},
        "flash_attn_type": lambda v: {"flash_attn_type": x.llama_flash_attn_type[_flash(v)]},
        "load_mode": lambda v: {"load_mode": x.llama_load_mode[_load_mode(v)]},
        "n_cpu_moe": lambda v: {"tensor_buft_overrides": ",".join(rf"blk\.{n}{EXPERTS}=CPU" for n in range(v))},
        "numa": lambda v: {"numa": x.ggml_numa_strategy[f"GGML_NUMA_STRATEGY_{v.upper()}"]},
        "reasoning_format": lambda v: {"reasoning_format": x.common_reasoning_format[_reasoning(v)]},
        "repack": lambda v: {"no_extra_bufts": not v},
        "sampling.seed": lambda v: {"sampling.seed": v % 2**32},
        "speculation": lambda v: {"speculative.types": [x.common_speculative_type[_drafter(word)] for word in v]},
        "split_mode": lambda v: {"split_mode": x.llama_split_mode[f"LLAMA_SPLIT_MODE_{v.upper()}"]},
        "tensor_split": lambda v: {"tensor_split": v + [0.0] * (len(x.CommonParams().tensor_split) - len(v))},
        "timeout_read": lambda v: {"timeout_read": v, "timeout_write": v},
    }
    translate = translations.get(target)
    return {target: value} if translate is None else translate(value)


def build_params(values: dict[str, Any]) -> Any:
    """The ``CommonParams`` of a parsed command line; raises CommandLineError for what this build does not offer."""
    import xllamacpp as x

    params = x.CommonParams()
    for target, value in values.items():
        try:
            for attribute, native in assignments(target, value, x).items():
                assign(params, attribute, native)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            raise CommandLineError(f"this build cannot take {target}={value!r}: {error}") from None
    return params


def _flash(word: str) -> str:
    return "LLAMA_FLASH_ATTN_TYPE_" + {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[word]


def _load_mode(word: str) -> str:
    return "LLAMA_LOAD_MODE_" + {"mmap+mlock": "MMAP_MLOCK", "dio": "DIRECT_IO"}.get(word, word.upper())


def _reasoning(word: str) -> str:
    return "COMMON_REASONING_FORMAT_" + {"deepseek-legacy": "DEEPSEEK_LEGACY"}.get(word, word.upper())


def _drafter(word: str) -> str:
    return "COMMON_SPECULATIVE_TYPE_" + word.upper().replace("-", "_")


def say(event: str, **facts: Any) -> None:
    """One JSON line on standard output."""
    print(json.dumps({"event": event, **facts}, ensure_ascii=False, default=str), flush=True)


def version() -> dict[str, Any]:
    """The wheel's version and what its build can do."""
    import xllamacpp as x

    devices = [{k: d[k] for k in ("name", "description", "memory_total")} for d in x.get_device_info()]
    features = [part.split("=")[0].split(":")[-1].strip() for part in x.get_system_info().split("|") if "= 1" in part]
    return {"version": x.__version__, "build": x.BUILD_INFO, "features": features, "devices": devices}


def serve(params: Any, resolved: dict[str, Any]) -> NoReturn:
    """Load the model and answer until SIGTERM or SIGINT; never returns."""
    import xllamacpp as x

    # a signal while loading simply ends us: the load holds the interpreter, and there is nothing to tidy yet
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    started_s = time.monotonic()
    try:
        server = x.Server(params)
    except (RuntimeError, ValueError, MemoryError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    stop = threading.Event()
    for wish in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wish, lambda *_: stop.set())
    say(
        "ready",
        address=server.listening_address,
        load_s=round(time.monotonic() - started_s, 3),
        slots=resolved["n_parallel"],
    )
    stop.wait()
    say("stopped")
    for host in params.hostnames:
        if host.endswith(".sock"):
            Path(host).unlink(missing_ok=True)
    # the server's destructor holds the interpreter and waits up to 30 s for clients that still read a stream; the
    # kernel takes everything back at once
    os._exit(0)


def main(argv: Sequence[str]) -> NoReturn:
    """The command line."""
    if list(argv) == ["--version"]:
        say("version", **version())
        sys.exit(0)
    try:
        resolved = resolve(parse(argv))
        params = build_params(resolved)
    except CommandLineError as problem:
        print(f"error: {problem}", file=sys.stderr, flush=True)
        sys.exit(2)
    shown = {name: value for name, value in resolved.items() if name != "api_key_file"}
    say("resolved", settings=shown, omp_wait_policy=os.environ.get("OMP_WAIT_POLICY"))
    serve(params, resolved)


if __name__ == "__main__":
    main(sys.argv[1:])
