"""An old single-file ``llm_config.json`` in the words of today's settings and models, with a note for every field.

Nothing is read or written here: ``parse_v1`` turns bytes into data, ``convert`` data into models and settings.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from llmopt.config.models import ModelConfig
from llmopt.config.settings import SPECS
from llmopt.config.v1_file import parse_v1
from llmopt.config.v1_values import listed, plain, quantization, starting_value, word, words
from llmopt.errors import LlmoptError, SettingsError
from llmopt.logs import mask
from llmopt.messages import t
from llmopt.records import DataType, DeviceType, InferenceParams, ModelType

__all__ = ["Conversion", "Note", "convert", "merge", "parse_v1"]

Outcome = Literal["carried", "changed", "dropped"]
_LETTERS = 60
_NOT_IN_NAMES = re.compile(r"[^\w.:@+-]+")
_SETTINGS = {spec.name: spec for spec in SPECS}
_ENUMS: Mapping[str, tuple[type[ModelType | DataType | DeviceType], str]] = {
    "model_type": (ModelType, "types"),
    "dtype": (DataType, "dtypes"),
    "device": (DeviceType, "devices"),
}


@dataclass(frozen=True, kw_only=True)
class Note:
    """What became of one field: where it stood, its value (shortened, secrets masked), its new place, and why."""

    field: str
    outcome: Outcome
    value: str
    target: str = ""
    """``models.NAME.FIELD`` or ``settings.NAME``; empty for what was dropped."""
    became: str = ""
    reason: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def text(self) -> str:
        """The reason in the reader's language."""
        return t(self.reason, **self.values)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """The new models and settings, and a note for every field of the old file."""

    models: tuple[ModelConfig, ...]
    settings: Mapping[str, Any]
    notes: tuple[Note, ...]


def convert(
    document: Any, *, datasets: Collection[str], known_models: Collection[str] = (), path: str = "llm_config.json"
) -> Conversion:
    """``document`` as models and settings; ``datasets`` and ``known_models`` are the names that exist today.

    Raises SettingsError where it holds neither an object nor a list.
    """
    work = _Work(datasets, known_models)
    if isinstance(document, list):
        work.models("models", document)
    elif not isinstance(document, dict):
        raise SettingsError("v1.shape", path=path)
    elif _is_catalogue(document):
        work.models("", document)
    else:
        single = {key: value for key, value in document.items() if _belongs_to_model(key, document)}
        if single:
            work.model("", None, single)
        work.section("", {key: value for key, value in document.items() if key not in single})
    return work.finish()


def merge(found: Conversion, settings: Mapping[str, Any], models: Mapping[str, ModelConfig]) -> Conversion:
    """``found`` without what today's files already say otherwise: the user's later choice stays."""
    taken = {f"settings.{n}" for n, v in found.settings.items() if n in settings and settings[n] != v}
    taken |= {f"models.{m.name}" for m in found.models if m.name in models and models[m.name] != m}
    notes = [
        replace(note, outcome="dropped", target="", became="", reason="v1.already_set", values={"target": note.target})
        if note.target and any(f"{note.target}.".startswith(f"{place}.") for place in taken)
        else note
        for note in found.notes
    ]
    return Conversion(
        models=tuple(m for m in found.models if m.name not in models),
        settings={n: v for n, v in found.settings.items() if n not in settings},
        notes=tuple(notes),
    )


def _is_model(value: Any) -> bool:
    paths = words()["model"]["model_path"]
    return isinstance(value, Mapping) and any(plain(k) in paths and isinstance(v, str) for k, v in value.items())


def _is_catalogue(document: Mapping[str, Any]) -> bool:
    """Whether the whole object is a list of models by name: no other shape gives every value a path."""
    return bool(document) and all(_is_model(value) for value in document.values()) and "model" not in document


def _belongs_to_model(key: str, document: Mapping[str, Any]) -> bool:
    """Whether a top-level key describes the file's only model (a file that has a list of models has no such)."""
    if any(plain(each) in words()["models"] for each in document) or not _is_model(document):
        return False
    if plain(key) == "model":
        return isinstance(document[key], str) and not any(
            plain(k) in words()["model"]["model_path"] for k in document if k != key
        )
    known = {alias for aliases in words()["model"].values() for alias in aliases}
    return plain(key) in known or plain(key) in words()["consent"]


