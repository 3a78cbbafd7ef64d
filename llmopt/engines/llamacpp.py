"""llama.cpp: the embedded server of the wheel, described by ``llama-server``'s own command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any

from llmopt.engines import llamacpp_defaults as defaults
from llmopt.engines.base import SERVER_REQUEST_SETTINGS, RunFolder
from llmopt.engines.probing import worker
from llmopt.engines.sizing import (
    alias_of,
    doublings,
    launch_parameter,
    require,
    round_up,
    streams_of,
    usable_threads,
)
from llmopt.records import (
    Hardware,
    InferenceParams,
    Installation,
    LaunchPlan,
    ModelInfo,
    Parameter,
    Settings,
    Strategy,
    Task,
)

__all__ = ["LlamaCpp"]

LOOKUP_DRAFTERS = ("ngram-simple", "ngram-map-k")
SPECULATION = ("off", *LOOKUP_DRAFTERS, "ngram-mod", "ngram-cache")
QUANTISED_KV = ("q8_0", "q4_0")
KV_BLOCK = 32
"""Elements in a block of a quantised KV cache: a head's width must be a multiple."""
WAIT_ENV: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "active": {"OMP_WAIT_POLICY": "active"},
}
ALWAYS = (
    "threads",
    "threads_batch",
    "slots",
    "context",
    "kv_unified",
    "batch",
    "ubatch",
    "cache_type_k",
    "cache_type_v",
    "flash_attention",
    "speculation",
)
SOMETIMES = ("spec_lookup", "spec_draft", "wait_policy", "poll", "prefix_cache", "cache_reuse", "gpu_layers")
OPTIONS = {
    "threads": "--threads",
    "threads_batch": "--threads-batch",
    "poll": "--poll",
    "slots": "--parallel",
    "context": "--ctx-size",
    "batch": "--batch-size",
    "ubatch": "--ubatch-size",
    "cache_type_k": "--cache-type-k",
    "cache_type_v": "--cache-type-v",
    "flash_attention": "--flash-attn",
    "gpu_layers": "--gpu-layers",
}


