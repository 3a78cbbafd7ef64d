"""The script of a fake engine: what goes wrong, when, and what its log says then. Read from one JSON file.

Fields, all optional: ``load_s``; ``load_log`` (lines written while loading); ``memory_mib`` and ``gpu_memory_mib``
(``[[second, MiB], …]`` corners, held from one to the next); ``memory_factor`` (take this share of the
memory the model computes); ``memory_limit_mib`` (a launch that computes more dies of it);
``on_term`` (``exit``, ``ignore`` or ``slow:SECONDS``); ``grandchild`` (``none``, ``plain``, ``ignores_term``: a process
that left our session); ``port`` (``free``, ``stolen``); ``faults`` (``[{"at": …, "do": …}]``, at ``load``,
``seconds:S``, ``request:N`` or ``token:N`` do ``exit:CODE``, ``signal:NAME``, ``oom:DIALECT``, ``hang``,
``freeze:SECONDS`` or ``log:TEXT``); ``refuse`` (``{"status": 429, "first": 1, "count": 2, "retry_after": 1}``);
``stream`` (names of ``STREAM_ODDITIES``) and ``stream_at`` (from which token); ``timing`` (``{"ttft_ms": …, "itl_ms":
…, "tokens": …}`` or ``{"at_ms": [...]}``): exact times in place of computed ones; ``wrong_every`` (each n-th answer is
spoilt); ``accuracy`` (prompt form → share); ``remembers`` (prompts are cached by whole messages, under the
``cache_salt`` of their request, until ``/flush_cache``); ``lingers`` (for how many steps a request is still worked on
whose client has gone).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

STREAM_ODDITIES = (
    "split_utf8",
    "slow_drip",
    "malformed",
    "early_eof",
    "error_event",
    "no_done",
    "no_usage",
    "crlf",
    "comments",
    "glued",
    "empty_deltas",
    "reasoning",
    "endless",
)
FINAL_WORDS = {
    "llamacpp": (
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 4294967296\n"
        "llama_kv_cache: failed to allocate buffer for kv cache\n"
        "llama_init_from_model: failed to initialize the context: failed to initialize memory module\n"
        "srv    load_model: failed to load model, 'model.gguf'\n"
        "srv          init: exiting due to model loading error"
    ),
    "llamacpp_cuda": (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 5120.00 MiB on device 0: "
        "cudaMalloc failed: out of memory\n"
        "alloc_tensor_range: failed to allocate CUDA0 buffer of size 5368709120\n"
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer\n"
        "srv    load_model: failed to load model, 'model.gguf'"
    ),
    "vllm": (
        "ERROR [core.py:1104] EngineCore failed to start.\n"
        "ERROR [core.py:1104] ValueError: No available memory for the cache blocks. "
        "Try increasing `gpu_memory_utilization` when initializing the engine.\n"
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    ),
    "sglang": (
        "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
        "Current value: self.server_args.mem_fraction_static=0.88"
    ),
    "torch": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. "
        "GPU 0 has a total capacity of 23.64 GiB of which 1.21 GiB is free."
    ),
}
"""What real engines say last when memory runs out, by dialect."""


class ScenarioError(Exception):
    """The scenario file is wrong; the text says how."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong: when (``load``, ``seconds``, ``request`` or ``token`` number) and what happens."""

    when: str
    number: float
    deed: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A parsed script; the default one is an engine that behaves."""

    load_s: float = 0.0
    load_log: tuple[str, ...] = ()
    memory_mib: tuple[tuple[float, float], ...] = ()
    gpu_memory_mib: tuple[tuple[float, float], ...] = ()
    memory_factor: float = 0.0
    memory_limit_mib: float | None = None
    on_term: str = "exit"
    grandchild: str = "none"
    port: str = "free"
    faults: tuple[Fault, ...] = ()
    refuse: dict[str, float] = field(default_factory=dict)
    stream: tuple[str, ...] = ()
    stream_at: int = 3
    timing: dict[str, Any] = field(default_factory=dict)
    wrong_every: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    remembers: bool = False
    lingers: int = 0

    def due(self, when: str, number: float = 0.0) -> tuple[Fault, ...]:
        """The faults of this moment."""
        return tuple(fault for fault in self.faults if fault.when == when and fault.number == number)

    def token_times_s(self, tokens: int) -> list[float] | None:
        """Seconds from the request to each of ``tokens`` tokens where the script fixes them, else None."""
        if not self.timing:
            return None
        fixed = self.timing.get("at_ms")
        if fixed is not None:
            return [moment / 1000.0 for moment in fixed]
        first, gap = (float(self.timing.get(name, 0.0)) / 1000.0 for name in ("ttft_ms", "itl_ms"))
        return [first + gap * index for index in range(int(self.timing.get("tokens", tokens)))]


def read_scenario(path: Path | None) -> Scenario:
    """The scenario in a JSON file; None gives the one that behaves. Raises ScenarioError."""
    if path is None:
        return Scenario()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScenarioError(f"scenario {path}: {error}") from None
    if not isinstance(raw, dict):
        raise ScenarioError(f"scenario {path}: expected a JSON object")
    unknown = sorted(set(raw) - {one.name for one in fields(Scenario)})
    if unknown:
        raise ScenarioError(f"scenario {path}: unknown fields {', '.join(unknown)}")
    odd = sorted(set(raw.get("stream", ())) - set(STREAM_ODDITIES))
    if odd:
        raise ScenarioError(f"scenario {path}: unknown stream oddities {', '.join(odd)}")
    for name in ("load_log", "stream"):
        raw[name] = tuple(raw.get(name, ()))
    for name in ("memory_mib", "gpu_memory_mib"):
        raw[name] = tuple((float(second), float(mib)) for second, mib in raw.get(name, ()))
    raw["faults"] = tuple(_fault(one) for one in raw.get("faults", ()))
    return Scenario(**raw)


def _fault(raw: dict[str, str]) -> Fault:
    when, _, number = str(raw.get("at", "")).partition(":")
    deed, _, detail = str(raw.get("do", "")).partition(":")
    if when not in ("load", "seconds", "request", "token"):
        raise ScenarioError(f"fault at {raw.get('at')!r}: expected load, seconds:S, request:N or token:N")
    if deed not in ("exit", "signal", "oom", "hang", "freeze", "log"):
        raise ScenarioError(f"fault {raw.get('do')!r}: expected exit, signal, oom, hang, freeze or log")
    if deed == "oom" and detail not in FINAL_WORDS:
        raise ScenarioError(f"fault oom:{detail}: expected one of {', '.join(FINAL_WORDS)}")
    return Fault(when=when, number=float(number or 0), deed=deed, detail=detail)


def level_at(curve: tuple[tuple[float, float], ...], seconds: float) -> float:
    """The value of a stepped curve at a moment: that of the last corner passed, 0 before the first."""
    level = 0.0
    for moment, value in curve:
        if moment <= seconds:
            level = value
    return level
