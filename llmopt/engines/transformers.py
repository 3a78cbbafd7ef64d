"""transformers: ``transformers serve`` in an environment of its own; loopback only, for it knows no key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmopt.engines.accelerators import gpus, has_bfloat16
from llmopt.engines.base import COMMON_REQUEST_SETTINGS, RunFolder
from llmopt.engines.locate import Found, has_module, locate_package
from llmopt.engines.options import options_of
from llmopt.engines.sizing import (
    launch_parameter,
    openmp_threads,
    require,
    round_up,
    searched,
    streams_of,
    thread_choices,
    usable_threads,
    with_choices,
)
from llmopt.models.kv_cache import kv_bytes_per_token
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

__all__ = ["Transformers"]

MODULE = "transformers.cli.transformers"
ALWAYS = ("dtype", "attention", "continuous_batching", "threads")
SOMETIMES = ("quantization", "compile", "device", "block_size", "cache_blocks", "batch_tokens")
VALUED = {
    "dtype": "--dtype",
    "attention": "--attn-implementation",
    "device": "--device",
    "block_size": "--cb-block-size",
    "cache_blocks": "--cb-num-blocks",
    "batch_tokens": "--cb-max-batch-tokens",
}
BLOCK_SIZE = 32
BLOCK_SIZES = (16, 32, 64)
SMALL_GPU = 8 << 30
MIDDLE_GPU = 16 << 30
MIDDLE_SHARE = 0.85
"""The specification's rule: float16 if weights and cache stay under this share of a middle-sized GPU, else 4 bit."""
HALF = 2
"""Bytes of a weight in half precision."""
LOCAL = ("--host", "127.0.0.1", "--port", "8000")
READY_CAP_S = 900.0
STALL_S = 180.0


