"""What a llama.cpp server holds in memory.

The rules were read off the sizes that the server itself logs (build 11549, CPU) for three models over 96 launches of
different context, slots, micro-batch, cache types and attention, and agree with them within 3 %:

- cells of a cache are padded to 256; separate slots share the context evenly, a unified cache is one for all;
- a sliding cache keeps its window (of every slot, if unified) plus one micro-batch;
- logits: 4 bytes × vocabulary for each slot;
- compute, in 4-byte numbers a token of the micro-batch (as far as all slots' prompts fill it): 5 · hidden, plus the
  larger of 3 · feed-forward and the logits; a mask of 2 bytes a cell with flash attention; without it, 4 bytes a
  cell for the mask and each head;
- weights whose type has a faster layout on this CPU are copied into it (``REPACKED``);
- the vocabulary's tables: about 200 bytes for each token and merge.
"""

from __future__ import annotations

from llmopt.models.kv_cache import kv_cache
from llmopt.models.memory_fit import Part
from llmopt.records import Hardware, ModelInfo, Settings, Task

__all__ = ["parts"]

_MIB = 1 << 20
_CELLS = 256
_PROCESS_BYTES = 24 * _MIB
"""The worker's interpreter, the library's data and the stacks of its HTTP threads."""
_LIBRARY_BYTES = 12 * _MIB
"""Mapped code of the interpreter and the library."""
_TOKEN_BYTES = 200
_DEVICE_CONTEXT_BYTES = 512 * _MIB
"""Driver context and kernels on one GPU."""
_BITS_PER_WEIGHT = 4.85
"""Of a Q4_K_M file: taken where only the number of parameters is known."""
REPACKED = {
    "x86_64": ("Q4_0", "Q4_K", "IQ4_NL", "MXFP4"),
    "aarch64": ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL"),
}
_SAME_ARCHITECTURE = {"amd64": "x86_64", "arm64": "aarch64"}


def parts(model: ModelInfo, settings: Settings, hardware: Hardware, task: Task) -> tuple[Part, ...] | None:
    """The parts of one launch, or None where the model's shape is not known well enough."""
    weights = _weight_bytes(model)
    shape = (model.hidden_size, model.vocabulary, model.layers)
    caches = kv_cache(
        model,
        key_type=str(settings.get("cache_type_k") or "f16"),
        value_type=str(settings.get("cache_type_v") or "f16"),
    )
    if weights is None or caches is None or None in shape:
        return None
    slots = int(settings.get("slots") or 1)
    cells, streams = _cells(settings, slots)
    ubatch = int(settings.get("ubatch") or 512)
    extra_window = ubatch + ((slots - 1) * caches.window if settings.get("kv_unified") else 0)
    window_cells = min(cells, _padded(caches.window + extra_window))
    kv = streams * (cells * caches.full_bytes + window_cells * caches.sliding_bytes)
    state = slots * caches.state_elements * 4
    compute = _compute_bytes(model, settings, cells=cells, window_cells=window_cells, slots=slots, task=task)
    offloaded = _offloaded(model, settings, hardware)
    found = [
        Part(name="weights", size_bytes=weights, mapped=True),
        Part(name="repacked", size_bytes=round(_repacked(model, hardware) * (1 - offloaded))),
        Part(name="kv", size_bytes=round(kv * (1 - offloaded))),
        Part(name="state", size_bytes=round(state * (1 - offloaded))),
        Part(name="output", size_bytes=slots * 4 * (model.vocabulary or 0)),
        Part(name="compute", size_bytes=compute),
        Part(name="runtime", size_bytes=_runtime_bytes(model)),
        Part(name="runtime", size_bytes=_LIBRARY_BYTES, mapped=True),
    ]
    if offloaded:
        found += [
            Part(name="weights", size_bytes=round(weights * offloaded), place="device"),
            Part(name="kv", size_bytes=round((kv + state) * offloaded), place="device"),
            Part(name="compute", size_bytes=compute, place="device"),
            Part(name="runtime", size_bytes=_DEVICE_CONTEXT_BYTES * len(hardware.devices), place="device"),
        ]
    return tuple(part for part in found if part.size_bytes)


def _weight_bytes(model: ModelInfo) -> int | None:
    """The file as mapped; for a model that is not here yet, its stated size or a Q4_K_M file of its parameters."""
    if "file_bytes" in model.extra:
        return int(model.extra["file_bytes"])
    if model.format == "gguf" and model.weight_bytes is not None:
        return model.weight_bytes
    return None if model.parameters is None else round(model.parameters * _BITS_PER_WEIGHT / 8)


def _repacked(model: ModelInfo, hardware: Hardware) -> int:
    architecture = hardware.cpu.architecture.lower()
    types = REPACKED.get(_SAME_ARCHITECTURE.get(architecture, architecture), ())
    by_type = model.extra.get("bytes_by_type", {})
    return sum(int(by_type.get(name, 0)) for name in types)


def _cells(settings: Settings, slots: int) -> tuple[int, int]:
    """Cells of one cache stream, and how many streams there are."""
    context = int(settings.get("context") or 4096)
    if settings.get("kv_unified"):
        return _padded(context), 1
    return _padded(context // slots), slots


def _padded(cells: int) -> int:
    return -(-cells // _CELLS) * _CELLS


def _compute_bytes(
    model: ModelInfo, settings: Settings, *, cells: int, window_cells: int, slots: int, task: Task
) -> int:
    """The scratch buffer as far as this task touches it: its masks grow with the cells in use."""
    at_once = int(settings.get("slots") or 1) if settings.get("kv_unified") else 1
    used = min(cells, _padded(task.context_tokens * at_once))
    windowed = min(window_cells, used) if model.sliding_layers else 0
    hidden, heads = model.hidden_size or 0, model.heads or 0
    ubatch = int(settings.get("ubatch") or 512)
    ubatch = min(ubatch, int(settings.get("batch") or ubatch), slots * max(1, task.prompt_tokens))
    inner = 5 * hidden * 4 * ubatch
    forward = 3 * _forward_width(model) * 4 * ubatch
    logits = slots * (model.vocabulary or 0) * 4
    if settings.get("flash_attention") != "off":
        return inner + max(forward, logits) + 2 * ubatch * (used + windowed)
    masks = 4 * ubatch * (used + windowed)
    key_heads = max(model.kv_heads) if isinstance(model.kv_heads, tuple) else model.kv_heads or heads
    projections = 2 * (heads + 2 * key_heads) * (model.head_dim or 0) * 4 * ubatch
    attention = projections + 4 * heads * ubatch * used
    return inner + masks + max(attention, forward, logits)


def _forward_width(model: ModelInfo) -> int:
    """The widest feed-forward activation: all active experts side by side, where there are experts."""
    expert = int(model.extra.get("expert_feed_forward") or 0)
    active = (model.active_experts or 0) + int(model.extra.get("shared_experts") or 0)
    return max(model.feed_forward or 4 * (model.hidden_size or 0), expert * active)


def _runtime_bytes(model: ModelInfo) -> int:
    read = "bytes_by_type" in model.extra  # a header was read: no merges there means a tokenizer without them
    entries = (model.vocabulary or 0) + int(model.extra.get("merges", 0 if read else model.vocabulary or 0))
    return _PROCESS_BYTES + _TOKEN_BYTES * entries


def _offloaded(model: ModelInfo, settings: Settings, hardware: Hardware) -> float:
    """The share of the layers (the output counts as one) that lies on GPUs."""
    layers = int(settings.get("gpu_layers") or 0)
    if not layers or not hardware.devices or not model.layers:
        return 0.0
    return min(1.0, layers / (model.layers + 1))
