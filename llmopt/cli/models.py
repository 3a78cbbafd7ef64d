"""``llmopt models``: add, show and remove entries of the workspace's catalogue, config/models.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmopt.cli.completing import complete_models, complete_own_models
from llmopt.cli.listing import fit_sentence, fit_word
from llmopt.cli.options import Output, debug_option, json_option, lang_option, option
from llmopt.errors import UsageError
from llmopt.messages import current_language, t
from llmopt.paths import Workspace
from llmopt.records import DataType, DeviceType, ModelType
from llmopt.report.words import size

if TYPE_CHECKING:
    from llmopt.config.models import ModelConfig
    from llmopt.models.entry import ModelEntry
    from llmopt.records import ModelInfo

__all__ = ["command"]

_SAMPLING = ("temperature", "top_p", "top_k", "max_tokens")


@click.group("models", help=t("cli.models.long"), short_help=t("cli.models.short"))
def command() -> None:
    """Entries of the workspace's catalogue."""


@command.command("add", help=t("cli.models.add.long"), short_help=t("cli.models.add.short"))
@click.argument("name")
@click.argument("path")
@option("--type", "model_type", key="models.add.type", default=None)
@option("--device", key="models.add.device", type=click.Choice([d.value for d in DeviceType]), default="auto")
@option("--dtype", key="models.add.dtype", type=click.Choice([d.value for d in DataType]), default="auto")
@option("--load-in-4bit", key="models.add.four", is_flag=True)
@option("--load-in-8bit", key="models.add.eight", is_flag=True)
@option("--quantization", "method", key="models.add.quantization", default=None)
@option("--description", key="models.add.description", default="")
@option("--revision", key="models.add.revision", default=None)
@option("--gguf-repo", key="models.add.gguf_repo", default=None)
@option("--gguf-file", key="models.add.gguf_file", default=None)
@option("--sha256", key="models.add.sha256", default=None)
@option("--draft-model", key="models.add.draft", default=None)
@option("--temperature", key="models.add.sampling", type=float, default=None)
@option("--top-p", key="models.add.sampling", type=float, default=None)
@option("--top-k", key="models.add.sampling", type=int, default=None)
@option("--max-tokens", key="models.add.sampling", type=int, default=None)
@option("--trust-remote-code", key="models.add.trust", is_flag=True)
@option("--allow-pickle", key="models.add.pickle", is_flag=True)
@option("--replace", key="models.add.replace", is_flag=True)
@json_option
@debug_option
@lang_option
def add(*, name: str, replace: bool, as_json: bool, debug: bool, **given: Any) -> None:
    """Check the entry, read a local path's headers, write config/models.json."""
    del debug
    from llmopt.config.models import ModelConfigManager
    from llmopt.models.catalogue import all_models

    workspace, output = Workspace.here(), Output(as_json=as_json)
    manager = ModelConfigManager(workspace.models_file)
    if name in manager.list_configs() and not replace:
        raise UsageError("models.exists", name=name, path=workspace.models_file)
    config = _config(name, given, workspace)
    manager.add_config(name, config)
    facts = _read_local(config, workspace)
    path = manager.save_to_file()
    output.tell(t("models.added", name=name, path=path))
    _say_rows(output, _described(all_models(workspace)[name], facts))
    output.data({"model": name, "file": str(path), "entry": config.to_json()})


def _config(name: str, given: dict[str, Any], workspace: Workspace) -> ModelConfig:
    from llmopt.config.models import ModelConfig, QuantizationConfig
    from llmopt.engines.registry import engine_names
    from llmopt.records import InferenceParams

    kind = given["model_type"]
    if kind is not None and kind not in {each.value for each in ModelType} | set(engine_names()):
        raise UsageError("models.bad_type", value=kind, known=", ".join(engine_names()))
    quantization = None
    if given["load_in_4bit"] or given["load_in_8bit"] or given["method"]:
        quantization = QuantizationConfig(
            load_in_4bit=given["load_in_4bit"], load_in_8bit=given["load_in_8bit"], method=given["method"]
        )
    names = ("description", "revision", "trust_remote_code", "allow_pickle", "gguf_repo", "gguf_file", "sha256")
    draft = given["draft_model"]
    return ModelConfig(
        name=name,
        model_path=_kept_path(given["path"], workspace),
        model_type=ModelType(kind) if kind else None,
        device=DeviceType(given["device"]),
        dtype=DataType(given["dtype"]),
        quantization=quantization,
        draft_model=_kept_path(draft, workspace) if draft else None,
        inference=InferenceParams(**{each: given[each] for each in _SAMPLING}),
        **{each: given[each] for each in names},
    ).checked()


def _kept_path(text: str, workspace: Workspace) -> str:
    """``text``, made absolute where it names something here that would not be found from the workspace."""
    here = Path(text).expanduser()
    if here.exists() and not (workspace.root / here).exists():
        return str(here.resolve())
    return text


