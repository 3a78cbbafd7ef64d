"""llama.cpp: the embedded server of the wheel or a native one, described by ``llama-server``'s own command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import metadata
from typing import Any

from llmopt.engines import llamacpp_defaults as defaults
from llmopt.engines.base import SERVER_REQUEST_SETTINGS, Forgetting, RunFolder
from llmopt.engines.llamacpp_native import NativeServer, native_server
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
from llmopt.models.draft import draft_of
from llmopt.records import (
    Endpoint,
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

__all__ = ["LlamaCpp", "LlamaServer"]

LOOKUP_DRAFTERS = ("ngram-simple", "ngram-map-k")
DRAFTERS = {"draft": "draft-simple", "eagle3": "draft-eagle3"}
"""What a draft model is to llama.cpp, by its kind; other heads it does not run."""
LEARNING_DRAFTERS = ("ngram-mod", "ngram-cache")
"""What they saw in one request they propose in all later ones."""
SPECULATION = ("off", *LOOKUP_DRAFTERS, *LEARNING_DRAFTERS)
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
SOMETIMES = (
    "spec_lookup",
    "spec_draft",
    "draft_tokens",
    "wait_policy",
    "poll",
    "prefix_cache",
    "cache_reuse",
    "gpu_layers",
    "split_mode",
    "tensor_split",
    "cpu_expert_layers",
)
OURS = (
    *("--cors-origins", "localhost", "--no-cors-credentials", "--no-ui", "--offline"),
    *("--metrics", "--slots", "--seed", "0", "--threads-http", str(defaults.HTTP_THREADS)),
)
"""What a measured server is given beside its settings: closed to browsers, open to our watching."""
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
    "split_mode": "--split-mode",
    "tensor_split": "--tensor-split",
    "cpu_expert_layers": "--n-cpu-moe",
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
        """A configured llama-server, else the wheel (by its metadata: the library is loaded by the worker only)."""
        native = self._native()
        if native is not None:
            old = None if native.new_enough else "engines.llama_server_old"
            return Installation(
                engine=self.name,
                available=old is None,
                version=native.version,
                command=(native.path,),
                build="native",
                why_not=old,
            )
        version = _wheel_version()
        if version is None:
            return Installation(engine=self.name, available=False, why_not="engines.llamacpp_missing")
        return Installation(engine=self.name, available=True, version=version, command=_embedded(), build="embedded")

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
            launch_parameter("speculation", (*SPECULATION, *self._drafters(model)), changes_answers=True),
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
        if drafters := self._drafters(model):
            only_if = {"speculation": drafters}
            sizes = (2, 4, 8, 16)
            parameters.append(
                launch_parameter("draft_tokens", sizes, ordinal=True, changes_answers=True, only_if=only_if)
            )
        return (*parameters, *_surroundings(task), *_offloading(model, hardware))

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
        """The server under ``llama-server``'s options, none left to its own defaults."""
        require(settings, ALWAYS, SOMETIMES)
        endpoint = replace(run.endpoint, model=alias_of(model))
        options = ("--model", model.path, "--alias", endpoint.model, *_options(settings, model))
        keyed = ("--api-key-file", "/dev/stdin") if endpoint.api_key else ()
        told = (*options, *_where(endpoint), *keyed, *OURS)
        native = self._native()
        wait = WAIT_ENV[str(settings.get("wait_policy", "default"))]
        shell = ("env", *(f"{name}={value}" for name, value in wait.items())) if wait else ()
        typed = native.accepted(options) if native else options
        local = ("--host", "127.0.0.1", "--port", "8080")
        program = (native.path,) if native else _embedded()
        return LaunchPlan(
            engine=self.name,
            argv=(native.path, *native.accepted(told)) if native else (*_embedded(), *told),
            env={"PYTHONSAFEPATH": "1", **wait},
            endpoint=endpoint,
            command=(*shell, "llama-server", *typed, *local),
            command_here=(*shell, *program, *typed, *local),
            settings=dict(settings),
            stdin=f"{endpoint.api_key}\n" if endpoint.api_key else None,
            port_from_log=r"listening on http://[^:\s]+:(\d+)" if not endpoint.socket_path else None,
        )

    def request_extra(self, settings: Settings) -> Mapping[str, Any]:
        """The server keeps a slot's last prompt; it may be used only where reuse is what is being tested."""
        return {"cache_prompt": bool(settings.get("prefix_cache"))}

    def remembers(self, settings: Settings) -> bool:
        """Whether a slot keeps its last prompt, or drafts are learnt from all requests."""
        return bool(settings.get("prefix_cache")) or settings.get("speculation") in LEARNING_DRAFTERS

    def forget(self, settings: Settings, turn: int) -> Forgetting | None:
        """A slot keeps one prompt: another word in its place, asked for without the cache. What drafts learnt stays."""
        if settings.get("speculation") in LEARNING_DRAFTERS:
            return None
        word = {"prompt": f"{turn}", "n_predict": 1, "temperature": 0, "cache_prompt": False}
        return Forgetting(
            calls=tuple(("/completion", {**word, "id_slot": slot}) for slot in range(int(settings["slots"] or 1)))
        )

    def _drafters(self, model: ModelInfo) -> tuple[str, ...]:
        """How the draft that was given for ``model`` may guess ahead, where this server can."""
        draft, native = draft_of(model), self._native()
        able = native is None or "--spec-draft-model" in native.options
        return (DRAFTERS[draft.kind],) if draft is not None and draft.kind in DRAFTERS and able else ()

    def _native(self) -> NativeServer | None:
        """The llama-server to use in place of the wheel: one that is configured, or all there is."""
        return native_server(only_if_configured=_wheel_version() is not None)


