"""What running a model would need and reach — on this machine, or on GPUs one does not have — before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmopt.config.settings import SPECS
from llmopt.engines.accelerators import has_bfloat16, has_float8, ranks_dividing
from llmopt.engines.registry import CPU_ORDER, GPU_ORDER, engine_names, get_engine
from llmopt.errors import DoesNotFit, UsageError
from llmopt.hardware.defaults import starting_threads
from llmopt.hardware.probe import probe
from llmopt.messages import t
from llmopt.models.catalogue import find_model
from llmopt.models.entry import ModelEntry
from llmopt.models.memory_fit import MemoryFit
from llmopt.models.metadata import read_model
from llmopt.models.weights import kept_weights
from llmopt.paths import Workspace
from llmopt.predict.devices import DeviceSpec, device_spec, hypothetical, known_devices
from llmopt.predict.forecast import Unknown
from llmopt.predict.machine import load_speed
from llmopt.predict.study import Expectation, Prompt, Scene, SeenRun, StudyForecast
from llmopt.records import Configuration, Hardware, InferenceParams, Load, ModelInfo, Settings, SettingValue, Task
from llmopt.store.database import Store
from llmopt.study.foresight import Surroundings, correction_of, seen_runs

__all__ = ["EstimateRequest", "EstimateRow", "estimate", "estimate_json"]

GGUF_BITS = {"q8_0": 8.5, "q4_k_m": 4.85}
"""GGUF precisions and their bits for each weight (mixed files are above their name's)."""
TORCH_PRECISIONS: Mapping[str, Mapping[str, SettingValue]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "fp8": {"quantization": "fp8"},
    "int4": {"quantization": "int4"},
}
SHARE = 0.9
"""Of a GPU's memory, what paged engines are given here."""
BATCHED_TOKENS = 2048
UBATCH, BATCH = 512, 2048
CELLS = 256
DEFAULT_STREAMS = next(spec.default for spec in SPECS if spec.name == "streams")


@dataclass(frozen=True, kw_only=True)
class EstimateRequest:
    """What was asked: ``gpus`` are short names (``h100``, ``2xl40s``); without any, this machine."""

    model: str
    gpus: tuple[str, ...] = ()
    engine: str | None = None
    prompt_tokens: int = 1024
    answer_tokens: int = 256
    streams: int = DEFAULT_STREAMS

    def __post_init__(self) -> None:
        """Refuse what no machine could do."""
        for name in ("prompt_tokens", "answer_tokens", "streams"):
            if getattr(self, name) < 1:
                raise UsageError("estimate.at_least_one", name=name.replace("_", "-"), value=getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class EstimateRow:
    """One way to run the model in one place."""

    place: str
    engine: str
    precision: str
    settings: Settings
    fit: MemoryFit
    expected: Expectation | Unknown
    at_most_tokens_per_s: float | None
    """For one stream: no step is faster than reading the weights once at the device's full bandwidth."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Hardware to run on, under the name it is shown by; ``real`` where it is this machine."""

    name: str
    hardware: Hardware
    real: bool


def estimate(request: EstimateRequest, workspace: Workspace) -> tuple[ModelInfo, list[EstimateRow]]:
    """The model as known here, and a row for each place, engine and precision that makes sense.

    Nothing is fetched or started. Raises UsageError for an unknown model, engine or GPU.
    """
    if request.engine is not None and request.engine not in engine_names():
        get_engine(request.engine)  # raises with near names
    model = _known_model(find_model(request.model, workspace))
    rows = []
    for place in _places(request):
        engine = request.engine or _usual_engine(model, place.hardware)
        task = Task(
            load=Load(streams=request.streams), max_tokens=request.answer_tokens, prompt_tokens=request.prompt_tokens
        )
        runs, correction = _taught(workspace, engine, place)
        for precision, variant, settings in _variants(engine, model, place.hardware, task):
            scene = Scene(
                model=variant,
                engine=engine,
                engine_version=_version(engine) if place.real else "",
                hardware=place.hardware,
                task=task,
                prompts={"": Prompt(tokens=float(task.prompt_tokens))},
                answer_tokens=float(task.max_tokens),
                speed=load_speed(hardware=place.hardware.fingerprint) if place.real else None,
                correction=correction,
            )
            forecast = StudyForecast(scene, runs)
            configuration = Configuration(engine=engine, launch=settings, request=InferenceParams())
            rows.append(
                EstimateRow(
                    place=place.name,
                    engine=engine,
                    precision=precision,
                    settings=settings,
                    fit=forecast.memory(configuration),
                    expected=forecast.of(configuration),
                    at_most_tokens_per_s=forecast.at_most_tokens_per_s(configuration),
                )
            )
    return model, rows


def _known_model(entry: ModelEntry) -> ModelInfo:
    """Read from its headers where weights are here, else as the catalogue has it."""
    path = kept_weights(entry)
    if path is None:
        return entry.facts
    return replace(read_model(path, entry.name, allow_pickle=entry.allow_pickle), license=entry.facts.license)


def _taught(workspace: Workspace, engine: str, place: _Place) -> tuple[list[SeenRun], Any]:
    from llmopt.models.memory_fit import NO_CORRECTION  # noqa: PLC0415 - one use

    if not place.real or not workspace.database.exists():
        return [], NO_CORRECTION
    around = Surroundings(engine=engine, hardware=place.hardware)
    with Store.open(workspace.database, read_only=True) as store:
        return seen_runs(store, around), correction_of(store, around)


# ── places ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _places(request: EstimateRequest) -> Iterator[_Place]:
    here = probe()
    if not request.gpus:
        names = ", ".join(dict.fromkeys(device.name for device in here.devices))
        yield _Place(name=names or here.cpu.model, hardware=here, real=True)
    for given in request.gpus:
        count, spec = _gpu(given)
        devices = hypothetical(spec, count)
        room = max(here.memory.total_bytes, 2 * sum(device.total_bytes for device in devices))
        memory = replace(here.memory, total_bytes=room, available_bytes=room, limit_bytes=None)
        yield _Place(
            name=f"{count} x {spec.name}" if count > 1 else spec.name,
            hardware=replace(here, devices=devices, memory=memory, system="Linux x86_64"),
            real=False,
        )


def _gpu(given: str) -> tuple[int, DeviceSpec]:
    """``2xl40s`` → (2, its spec); raises UsageError with the nearest names."""
    head, mark, tail = given.lower().partition("x")
    count, name = (int(head), tail) if mark and head.isdigit() else (1, given.lower())
    spec = device_spec(name)
    if spec is None or count < 1:
        import difflib  # noqa: PLC0415 - only on the way to an error

        near = difflib.get_close_matches(name, known_devices(), n=4, cutoff=0.3) or sorted(known_devices())
        raise UsageError("estimate.unknown_gpu", name=given, near=", ".join(near))
    return count, spec


def _usual_engine(model: ModelInfo, hardware: Hardware) -> str:
    """The engine people would take there, installed or not."""
    order = GPU_ORDER if hardware.devices else CPU_ORDER
    files = replace(model, format="safetensors" if hardware.devices else "gguf") if model.format == "hub" else model
    return next(name for name in order if get_engine(name).supports(files) is None)


def _version(engine: str) -> str:
    return get_engine(engine).installation().version or ""


# ── ways to run ────────────────────────────────────────────────────────────────────────────────────────────────────


def _variants(
    engine: str, model: ModelInfo, hardware: Hardware, task: Task
) -> Iterator[tuple[str, ModelInfo, dict[str, SettingValue]]]:
    """(precision, the model in it, complete settings), from the most precise down."""
    if engine == "llamacpp":
        for name, variant in _as_gguf(model):
            yield name, variant, _llamacpp(variant, hardware, task)
        return
    ranks = max(ranks_dividing(model, len(hardware.devices)), default=1)
    shared: dict[str, SettingValue] = {
        "max_num_seqs": task.load.streams or 1,
        "max_batch_size": task.load.streams or 1,
        "max_model_len": task.context_tokens,
        "max_num_batched_tokens": BATCHED_TOKENS,
        "gpu_memory_utilization": SHARE,
    }
    if hardware.devices:
        shared["tensor_parallel"] = ranks
    quantised = model.quantization not in {None, "float32", "float16", "bfloat16"}
    if quantised or engine not in {"vllm", "sglang", "transformers"}:
        yield model.quantization or "-", model, shared
        return
    for name in _precisions(engine, hardware):
        yield name, model, {**shared, **TORCH_PRECISIONS[name]}


def _precisions(engine: str, hardware: Hardware) -> Sequence[str]:
    half = "bfloat16" if has_bfloat16(hardware) else "float16"
    if not hardware.devices:
        return (half,)
    return (half, "fp8", "int4") if engine != "transformers" and has_float8(hardware) else (half, "int4")


def _as_gguf(model: ModelInfo) -> Iterator[tuple[str, ModelInfo]]:
    if model.format == "gguf":
        yield model.quantization or "gguf", model
        return
    for name, bits in GGUF_BITS.items():
        size = None if model.parameters is None else round(model.parameters * bits / 8)
        yield name, replace(model, format="gguf", weight_bytes=size, quantization=name)


def _llamacpp(model: ModelInfo, hardware: Hardware, task: Task) -> dict[str, SettingValue]:
    slots = task.load.streams or 1
    context = slots * (-(-task.context_tokens // CELLS) * CELLS)
    threads = starting_threads(hardware)
    settings: dict[str, SettingValue] = {
        "threads": threads,
        "threads_batch": threads,
        "slots": slots,
        "context": context,
        "kv_unified": True,
        "batch": min(BATCH, context),
        "ubatch": min(UBATCH, context),
        "cache_type_k": "f16",
        "cache_type_v": "f16",
        "flash_attention": "on",
    }
    return settings | ({"gpu_layers": (model.layers or 998) + 1} if hardware.devices else {})


# ── plain data ─────────────────────────────────────────────────────────────────────────────────────────────────────


def estimate_json(request: EstimateRequest, model: ModelInfo, rows: Sequence[EstimateRow]) -> dict[str, Any]:
    """The answer for a program."""
    return {
        "schema_version": 1,
        "model": {
            "name": model.name,
            "format": model.format,
            "parameters": model.parameters,
            "weight_bytes": model.weight_bytes,
            "quantization": model.quantization,
        },
        "load": {
            "streams": request.streams,
            "prompt_tokens": request.prompt_tokens,
            "answer_tokens": request.answer_tokens,
        },
        "rows": [_plain(row) for row in rows],
    }


def _plain(row: EstimateRow) -> dict[str, Any]:
    fit, expected = row.fit, row.expected
    speed: dict[str, Any]
    if isinstance(expected, Unknown):
        speed = {"known": False, "reason": t(expected.reason, **expected.values)}
    else:
        figures = {name: f for name, f in expected.figures.items() if name != "memory_bytes"}
        speed = {
            "known": True,
            "runs": expected.runs,
            **{name: {"value": f.value, "low": f.low, "high": f.high} for name, f in figures.items()},
        }
    return {
        "place": row.place,
        "engine": row.engine,
        "precision": row.precision,
        "settings": dict(row.settings),
        "memory": {
            "fits": fit.fits,
            "needed_bytes": fit.needed_bytes or None,
            "available_bytes": fit.available_bytes,
            "reason": t(fit.verdict, **fit.values),
            "parts": [
                {"name": part.name, "place": part.place, "bytes": part.size_bytes, "least_bytes": part.least_bytes}
                for part in fit.parts
            ],
        },
        "speed": speed,
        "at_most_tokens_per_s": row.at_most_tokens_per_s,
    }


def nothing_fits(rows: Sequence[EstimateRow]) -> DoesNotFit | None:
    """The refusal where no row fits (or might), with the numbers of the one that needs least."""
    refused = [row.fit for row in rows if row.fit.fits is False]
    if len(refused) < len(rows) or not refused:
        return None
    return min(refused, key=lambda fit: fit.needed_bytes / max(1, fit.available_bytes)).error()