class _Work:
    """One conversion under way: what was found so far and the notes about it."""

    def __init__(self, datasets: Collection[str], known_models: Collection[str]) -> None:
        self._datasets = datasets
        self._known_models = known_models
        self._models: dict[str, ModelConfig] = {}
        self._settings: dict[str, Any] = {}
        self._shared: dict[str, tuple[str, Any, Any]] = {}
        self._notes: list[Note] = []

    def finish(self) -> Conversion:
        """Give the models what stood outside them, and check names that refer to models."""
        for name, (where, value, start) in self._shared.items():
            lacking = [m for m in self._models.values() if getattr(m.inference, name) is None]
            for model in lacking:
                changed = replace(model, inference=replace(model.inference, **_part(name, start)))
                self._models[model.name] = changed
            if lacking:
                target = f"models.*.inference.{name}"
                self._keep(where, value, target, start, "v1.shared", outcome="changed", count=len(lacking))
            else:
                self._drop(where, value, "v1.no_model_for_it")
        return Conversion(models=tuple(self._models.values()), settings=dict(self._settings), notes=tuple(self._notes))

    def section(self, prefix: str, values: Mapping[str, Any]) -> None:
        """One object of settings, whatever it is called."""
        known = words()
        for key, value in values.items():
            where, name = f"{prefix}{key}", plain(key)
            setting = next((s for s, aliases in known["settings"].items() if name in aliases), None)
            sampling = next((s for s, aliases in known["sampling"].items() if name in aliases), None)
            if name in known["models"] or (name == "model" and isinstance(value, Mapping)):
                self.models(where, [value] if name == "model" else value)
            elif isinstance(value, Mapping) and name in {*known["sections"], *known["ranges"]}:
                self.section(f"{where}.", value)
            elif sampling is not None:
                self._share(where, sampling, value)
            elif setting is not None:
                self._setting(where, name, setting, value)
            else:
                self._drop_unknown(where, name, value, known["settings"])

    def models(self, where: str, value: Any) -> None:
        """Models as a list, by name, or one alone."""
        if isinstance(value, str) or _is_model(value):
            self.model(where, None, value)
        elif isinstance(value, Mapping):
            for name, entry in value.items():
                self.model(f"{where}.{name}" if where else name, name, entry)
        elif isinstance(value, list):
            for number, entry in enumerate(value):
                self.model(f"{where}[{number}]", None, entry)
        else:
            self._drop(where, value, "v1.not_a_model")

    def model(self, where: str, name: str | None, entry: Any) -> None:
        """One model; a plain string is its path."""
        given = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(given, Mapping):
            self._drop(where, entry, "v1.not_a_model")
            return
        fields = _fields(given)
        title = fields.get("name", ("", None))[1]
        path_key, path = fields.get("model_path", ("", None))
        if path is None and isinstance(title, str) and "/" in title:
            (path_key, path), title = fields.pop("name"), None
        if not isinstance(path, str) or not path.strip():
            called = title or name
            self._drop(where, entry, "v1.built_in" if called in self._known_models else "v1.no_path")
            return
        wanted = title if isinstance(title, str) and title.strip() else name
        final = self._name(wanted or Path(path.replace("\\", "/").rstrip("/")).name)
        prefix = f"{where}." if where else ""
        place = f"models.{final}"
        self._keep(f"{prefix}{path_key}", path, f"{place}.model_path", path.strip(), "v1.same")
        if final != wanted:
            why = "v1.name_changed" if wanted else "v1.name_made"
            self._keep(f"{prefix}name", wanted, place, final, why, outcome="changed")
        elif "name" in fields and fields["name"][0] != path_key:
            self._keep(f"{prefix}{fields['name'][0]}", title, place, final, "v1.same")
        config = ModelConfig(name=final, model_path=path.strip())
        config = self._described(prefix, config, given, done={path_key, fields.get("name", ("", None))[0]})
        self._add(prefix or "models.", config)

    def _add(self, where: str, config: ModelConfig) -> None:
        """Take ``config`` after dropping start values out of bounds; what breaks another rule is left out whole."""
        for problem in list(config.problems()):
            part, _, name = problem.field.partition(".")
            if part == "inference":
                config = replace(config, inference=replace(config.inference, **_part(name, None)))
                self._undo(f"models.{config.name}.{problem.field}", problem.expected)
        try:
            self._models[config.name] = config.checked()
        except LlmoptError as error:
            self._undo(f"models.{config.name}", error.what)
            self._drop(where.rstrip("."), config.model_path, "v1.bad_value", why=error.what)

    def _undo(self, target: str, expected: str) -> None:
        self._notes = [
            replace(n, outcome="dropped", target="", became="", reason="v1.bad_value", values={"why": expected})
            if f"{n.target}.".startswith(f"{target}.")
            else n
            for n in self._notes
        ]

    def _described(self, prefix: str, config: ModelConfig, given: Mapping[str, Any], *, done: set[str]) -> ModelConfig:
        """``config`` with every other field of the old entry."""
        known = words()
        for key, value in given.items():
            where, name = f"{prefix}{key}", plain(key)
            kind = next((k for k, aliases in known["model"].items() if name in aliases), None)
            sampling = next((s for s, aliases in known["sampling"].items() if name in aliases), None)
            if key in done:
                continue
            if name in known["ranges"] and isinstance(value, Mapping):
                config = self._described(f"{where}.", config, value, done=set())
            elif sampling is not None:
                config = self._start(where, config, sampling, value)
            elif value is None:
                self._drop(where, value, "v1.empty")
            elif kind is not None and kind in _ENUMS:
                config = self._worded(where, config, kind, value)
            elif kind == "quantization":
                config = self._quantized(where, config, name, value)
            elif kind in {"description", "revision"} and isinstance(value, str):
                config = replace(config, **_part(kind, value))
                self._keep(where, value, f"models.{config.name}.{kind}", value, "v1.same")
            elif kind in {"name", "model_path"}:
                self._drop(where, value, "v1.second_name")
            else:
                self._drop_unknown(where, name, value, known["model"])
        return config

    def _worded(self, where: str, config: ModelConfig, kind: str, value: Any) -> ModelConfig:
        enum, table = _ENUMS[kind]
        found = word(value, table)
        if found is None:
            if kind in {"model_type", "dtype"}:  # "type": "gptq", "dtype": "4bit" speak of the quantisation
                found_quantization = quantization("quantization", value)
                if found_quantization is not None and config.quantization is None:
                    return self._quantized(where, config, "quantization", value)
            self._drop(where, value, f"v1.unknown_{kind}", known=", ".join(words()[table]))
            return config
        self._keep(where, value, f"models.{config.name}.{kind}", found, "v1.same" if found == value else "v1.spelling")
        return replace(config, **_part(kind, enum(found)))

    def _quantized(self, where: str, config: ModelConfig, name: str, value: Any) -> ModelConfig:
        if value is False or plain(value) in {"none", "false", "no", ""}:
            self._keep(where, value, f"models.{config.name}.quantization", "-", "v1.not_quantized", outcome="changed")
            return config
        found = quantization(name, value)
        if found is None or config.quantization not in {None, found}:
            self._drop(where, value, "v1.unknown_quantization")
            return config
        shown = found.method or f"load_in_{found.bits}bit"
        self._keep(where, value, f"models.{config.name}.quantization", shown, "v1.spelling")
        return replace(config, quantization=found)

    def _start(self, where: str, config: ModelConfig, name: str, value: Any) -> ModelConfig:
        found = starting_value(name, value)
        if found is None:
            self._drop(where, value, "v1.no_number")
            return config
        target = f"models.{config.name}.inference.{name}"
        self._keep(where, value, target, found.value, f"v1.{found.how}", low=found.low, high=found.high)
        return replace(config, inference=replace(config.inference, **_part(name, found.value)))

    def _share(self, where: str, name: str, value: Any) -> None:
        """A range outside the models: the answer's length is a setting, the others go to every model."""
        found = starting_value(name, value)
        probe = ModelConfig(name="x", model_path="x")
        if found is None:
            self._drop(where, value, "v1.no_number")
        elif name == "max_tokens":
            self._check(where, name, value, found.value, f"v1.{found.how}", low=found.low, high=found.high)
        else:
            config = replace(probe, inference=InferenceParams(**_part(name, found.value)))
            problem = next(iter(config.problems()), None)
            if problem is None:
                self._shared[name] = (where, value, found.value)
            else:
                self._drop(where, value, "v1.bad_value", why=problem.expected)

    def _setting(self, where: str, key: str, name: str, value: Any) -> None:
        if value is None:
            self._drop(where, value, "v1.empty")
        elif name == "dataset":
            self._dataset(where, value)
        elif name in {"method", "engine", "lang"}:
            table = {"method": "methods", "engine": "types", "lang": "languages"}[name]
            found = word(value, table)
            if found is None:
                self._drop(where, value, f"v1.unknown_{name}", known=", ".join(words()[table]))
            else:
                other = "v1.method" if name == "method" else "v1.spelling"
                self._check(where, name, value, found, "v1.same" if found == value else other)
        elif name == "model":
            self._default_model(where, value)
        else:
            number = starting_value(name, value)
            if number is None or number.how not in {"same", "spelling"}:
                self._drop(where, value, "v1.no_number")
            elif key == "timeout_minutes":
                self._check(where, name, value, 60.0 * number.value, "v1.minutes")
            else:
                self._check(where, name, value, number.value, f"v1.{number.how}")

    def _default_model(self, where: str, value: Any) -> None:
        name = value if isinstance(value, str) else ""
        fitting = [m.name for m in self._models.values() if name in {m.name, m.model_path}]
        if fitting or name in self._known_models or "/" in name or name.endswith(".gguf"):
            became = fitting[0] if fitting else name
            self._check(where, "model", value, became, "v1.same" if became == value else "v1.spelling")
        else:
            self._drop(where, value, "v1.unknown_model")

    def _dataset(self, where: str, value: Any) -> None:
        """The first of the datasets that exists becomes the setting; there is one at a time now."""
        for place, entry in listed(where, value):
            name = entry.strip()
            found = word(name.rsplit("/", 1)[-1], "datasets") or (
                plain(name) if plain(name) in self._datasets else None
            )
            is_file = name.endswith((".json", ".jsonl", ".csv", ".tsv", ".parquet", ".txt"))
            became = name if is_file else found if found in self._datasets else None
            if became is None:
                self._drop(place, entry, "v1.unknown_dataset", known=", ".join(self._datasets))
            elif "dataset" in self._settings:
                self._drop(place, entry, "v1.one_dataset", kept=self._settings["dataset"])
            else:
                self._check(place, "dataset", entry, became, "v1.same" if became == entry else "v1.spelling")

    def _check(self, where: str, name: str, value: Any, became: Any, reason: str, **values: Any) -> None:
        """Take a setting that its own rules allow; the first of several that mean the same stands."""
        if name in self._settings:
            self._drop(where, value, "v1.twice", name=name)
            return
        spec = _SETTINGS[name]
        if spec.kind is int and isinstance(became, float) and became.is_integer():
            became = int(became)
        try:
            self._settings[name] = spec.check(became, where)
        except LlmoptError:
            self._drop(where, value, "v1.bad_value", why=spec.expected)
        else:
            self._keep(where, value, f"settings.{name}", self._settings[name], reason, **values)

    def _name(self, wanted: str) -> str:
        """``wanted`` in letters a name may have, and not one that is taken."""
        cleaned = (_NOT_IN_NAMES.sub("-", wanted.strip()).strip("-.:@+") or "model")[:120]
        name, number = cleaned, 2
        while name in self._models:
            name, number = f"{cleaned}-{number}", number + 1
        return name

    def _drop_unknown(self, where: str, name: str, value: Any, known: Mapping[str, Any]) -> None:
        if name in words()["secrets"]:
            self._notes.append(Note(field=where, outcome="dropped", value="***", reason="v1.secret"))
            return
        for kind in ("consent", "remarks", "searched"):
            if name in words()[kind]:
                self._drop(where, value, f"v1.{kind}")
                return
        near = ", ".join(difflib.get_close_matches(name, known, n=1)) or "-"
        self._drop(where, value, "v1.unknown_key", near=near)

    def _keep(
        self, where: str, value: Any, target: str, became: Any, reason: str, *, outcome: Outcome | None = None, **v: Any
    ) -> None:
        how: Outcome = outcome or ("carried" if became == value and not isinstance(value, bool) else "changed")
        shown, new = _shown(value), _shown(became)
        self._notes.append(
            Note(field=where, outcome=how, value=shown, target=target, became=new, reason=reason, values=v)
        )

    def _drop(self, where: str, value: Any, reason: str, **values: Any) -> None:
        self._notes.append(Note(field=where, outcome="dropped", value=_shown(value), reason=reason, values=values))


def _fields(given: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Name and path of an entry with the keys they stand under, the most telling alias first."""
    return {kind: found for kind in ("name", "model_path") if (found := next(_aliased(given, kind), None)) is not None}


def _aliased(given: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Any]]:
    for alias in words()["model"][kind]:
        yield from ((key, value) for key, value in given.items() if plain(key) == alias and value is not None)


def _part(name: str, value: Any) -> dict[str, Any]:
    """One field to replace, by its name in the vocabulary."""
    return {name: value}


def _shown(value: Any) -> str:
    text = "-" if value is None else mask(str(value))
    if isinstance(value, Mapping | list):
        from llmopt.logs import mask_values  # noqa: PLC0415 - only for nested values

        text = str(mask_values(value))
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"
