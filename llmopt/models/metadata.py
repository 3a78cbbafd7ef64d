"""What a model is, read from its headers alone: nothing is loaded, and nothing a stranger wrote is executed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llmopt.errors import WeightsError
from llmopt.models.config_facts import facts_of_config
from llmopt.models.entry import ModelEntry
from llmopt.models.gguf_facts import facts_of_gguf, split_headers
from llmopt.models.header_errors import bad_header
from llmopt.models.safetensors_header import SafeTensor, read_json, read_safetensors_header, weight_files
from llmopt.paths import Workspace
from llmopt.records import ModelInfo

__all__ = ["read_facts", "read_model"]

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TEMPLATE_BYTES = 1 << 20
_COMPANIONS = ("scales", "qzeros", "g_idx", "absmax", "quant_map", "quant_state", "scale_inv", "weight_scale")
"""Ends of tensor names that describe how others are quantised and hold no weights of their own."""


def read_model(path: Path, name: str | None = None, *, allow_pickle: bool = False) -> ModelInfo:
    """The model at ``path``: a GGUF file (the first, where split), or a folder with config.json and safetensors.

    Raises WeightsError for what is missing, damaged or dangerous. ``allow_pickle`` accepts a folder whose only
    weights are pickled; they are still not opened here, so their size stays the size of the files.
    """
    path = Path(path)
    if path.is_file():
        facts = facts_of_gguf(split_headers(path), path)
        return ModelInfo(name=name or path.stem, path=str(path), format="gguf", **facts)
    if not path.is_dir():
        raise WeightsError("weights.missing_path", path=path)
    ggufs = sorted(path.glob("*.gguf"))
    if not (path / "config.json").is_file():
        if len(ggufs) == 1 or (ggufs and "-00001-of-" in ggufs[0].name):
            return read_model(ggufs[0], name)
        raise bad_header(path, "no_config")
    return _read_folder(path, name or path.name, allow_pickle=allow_pickle)


def _read_folder(folder: Path, name: str, *, allow_pickle: bool) -> ModelInfo:
    config = read_json(folder / "config.json")
    facts = facts_of_config(config, folder / "config.json")
    files = weight_files(folder)
    if files:
        tensors = [tensor for file in files for tensor in read_safetensors_header(file)]
        facts |= _weights(tensors, config)
        facts["extra"] = facts["extra"] | _parts(tensors)
    else:
        pickles = [file for pattern in _PICKLES for file in folder.glob(pattern)]
        if not pickles:
            raise bad_header(folder, "no_weights")
        if not allow_pickle:
            raise WeightsError("weights.pickle_refused", path=folder)
        facts["weight_bytes"] = sum(file.stat().st_size for file in pickles)
    template = _chat_template(folder)
    facts["chat_template"] = template is not None
    facts["thinking"] = None if template is None else "<think>" in template or "enable_thinking" in template
    return ModelInfo(name=name, path=str(folder), format="safetensors", **facts)


def _weights(tensors: list[SafeTensor], config: dict[str, Any]) -> dict[str, int]:
    """Exact bytes, and weights counted where several are packed into one stored number."""
    bits = _quantization(config).get("bits")
    bits = bits if type(bits) is int and 0 < bits <= 16 else 4  # noqa: PLR2004 - 4-bit is the usual packing
    return {
        "weight_bytes": sum(tensor.size_bytes for tensor in tensors),
        "parameters": sum(_weights_in(tensor, bits) for tensor in tensors),
    }


def _quantization(config: dict[str, Any]) -> dict[str, Any]:
    given = config.get("quantization_config")
    return given if isinstance(given, dict) else {}


def _weights_in(tensor: SafeTensor, bits: int) -> int:
    end = tensor.name.rsplit(".", 1)[-1]
    if end in _COMPANIONS or end.endswith(("_scale", "_scale_inv", "_zero_point", "_shape", "nested_absmax")):
        return 0
    packed = end in {"qweight", "weight_packed"} or end.endswith(("_packed", "_blocks"))
    if packed or (end == "weight" and tensor.dtype == "U8"):
        return tensor.size_bytes * 8 // bits
    return tensor.elements


def _parts(tensors: Iterable[SafeTensor]) -> dict[str, int]:
    """Bytes of the experts and of the token embedding, which a step does not read in full."""
    experts = embedding = 0
    for tensor in tensors:
        if ".experts." in tensor.name:
            experts += tensor.size_bytes
        elif tensor.name.endswith(("embed_tokens.weight", "wte.weight", "word_embeddings.weight")):
            embedding += tensor.size_bytes
    return {key: value for key, value in (("expert_bytes", experts), ("embedding_bytes", embedding)) if value}


def _chat_template(folder: Path) -> str | None:
    """The template's text from wherever this generation of tools keeps it; a broken one counts as none."""
    for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"):
        file = folder / name
        if not file.is_file():
            continue
        if name.endswith(".jinja"):
            return file.read_bytes()[:_TEMPLATE_BYTES].decode("utf-8", errors="replace")
        try:
            template = read_json(file).get("chat_template")
        except WeightsError:
            continue
        if isinstance(template, list):  # several named templates
            template = "\n".join(str(entry.get("template", "")) for entry in template if isinstance(entry, dict))
        if isinstance(template, str) and template:
            return template
    return None


def read_facts(entry: ModelEntry, workspace: Workspace) -> tuple[ModelInfo, str | None]:
    """What is known of a model without fetching anything, and why its local files could not be read (or None).

    A file or folder of this machine is read from its headers; for any other the catalogue's facts are all there is.
    """
    if not entry.local:
        return entry.facts, None
    path = workspace.root / Path(entry.path).expanduser()
    try:
        return read_model(path, entry.name, allow_pickle=entry.allow_pickle), None
    except WeightsError as error:
        return entry.facts, str(error)