class LlamaServer(LlamaCpp):
    """A ``llama-server`` built for this machine, never the wheel: to be compared with it, or used for its devices."""

    name = "llama-server"

    def installation(self) -> Installation:
        """The configured llama-server, else the one on PATH."""
        if self._native() is None:
            return Installation(engine=self.name, available=False, why_not="engines.llama_server_missing")
        return super().installation()

    def _native(self) -> NativeServer | None:
        return native_server(only_if_configured=False)


def _surroundings(task: Task) -> list[Parameter]:
    """How threads wait, and what is kept between requests where that is what is tested."""
    waiting = launch_parameter("poll", (0, defaults.POLL, 100), ordinal=True)
    parameters = [launch_parameter("wait_policy", tuple(WAIT_ENV)) if defaults.OPENMP else waiting]
    if task.prefix_cache:
        caching = {"prefix_cache": (True,)}
        parameters += [
            launch_parameter("prefix_cache", (True, False), changes_answers=True),
            launch_parameter("cache_reuse", (0, 256), ordinal=True, changes_answers=True, only_if=caching),
        ]
    return parameters


def _offloading(model: ModelInfo, hardware: Hardware) -> list[Parameter]:
    """What goes to the GPUs, where the build can use them."""
    devices = defaults.offload_devices(hardware)
    if not devices:
        return []
    everything, layers = defaults.all_layers(model), model.layers or 0
    halves = (0, everything // 2, everything)
    parameters = [launch_parameter("gpu_layers", halves, ordinal=True, changes_answers=True)]
    if devices > 1:
        parameters.append(launch_parameter("split_mode", ("layer", "row", "none"), changes_answers=True))
    if splits := defaults.tensor_splits(hardware):
        shared = {"split_mode": ("layer", "row")}
        parameters.append(launch_parameter("tensor_split", splits, changes_answers=True, only_if=shared))
    if model.experts and layers:
        experts = (0, layers // 2, layers)
        parameters.append(launch_parameter("cpu_expert_layers", experts, ordinal=True, changes_answers=True))
    return parameters


def _wheel_version() -> str | None:
    try:
        return metadata.version("xllamacpp")
    except metadata.PackageNotFoundError:
        return None


def _embedded() -> tuple[str, ...]:
    return (sys.executable, str(worker("llamacpp_server.py")))


def _where(endpoint: Endpoint) -> tuple[str, ...]:
    if endpoint.socket_path:
        return ("--host", endpoint.socket_path)
    return ("--host", endpoint.host, "--port", str(endpoint.port))


def _kv_quantisable(model: ModelInfo) -> bool:
    widths = (model.head_dim, model.value_head_dim)
    return all(width is None or width % KV_BLOCK == 0 for width in widths)


def _options(settings: Settings, model: ModelInfo) -> tuple[str, ...]:
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
    return (*parts, *_speculation(settings, model))


def _speculation(settings: Settings, model: ModelInfo) -> tuple[str, ...]:
    drafter = str(settings["speculation"])
    if drafter == "off":
        return ("--spec-type", "none")
    lookup, draft = str(settings.get("spec_lookup")), str(settings.get("spec_draft"))
    if drafter in LOOKUP_DRAFTERS:
        return ("--spec-type", drafter, f"--spec-{drafter}-size-n", lookup, f"--spec-{drafter}-size-m", draft)
    if drafter == "ngram-mod":
        sizes = ("--spec-ngram-mod-n-match", lookup, "--spec-ngram-mod-n-min", "1", "--spec-ngram-mod-n-max", draft)
        return ("--spec-type", drafter, *sizes)
    small = draft_of(model)
    if small is not None and drafter in DRAFTERS.values():
        ahead = ("--spec-draft-n-min", "0", "--spec-draft-n-max", str(settings["draft_tokens"]))
        layers = ("--spec-draft-ngl", "0") if "gpu_layers" not in settings else ()
        return ("--spec-type", drafter, "--spec-draft-model", small.model.path, *ahead, *layers)
    return ("--spec-type", drafter)