class Transformers:
    """The server of the transformers library."""

    name = "transformers"
    transport = "port"
    needs_weights = True
    metric_names: Mapping[str, str] = {}
    default_sampling = InferenceParams(temperature=1.0, top_p=1.0)
    request_settings = COMMON_REQUEST_SETTINGS | {"thinking"}
    """It answers 422 to top_k, min_p and repetition_penalty."""

    def installation(self) -> Installation:
        """The interpreter that has transformers, and its version."""
        found = self._found()
        if found is None:
            return Installation(engine=self.name, available=False, why_not="engines.transformers_missing")
        command = (found.python, "-m", MODULE, "serve")
        return Installation(engine=self.name, available=True, version=found.version, command=command)

    def supports(self, model: ModelInfo) -> str | None:
        """Safetensors and hub ids; a GGUF file would be unpacked anew at every launch, so it is converted once."""
        return "engines.needs_safetensors" if model.format == "gguf" else None

    def parameters(self, model: ModelInfo, hardware: Hardware, task: Task) -> tuple[Parameter, ...]:
        """Precision, attention and batching, as far as devices and version allow."""
        quantisations = self._quantisations(model, hardware)
        starts = [_plain(hardware), *(_preset(model, hardware, quantisations, one) for one in (None, *Strategy))]
        batching = {"continuous_batching": (True,)}
        blocks = -(-round_up(task.context_tokens, BLOCK_SIZE) * streams_of(task) // BLOCK_SIZE)
        everything = [
            launch_parameter("dtype", _dtypes(hardware), changes_answers=True),
            launch_parameter("attention", ("sdpa", "eager"), changes_answers=True),
            launch_parameter("continuous_batching", (False, True), changes_answers=True),
            launch_parameter(
                "threads",
                [*thread_choices(hardware), *(start["threads"] for start in starts)],
                ordinal=True,
            ),
            launch_parameter("quantization", quantisations, changes_answers=True),
            launch_parameter("compile", (False, True) if gpus(hardware) else (False,), changes_answers=True),
            launch_parameter("device", _devices(hardware), changes_answers=True),
            launch_parameter("block_size", BLOCK_SIZES, ordinal=True, only_if=batching),
            launch_parameter("cache_blocks", (2 * blocks, 4 * blocks), ordinal=True, only_if=batching),
            launch_parameter("batch_tokens", (256, 512, 1024), ordinal=True, changes_answers=True, only_if=batching),
        ]
        return with_choices(everything, ALWAYS)

    def baseline(self, model: ModelInfo, hardware: Hardware, task: Task) -> Settings:
        """Plain ``transformers serve MODEL``: one request at a time, in the precision of the weights."""
        return searched(_plain(hardware), self.parameters(model, hardware, task))

    def preset(self, model: ModelInfo, hardware: Hardware, task: Task, strategy: Strategy | None) -> Settings:
        """The specification's table by GPU memory: 4 bit up to 8 GB, by what fits up to 16, float16 above."""
        settings = _preset(model, hardware, self._quantisations(model, hardware), strategy)
        return searched(settings, self.parameters(model, hardware, task))

    def conflict(self, settings: Settings, model: ModelInfo, hardware: Hardware, task: Task) -> str | None:  # noqa: ARG002
        """The cache of continuous batching must hold a request."""
        if not settings.get("continuous_batching"):
            return None
        cached = int(settings.get("cache_blocks") or 0) * int(settings.get("block_size") or 0)
        return "engines.conflict_cache_under_request" if cached < task.context_tokens else None

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """Its own command line; the endpoint's model is the path it is pinned to, and has no key."""
        require(settings, ALWAYS, SOMETIMES)
        target = model.path
        endpoint = replace(run.endpoint, model=target, api_key=None)
        found = self._found()
        options = (target, *_arguments(settings, model))
        env = {"OMP_NUM_THREADS": str(settings["threads"])}
        env |= {} if model.format == "hub" else {"HF_HUB_OFFLINE": "1"}
        shell = ("env", *(f"{name}={value}" for name, value in env.items()))
        program = (found.python if found else "python", "-m", MODULE, "serve")
        return LaunchPlan(
            engine=self.name,
            argv=(*program, *options, "--default-seed", "0", "--host", endpoint.host, "--port", str(endpoint.port)),
            env={"PYTHONSAFEPATH": "1", **env},
            endpoint=endpoint,
            command=(*shell, "transformers", "serve", *options, *LOCAL),
            command_here=(*shell, *program, *options, *LOCAL) if found else (),
            settings=dict(settings),
            ready_cap_s=READY_CAP_S,
            stall_s=STALL_S,
            lists_model=False,  # up to 5.17 its list names what lies in the hub's cache only, and fails without one
        )

    def request_extra(self, settings: Settings) -> Mapping[str, Any]:  # noqa: ARG002 - the Protocol's signature
        """Nothing: without continuous batching it keeps no cache between requests."""
        return {}

    def remembers(self, settings: Settings) -> bool:
        """Continuous batching shares the blocks of equal prefixes, and keeps the sampling of its first request."""
        return bool(settings.get("continuous_batching"))

    def in_turn(self, settings: Settings) -> bool:
        """Without continuous batching: one thread takes the requests in the order in which they came."""
        return not settings.get("continuous_batching")

    def _found(self) -> Found | None:
        return locate_package(self.name, command="transformers", distributions=("transformers",))

    def _quantisations(self, model: ModelInfo, hardware: Hardware) -> tuple[str, ...]:
        """Four and eight bits, where bitsandbytes is here, the weights are plain and the GPU is one it knows."""
        found = self._found()
        kinds = {device.kind for device in gpus(hardware)}
        if model.quantization is not None or kinds != {DeviceType.CUDA}:
            return ("none",)
        if found is not None and not has_module(found.python, "bitsandbytes"):
            return ("none",)
        options = options_of(self.name, found.version if found else None)
        return ("none", *options.values.get("quantization", ()))


def _devices(hardware: Hardware) -> tuple[str, ...]:
    """The device map: layers over all GPUs, which then work in turns, or the whole model on one."""
    found = gpus(hardware)
    if not found:
        return ("cpu",)
    first = "xpu:0" if found[0].kind is DeviceType.XPU else "cuda:0"
    return ("auto", first) if len(found) > 1 else ("auto",)


def _plain(hardware: Hardware) -> dict[str, SettingValue]:
    return {
        "dtype": "auto",
        "attention": "sdpa",
        "continuous_batching": False,
        "threads": openmp_threads() or max(1, hardware.cpu.physical_cores),
        "quantization": "none",
        "compile": False,
        "device": "auto" if gpus(hardware) else "cpu",
    }


def _preset(
    model: ModelInfo, hardware: Hardware, quantisations: tuple[str, ...], strategy: Strategy | None
) -> dict[str, SettingValue]:
    settings = _plain(hardware)
    cores = max(1, min(hardware.cpu.physical_cores, usable_threads(hardware)))
    settings["threads"] = openmp_threads() or cores
    devices = gpus(hardware)
    if devices:
        settings["dtype"] = "float16"
        if "bnb-4bit" in quantisations:
            settings["quantization"] = "bnb-4bit" if _wants_four_bits(model, devices[0].total_bytes) else "none"
    del strategy  # what differs by strategy are sampling and load, not this engine's launch
    return settings


def _wants_four_bits(model: ModelInfo, memory: int) -> bool:
    if memory <= SMALL_GPU:
        return True
    if memory >= MIDDLE_GPU:
        return False
    cache = (kv_bytes_per_token(model) or 0.0) * (model.context_length or 0)
    weights = HALF * model.parameters if model.parameters else model.weight_bytes or 0
    return weights + cache > MIDDLE_SHARE * memory


def _dtypes(hardware: Hardware) -> tuple[str, ...]:
    if not gpus(hardware):
        return ("auto", "float32", "bfloat16")
    return ("auto", "float16", "bfloat16") if has_bfloat16(hardware) else ("auto", "float16")


def _arguments(settings: Settings, model: ModelInfo) -> tuple[str, ...]:
    parts: list[str] = []
    for name, option in VALUED.items():
        if name in settings:
            parts += [option, str(settings[name])]
    parts += ["--continuous-batching"] if settings["continuous_batching"] else []
    parts += ["--compile"] if settings.get("compile") else []
    if settings.get("quantization", "none") != "none":
        parts += ["--quantization", str(settings["quantization"])]
    parts += ["--trust-remote-code"] if model.trust_remote_code else []
    return tuple(parts)