def _read_local(config: ModelConfig, workspace: Workspace) -> ModelInfo | None:
    """The facts in a local path's headers; raises WeightsError for files that are missing, damaged or dangerous."""
    from llmopt.models.catalogue import find_model
    from llmopt.models.metadata import read_model

    entry = find_model(config.model_path, workspace)
    if not entry.local:
        return None
    path = workspace.root / Path(entry.path).expanduser()
    return read_model(path, config.name, allow_pickle=config.allow_pickle)


@command.command("show", help=t("cli.models.show.long"), short_help=t("cli.models.show.short"))
@click.argument("name", shell_complete=complete_models)
@json_option
@debug_option
@lang_option
def show(*, name: str, as_json: bool, debug: bool) -> None:
    """Everything known of one model, with its sources, and whether it fits here."""
    del debug
    from llmopt.hardware.probe import probe
    from llmopt.models.catalogue import find_model
    from llmopt.models.fit_table import fit_row
    from llmopt.models.metadata import read_facts

    workspace, output = Workspace.here(), Output(as_json=as_json)
    entry = find_model(name, workspace)
    facts, unreadable = read_facts(entry, workspace)
    fit = fit_row(facts, probe())
    row = {"fits": fit.fits if unreadable is None else False, "precision": fit.precision}
    why = unreadable or fit_sentence(fit.verdict, fit.values)
    _say_rows(output, _described(entry, facts))
    output.tell(t("models.fits_here", answer=fit_word(row), why=why))
    output.tell(t("models.sources") if entry.sources else t("models.no_sources"))
    for group, source in entry.sources.items():
        output.tell(f"  {group}: {source}")
    output.data(
        {
            "model": entry.name,
            "path": entry.path,
            "origin": entry.origin,
            "facts": asdict(facts),
            "gguf": asdict(entry.gguf) if entry.gguf else None,
            "sources": dict(entry.sources),
            "settings": _settings(entry),
            "fits": {**row, "needed_bytes": fit.needed_bytes, "available_bytes": fit.available_bytes, "why": why},
        }
    )


@command.command("remove", help=t("cli.models.remove.long"), short_help=t("cli.models.remove.short"))
@click.argument("name", shell_complete=complete_own_models)
@json_option
@debug_option
@lang_option
def remove(*, name: str, as_json: bool, debug: bool) -> None:
    """Take an entry out of config/models.json; weights and results stay."""
    del debug
    from llmopt.config.models import ModelConfigManager
    from llmopt.models.catalogue import built_in_models

    workspace, output = Workspace.here(), Output(as_json=as_json)
    manager = ModelConfigManager(workspace.models_file)
    if name not in manager.list_configs() and name in built_in_models():
        raise UsageError("models.built_in", name=name)
    removed = manager.remove_config(name)
    path = manager.save_to_file()
    output.tell(t("models.removed", name=name, path=path))
    if name in built_in_models():
        output.tell(t("models.built_in_again", name=name))
    output.data({"model": name, "file": str(path), "entry": removed.to_json()})


def _described(entry: ModelEntry, read: ModelInfo | None) -> list[tuple[str, str]]:
    """Label and value of what is known; what is not known is left out."""
    facts = read or entry.facts
    thinking = None if facts.thinking is None else t("list.yes") if facts.thinking else t("list.no")
    rows = {
        "name": entry.name,
        "path": entry.path,
        "origin": t(f"models.origin_{entry.origin.replace('-', '_')}"),
        "about": entry.describe(current_language()),
        "license": facts.license,
        "parameters": f"{facts.parameters / 1e9:.3g} B" if facts.parameters else None,
        "weights": size(facts.weight_bytes) if facts.weight_bytes else None,
        "quantization": facts.quantization,
        "layers": facts.layers,
        "heads": facts.heads,
        "kv_heads": facts.kv_heads if isinstance(facts.kv_heads, int) else None,
        "context": f"{facts.context_length:,}" if facts.context_length else None,
        "thinking": thinking,
        "gguf": f"{entry.gguf.repo} · {entry.gguf.files[0]}" if entry.gguf else None,
        "settings": ", ".join(f"{key}={value}" for key, value in _settings(entry).items()),
    }
    return [(t(f"models.row_{name}"), str(value)) for name, value in rows.items() if value]


def _settings(entry: ModelEntry) -> dict[str, Any]:
    """What the user set for this model, beside what it is."""
    given: dict[str, Any] = {
        "model_type": entry.model_type.value if entry.model_type else None,
        "device": None if entry.device is DeviceType.AUTO else entry.device.value,
        "dtype": None if entry.dtype is DataType.AUTO else entry.dtype.value,
        "revision": entry.revision,
        "trust_remote_code": entry.trust_remote_code,
        "allow_pickle": entry.allow_pickle,
        "draft_model": entry.draft,
        **{
            key: value for key, value in entry.quantization.items() if key in {"load_in_4bit", "load_in_8bit", "method"}
        },
        **entry.inference.given(),
    }
    return {key: value for key, value in given.items() if value not in (None, False)}


def _say_rows(output: Output, rows: list[tuple[str, str]]) -> None:
    for label, value in rows:
        output.tell(f"{label}: {value}")
