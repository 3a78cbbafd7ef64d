"""Which engines there are: our table, and other packages' entry points; none is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points

from llmopt.config.settings import load_settings
from llmopt.engines.base import Engine
from llmopt.errors import EngineMissing, UsageError
from llmopt.messages import t
from llmopt.paths import Workspace
from llmopt.records import ENGINE_GROUP, DeviceType, Hardware, ModelInfo

__all__ = ["choose_engine", "engine_names", "get_engine"]

ENGINES = {
    "llamacpp": "llmopt.engines.llamacpp:LlamaCpp",
    "llama-server": "llmopt.engines.llamacpp:LlamaServer",
    "vllm": "llmopt.engines.vllm:Vllm",
    "sglang": "llmopt.engines.sglang:Sglang",
    "transformers": "llmopt.engines.transformers:Transformers",
    "openai": "llmopt.engines.openai:OpenAI",
    "fake": "llmopt.engines.fake:Fake",
}
NEVER_CHOSEN = ("fake", "openai")
"""Engines used only when named: one invents its answers, the other needs an address."""
GPU_ORDER = ("vllm", "sglang", "llamacpp", "llama-server", "transformers")
CPU_ORDER = ("llamacpp", "llama-server", "vllm", "transformers", "sglang")
IMAGES = ("llamacpp_image", "vllm_image", "sglang_image", "transformers_image")
"""Settings that put an engine into a container."""
FAST_GPUS = (DeviceType.CUDA, DeviceType.ROCM)


def engine_names() -> tuple[str, ...]:
    """Our engines, then those other packages bring."""
    theirs = sorted({point.name for point in entry_points(group=ENGINE_GROUP)} - ENGINES.keys())
    return (*ENGINES, *theirs)


def get_engine(name: str) -> Engine:
    """The engine of that name; raises UsageError with near names, EngineMissing where a plug-in does not load."""
    if name in ENGINES:
        module, _, cls = ENGINES[name].partition(":")
        engine: Engine = getattr(import_module(module), cls)()
        return _contained(engine)
    for point in entry_points(group=ENGINE_GROUP, name=name):
        return _plugin(point.name, point.load)
    near = get_close_matches(name, engine_names(), n=3, cutoff=0.4) or engine_names()
    raise UsageError("engines.unknown", name=name, near=", ".join(near))


def _contained(engine: Engine) -> Engine:
    """The engine inside the container that the settings name for it (``vllm_image`` …), else as it is."""
    if f"{engine.name}_image" not in IMAGES:
        return engine
    values = load_settings(Workspace.here()).values
    image = values.get(f"{engine.name}_image")
    if not image:
        return engine
    from llmopt.engines.containers import Contained, ContainerImage  # noqa: PLC0415 - only where a setting asks for it
    from llmopt.hardware.probe import probe  # noqa: PLC0415 - as above

    uuids = [device.uuid for device in probe().devices if device.vendor == "nvidia"]
    return Contained(engine, ContainerImage(image=str(image), tool=str(values["container_tool"])), uuids)


def choose_engine(model: ModelInfo, hardware: Hardware, preferred: str | None = None) -> tuple[Engine, str]:
    """The engine to use and the message key of the reason.

    A ``preferred`` one is used or refused, never silently replaced: raises EngineMissing with its reason. Otherwise the
    first installed engine that can run the model, in the order that suits the machine.
    """
    if preferred is not None:
        engine = get_engine(preferred)
        reason = _why_not(engine, model)
        if reason is not None:
            raise EngineMissing("engines.not_usable", name=preferred, reason=t(reason))
        return engine, "engines.chosen_asked"
    has_gpu = any(device.kind in FAST_GPUS for device in hardware.devices)
    order = GPU_ORDER if has_gpu else CPU_ORDER
    candidates = [name for name in _ordered(engine_names(), order) if name not in NEVER_CHOSEN]
    reasons: dict[str, str] = {}
    usable: list[Engine] = []
    for name in candidates:
        engine = get_engine(name)
        reason = _why_not(engine, model)
        if reason is None:
            usable.append(engine)
        else:
            reasons[name] = t(reason)
    if not usable:
        told = " ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise EngineMissing("engines.none_usable", reasons=told)
    if len(usable) == 1:
        return usable[0], "engines.chosen_only"
    return usable[0], "engines.chosen_gpu" if has_gpu else "engines.chosen_cpu"


def _ordered(names: Iterable[str], order: tuple[str, ...]) -> list[str]:
    """The names our order knows first, then the others as they come."""
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _why_not(engine: Engine, model: ModelInfo) -> str | None:
    """The message key of what keeps this engine from running this model here, or None."""
    unsupported = engine.supports(model)
    if unsupported is not None:
        return unsupported
    installation = engine.installation()
    return None if installation.available else installation.why_not


def _plugin(name: str, load: Callable[[], Callable[[], object]]) -> Engine:
    """An instance of another package's engine class; what that package raises is its own fault and told as such."""
    try:
        engine = load()()
    except Exception as error:  # boundary: code of another package
        reason = f"{type(error).__name__}: {error}"
        raise EngineMissing("engines.broken_plugin", name=name, reason=reason) from error
    if not isinstance(engine, Engine):
        raise EngineMissing("engines.broken_plugin", name=name, reason="not an engines.base.Engine")
    return engine