class LlamaCpp:
    """llama.cpp's C++ server, embedded from the ``xllamacpp`` wheel."""

    name = "llamacpp"
    transport = "socket"
    needs_weights = True
    metric_names: Mapping[str, str] = {
        "running": "llamacpp:requests_processing",
        "waiting": "llamacpp:requests_deferred",
        "prompt_tokens": "llamacpp:prompt_tokens_total",
        "cached_tokens": "llamacpp:prompt_tokens_cached_total",
        "generation_tokens": "llamacpp:tokens_predicted_total",
        "draft_tokens": "llamacpp:spec_decode_num_draft_tokens_total",
        "accepted_tokens": "llamacpp:spec_decode_num_accepted_tokens_total",
        "decode_steps": "llamacpp:n_decode_total",
        "prompt_seconds": "llamacpp:prompt_seconds_total",
        "generation_seconds": "llamacpp:tokens_predicted_seconds_total",
    }

    default_sampling = InferenceParams(temperature=0.8, top_p=0.95, top_k=40, min_p=0.05)
    request_settings = SERVER_REQUEST_SETTINGS

    def installation(self) -> Installation:
        """The wheel's version, from its metadata: the library itself is loaded by the worker only."""
        try:
            version = metadata.version("xllamacpp")
        except metadata.PackageNotFoundError:
            return Installation(engine=self.name, available=False, why_not="engines.llamacpp_missing")
        command = (sys.executable, str(worker("llamacpp_server.py")))
        return Installation(engine=self.name, available=True, version=version, command=command, build="embedded")

    def supports(self, model: ModelInfo) -> str | None:
        """GGUF files only."""
        return None if model.format == "gguf" else "engines.needs_gguf"

    def parameters(self, model: ModelInfo, hardware: Hardware, task: Task) -> tuple[Parameter, ...]:
        """Threads from the usable cores, slots from the streams, context from what the slots need."""
        starts = (
            self.baseline(model, hardware, task),
            *(self.preset(model, hardware, task, strategy) for strategy in (None, *Strategy)),
        )

        def with_starts(name: str, values: Iterable[int]) -> list[int]:
            return [*values, *(int(start[name] or 0) for start in starts)]

        threads = with_starts("threads", (*doublings(1, usable_threads(hardware)), usable_threads(hardware)))
        slots = with_starts("slots", (*doublings(1, streams_of(task)), streams_of(task)))
        need = round_up(task.context_tokens, defaults.CONTEXT_UNIT)
        prompt = max(defaults.UBATCH, task.prompt_tokens * streams_of(task))
        kv_types = ("f16", *QUANTISED_KV) if _kv_quantisable(model) else ("f16",)
        parameters = [
            launch_parameter("threads", threads, ordinal=True),
            launch_parameter("threads_batch", [*threads, *with_starts("threads_batch", ())], ordinal=True),
            launch_parameter("slots", slots, ordinal=True),
            launch_parameter("context", with_starts("context", (need * count for count in slots)), ordinal=True),
            launch_parameter("kv_unified", (False, True)),
            launch_parameter(
                "batch", with_starts("batch", doublings(256, defaults.BATCH)), ordinal=True, changes_answers=True
            ),
            launch_parameter(
                "ubatch", with_starts("ubatch", doublings(64, min(prompt, 1024))), ordinal=True, changes_answers=True
            ),
            launch_parameter("cache_type_k", kv_types, changes_answers=True),
            launch_parameter("cache_type_v", kv_types, changes_answers=True),
            launch_parameter("flash_attention", ("on", "off"), changes_answers=True),
            launch_parameter("speculation", SPECULATION, changes_answers=True),
            launch_parameter(
                "spec_lookup",
                (4, 8, 12, 24),
                ordinal=True,
                changes_answers=True,
                only_if={"speculation": (*LOOKUP_DRAFTERS, "ngram-mod")},
            ),
            launch_parameter(
                "spec_draft",
                (8, 16, 48, 64),
                ordinal=True,
                changes_answers=True,
                only_if={"speculation": (*LOOKUP_DRAFTERS, "ngram-mod")},
            ),
        ]
        if defaults.OPENMP:
            parameters.append(launch_parameter("wait_policy", tuple(WAIT_ENV)))
        else:
            parameters.append(launch_parameter("poll", (0, defaults.POLL, 100), ordinal=True))
        if task.prefix_cache:
            caching = {"prefix_cache": (True,)}
            parameters.append(launch_parameter("prefix_cache", (True, False), changes_answers=True))
            parameters.append(
                launch_parameter("cache_reuse", (0, 256), ordinal=True, changes_answers=True, only_if=caching)
            )
        if defaults.offloads(hardware):
            everything = defaults.all_layers(model)
            parameters.append(launch_parameter("gpu_layers", (0, everything // 2, everything), ordinal=True))
        return tuple(parameters)

    def baseline(self, model: ModelInfo, hardware: Hardware, task: Task) -> Settings:
        """Plain ``llama-server -m MODEL``: see ``llamacpp_defaults.plain``."""
        return defaults.plain(model, hardware, task)

    def preset(self, model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> Settings:
        """The specification's table: see ``llamacpp_defaults.preset``."""
        return defaults.preset(model, hardware, task, strategy)

    def conflict(self, settings: Settings, model: ModelInfo, hardware: Hardware, task: Task) -> str | None:  # noqa: ARG002
        """The rules llama.cpp refuses, and those it would follow silently by changing a value."""
        slots, context, batch = (int(settings[name] or 0) for name in ("slots", "context", "batch"))
        kv_types = (settings["cache_type_k"], settings["cache_type_v"])
        unified = bool(settings["kv_unified"])
        at_once = min(slots, streams_of(task)) * task.context_tokens
        whole_model = context >= (model.context_length or defaults.CONTEXT)
        single = settings["threads"] == settings["threads_batch"] == 1
        rules = {
            "ubatch_over_batch": int(settings["ubatch"] or 0) > batch,
            "batch_over_context": batch > context,
            "slot_context": (context if unified else context // slots) < task.context_tokens,
            "shared_context": unified and context < at_once and not whole_model,
            "kv_needs_flash": kv_types[1] in QUANTISED_KV and settings["flash_attention"] == "off",
            "kv_block": any(kind in QUANTISED_KV for kind in kv_types) and not _kv_quantisable(model),
            "nobody_waits": single and settings.get("wait_policy", "default") != "default",
        }
        return next((f"engines.conflict_{rule}" for rule, broken in rules.items() if broken), None)

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """The embedded server under ``llama-server``'s options, none left to its own defaults."""
        require(settings, ALWAYS, SOMETIMES)
        endpoint = replace(run.endpoint, model=alias_of(model))
        host = ("--host", endpoint.socket_path) if endpoint.socket_path else ("--host", endpoint.host, "--port")
        where = host if endpoint.socket_path else (*host, str(endpoint.port))
        options = ("--model", model.path, "--alias", endpoint.model, *_options(settings))
        keyed = ("--api-key-file", "/dev/stdin") if endpoint.api_key else ()
        closed = ("--cors-origins", "localhost", "--no-cors-credentials", "--no-ui", "--offline")
        watched = ("--metrics", "--slots", "--seed", "0", "--threads-http", str(defaults.HTTP_THREADS))
        wait = WAIT_ENV[str(settings.get("wait_policy", "default"))]
        shell = ("env", *(f"{name}={value}" for name, value in wait.items())) if wait else ()
        return LaunchPlan(
            engine=self.name,
            argv=(
                sys.executable,
                str(worker("llamacpp_server.py")),
                *options,
                *(str(part) for part in where),
                *keyed,
                *closed,
                *watched,
            ),
            env={"PYTHONSAFEPATH": "1", **wait},
            endpoint=endpoint,
            command=(*shell, "llama-server", *options, "--host", "127.0.0.1", "--port", "8080"),
            settings=dict(settings),
            stdin=f"{endpoint.api_key}\n" if endpoint.api_key else None,
            port_from_log=r"listening on http://[^:\s]+:(\d+)" if not endpoint.socket_path else None,
        )

    def request_extra(self, settings: Settings) -> Mapping[str, Any]:
        """The server keeps a slot's last prompt; it may be used only where reuse is what is being tested."""
        return {"cache_prompt": self.remembers(settings)}

    def remembers(self, settings: Settings) -> bool:
        """Whether a slot keeps its last prompt."""
        return bool(settings.get("prefix_cache"))


def _kv_quantisable(model: ModelInfo) -> bool:
    widths = (model.head_dim, model.value_head_dim)
    return all(width is None or width % KV_BLOCK == 0 for width in widths)


def _options(settings: Settings) -> tuple[str, ...]:
    """The settings as ``llama-server`` options, in a fixed order."""
    parts: list[str] = []
    for name, option in OPTIONS.items():
        if name in settings:
            parts += [option, str(settings[name])]
    parts += ["--kv-unified" if settings["kv_unified"] else "--no-kv-unified"]
    if "gpu_layers" not in settings:
        parts += ["--gpu-layers", "0"]
    reuse = int(settings.get("cache_reuse") or 0)
    parts += ["--cache-prompt" if settings.get("prefix_cache") else "--no-cache-prompt"]
    parts += ["--cache-reuse", str(reuse), "--cache-ram", "0", "--fit", "off", "--cont-batching"]
    return (*parts, *_speculation(settings))


def _speculation(settings: Settings) -> tuple[str, ...]:
    drafter = str(settings["speculation"])
    if drafter == "off":
        return ("--spec-type", "none")
    lookup, draft = str(settings.get("spec_lookup")), str(settings.get("spec_draft"))
    if drafter in LOOKUP_DRAFTERS:
        return ("--spec-type", drafter, f"--spec-{drafter}-size-n", lookup, f"--spec-{drafter}-size-m", draft)
    if drafter == "ngram-mod":
        sizes = ("--spec-ngram-mod-n-match", lookup, "--spec-ngram-mod-n-min", "1", "--spec-ngram-mod-n-max", draft)
        return ("--spec-type", drafter, *sizes)
    return ("--spec-type", drafter)
