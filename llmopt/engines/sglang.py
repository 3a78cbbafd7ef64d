"""SGLang: ``sglang.launch_server`` in an environment of its own; it has no Unix socket, so loopback and a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmopt.engines.accelerators import gpus, has_bfloat16, has_float8, ranks_dividing
from llmopt.engines.base import SERVER_REQUEST_SETTINGS, Forgetting, RunFolder
from llmopt.engines.locate import Found, locate_package
from llmopt.engines.options import Options, options_of
from llmopt.engines.probing import worker
from llmopt.engines.sizing import (
    alias_of,
    doublings,
    launch_parameter,
    require,
    round_up,
    searched,
    streams_of,
    with_choices,
)
from llmopt.records import (
    DeviceType,
    Hardware,
    InferenceParams,
    Installation,
    LaunchPlan,
    ModelInfo,
    Parameter,
    Settings,
    SettingValue,
    Strategy,
    Task,
)

__all__ = ["Sglang"]

MODULE = "sglang.launch_server"
VALUED = {
    "dtype": "--dtype",
    "context_length": "--context-length",
    "max_running_requests": "--max-running-requests",
    "chunked_prefill_size": "--chunked-prefill-size",
    "mem_fraction_static": "--mem-fraction-static",
    "kv_cache_dtype": "--kv-cache-dtype",
    "tensor_parallel": "--tp-size",
    "data_parallel": "--dp-size",
    "schedule_policy": "--schedule-policy",
}
UNLESS_AUTO = {"quantization": ("--quantization", "none"), "attention_backend": ("--attention-backend", "auto")}
ALWAYS = ("dtype", "context_length", "max_running_requests", "chunked_prefill_size", "mem_fraction_static")
SOMETIMES = (
    "kv_cache_dtype",
    "tensor_parallel",
    "data_parallel",
    "schedule_policy",
    "quantization",
    "attention_backend",
    "prefix_cache",
    "decode_graphs",
    "speculation",
    "spec_draft",
)
CONTEXT = 4096
CONTEXT_UNIT = 128
MEMORY_FRACTION = 0.88
"""A value in the middle of what SGLang computes from the device; the plain command computes its own."""
PREFILL_CHUNK = 8192
RUNNING = 256
FAST_RUNNING, MODERATE_RUNNING = 16, 4
LOCAL = ("--host", "127.0.0.1", "--port", "30000")
READY_CAP_S = 1800.0
STALL_S = 300.0
STOP_GRACE_S = 20.0


class Sglang:
    """SGLang's OpenAI server."""

    name = "sglang"
    transport = "port"
    needs_weights = True
    metric_names: Mapping[str, str] = {
        "running": "sglang:num_running_reqs",
        "waiting": "sglang:num_queue_reqs",
        "kv_usage": "sglang:token_usage",
        "prompt_tokens": "sglang:prompt_tokens_total",
        "generation_tokens": "sglang:generation_tokens_total",
        "cached_tokens": "sglang:cached_tokens_total",
        "preemptions": "sglang:num_retracted_requests_total",
    }
    default_sampling = InferenceParams(temperature=1.0, top_p=1.0)
    request_settings = SERVER_REQUEST_SETTINGS

    def installation(self) -> Installation:
        """The interpreter that has SGLang, and its version."""
        found = self._found()
        if found is None:
            return Installation(engine=self.name, available=False, why_not="engines.sglang_missing")
        command = (found.python, "-m", MODULE)
        return Installation(engine=self.name, available=True, version=found.version, command=command)

    def supports(self, model: ModelInfo) -> str | None:
        """Folders of safetensors, and hub ids."""
        return "engines.needs_safetensors" if model.format == "gguf" else None

    def parameters(self, model: ModelInfo, hardware: Hardware, task: Task) -> tuple[Parameter, ...]:
        """What has a choice on these devices, as far as this version has the option."""
        options, count, streams = self._options(), len(gpus(hardware)), streams_of(task)
        starts = [_plain(model, task), *(_preset(model, hardware, task, one) for one in (None, *Strategy))]

        def sizes(name: str, *values: SettingValue) -> list[SettingValue]:
            return [*values, *(start[name] for start in starts)]

        eight_bit = has_float8(hardware)
        drafting = {"speculation": ("ngram",)}
        graphs = options.offers("--cuda-graph-backend-decode") and count > 0
        everything = [
            launch_parameter(
                "dtype", ("auto", "float16") if has_bfloat16(hardware) else ("auto",), changes_answers=True
            ),
            launch_parameter("context_length", sizes("context_length"), ordinal=True),
            launch_parameter(
                "max_running_requests", sizes("max_running_requests", *doublings(1, streams), streams), ordinal=True
            ),
            launch_parameter(
                "chunked_prefill_size",
                sizes("chunked_prefill_size", *doublings(1024, PREFILL_CHUNK)),
                ordinal=True,
                changes_answers=True,
            ),
            launch_parameter("mem_fraction_static", (0.8, 0.85, MEMORY_FRACTION, 0.92), ordinal=True),
            launch_parameter("kv_cache_dtype", ("auto", "fp8_e5m2") if eight_bit else ("auto",), changes_answers=True),
            launch_parameter(
                "tensor_parallel",
                sizes("tensor_parallel", *ranks_dividing(model, count)) if count else (1,),
                ordinal=True,
                changes_answers=True,
            ),
            launch_parameter("data_parallel", tuple(range(1, max(1, count) + 1)), ordinal=True),
            launch_parameter("schedule_policy", ("fcfs", "lpm") if task.prefix_cache else ("fcfs",)),
            launch_parameter("quantization", _quantisations(model, hardware, options), changes_answers=True),
            launch_parameter("attention_backend", _backends(hardware, options), changes_answers=True),
            launch_parameter("prefix_cache", (True, False) if task.prefix_cache else (False,), changes_answers=True),
            launch_parameter("decode_graphs", (True, False) if graphs else (True,), changes_answers=True),
            launch_parameter("speculation", ("off", "ngram") if count else ("off",), changes_answers=True),
            launch_parameter("spec_draft", (4, 8, 12), ordinal=True, changes_answers=True, only_if=drafting),
        ]
        return with_choices(everything, ALWAYS)

    def baseline(self, model: ModelInfo, hardware: Hardware, task: Task) -> Settings:
        """Plain ``sglang.launch_server --model-path MODEL`` as far as it can be known before it ran."""
        return searched(_plain(model, task), self.parameters(model, hardware, task))

    def preset(self, model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> Settings:
        """The specification's table: requests for the strategy, tensor parallel over all GPUs."""
        return searched(_preset(model, hardware, task, strategy), self.parameters(model, hardware, task))

    def conflict(self, settings: Settings, model: ModelInfo, hardware: Hardware, task: Task) -> str | None:
        """What SGLang refuses at start, and what cannot serve the task."""
        length = int(settings["context_length"] or 0)
        ranks = int(settings.get("tensor_parallel") or 1) * int(settings.get("data_parallel") or 1)
        rules = {
            "length_over_model": model.context_length is not None and length > model.context_length,
            "length_under_task": length < task.context_tokens,
            "too_many_ranks": ranks > max(1, len(gpus(hardware))),
        }
        return next((f"engines.conflict_{rule}" for rule, broken in rules.items() if broken), None)

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """The server module through ``keyed_main``, which hands it the key unseen."""
        require(settings, ALWAYS, SOMETIMES)
        endpoint = replace(run.endpoint, model=alias_of(model))
        found = self._found()
        key_option = "--api-key" if endpoint.api_key else "-"
        program = (found.python if found else "python", str(worker("keyed_main.py")), key_option, MODULE)
        options = ("--model-path", model.path, "--served-model-name", endpoint.model, *_arguments(settings, model))
        where = ("--host", endpoint.host, "--port", str(endpoint.port))
        env = {} if model.format == "hub" else {"HF_HUB_OFFLINE": "1"}
        shell = ("env", *(f"{name}={value}" for name, value in env.items())) if env else ()
        return LaunchPlan(
            engine=self.name,
            argv=(*program, *options, "--random-seed", "0", "--enable-metrics", *where),
            env={"PYTHONSAFEPATH": "1", **env},
            endpoint=endpoint,
            command=(*shell, "python", "-m", MODULE, *options, *LOCAL),
            command_here=(*shell, found.python, "-m", MODULE, *options, *LOCAL) if found else (),
            settings=dict(settings),
            stdin=f"{endpoint.api_key}\n" if endpoint.api_key else None,
            ready_cap_s=READY_CAP_S,
            stall_s=STALL_S,
            stop_grace_s=STOP_GRACE_S,
        )

    def request_extra(self, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002 - the Protocol's signature
        """Nothing: the prefix cache is a launch setting here."""
        return {}

    def remembers(self, settings: Settings) -> bool:
        """Whether the radix cache is on, or drafts are learnt from all requests."""
        return bool(settings.get("prefix_cache")) or settings.get("speculation") == "ngram"

    def forget(self, settings: Settings, turn: int) -> Forgetting | None:
        """The server empties its radix cache when it is told to; n-gram drafts keep what they saw."""
        del turn
        return None if settings.get("speculation") == "ngram" else Forgetting(calls=(("/flush_cache", {}),))

    def _found(self) -> Found | None:
        return locate_package(self.name, command="sglang", distributions=("sglang",))

    def _options(self) -> Options:
        found = self._found()
        return options_of(self.name, found.version if found else None)


def _plain(model: ModelInfo, task: Task) -> dict[str, SettingValue]:
    context = model.context_length or max(CONTEXT, round_up(task.context_tokens, CONTEXT_UNIT))
    return {
        "dtype": "auto",
        "context_length": context,
        "max_running_requests": RUNNING,
        "chunked_prefill_size": PREFILL_CHUNK,
        "mem_fraction_static": MEMORY_FRACTION,
        "kv_cache_dtype": "auto",
        "tensor_parallel": 1,
        "data_parallel": 1,
        "schedule_policy": "fcfs",
        "quantization": "none",
        "attention_backend": "auto",
        "prefix_cache": task.prefix_cache,
        "decode_graphs": True,
        "speculation": "off",
    }


def _preset(model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> dict[str, SettingValue]:
    wanted = FAST_RUNNING if strategy is Strategy.SPEED else MODERATE_RUNNING
    return _plain(model, task) | {
        "context_length": round_up(task.context_tokens, CONTEXT_UNIT),
        "max_running_requests": min(wanted, streams_of(task)),
        "tensor_parallel": max(ranks_dividing(model, max(1, len(gpus(hardware))))),
    }


def _quantisations(model: ModelInfo, hardware: Hardware, options: Options) -> tuple[str, ...]:
    if model.quantization is not None or not gpus(hardware):
        return ("none",)
    wanted = ("bitsandbytes", *(("fp8",) if has_float8(hardware) else ()))
    return ("none", *(method for method in wanted if method in options.values.get("quantization", ())))


def _backends(hardware: Hardware, options: Options) -> tuple[str, ...]:
    kinds = {device.kind for device in gpus(hardware)}
    wanted = ("flashinfer", "triton") if kinds == {DeviceType.CUDA} else ()
    return ("auto", *(name for name in wanted if name in options.values.get("attention_backend", ())))


def _arguments(settings: Settings, model: ModelInfo) -> tuple[str, ...]:
    parts: list[str] = []
    for name, option in VALUED.items():
        if name in settings:
            parts += [option, str(settings[name])]
    for name, (option, automatic) in UNLESS_AUTO.items():
        if settings.get(name, automatic) != automatic:
            parts += [option, str(settings[name])]
    parts += [] if settings.get("prefix_cache") else ["--disable-radix-cache"]
    parts += [] if settings.get("decode_graphs", True) else ["--cuda-graph-backend-decode", "disabled"]
    parts += ["--trust-remote-code"] if model.trust_remote_code else []
    # else the model's own generation_config.json would fill in sampling values that no request names
    parts += ["--sampling-defaults", "openai"]
    if settings.get("speculation", "off") == "ngram":
        parts += ["--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", str(settings["spec_draft"])]
    return tuple(parts)
