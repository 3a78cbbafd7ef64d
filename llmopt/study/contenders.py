"""From what a user names — a model, a result, ``MODEL@setting=value`` — to a configuration that can be launched."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from llmopt.config.settings import SettingsView
from llmopt.errors import DataError, SettingsError, UsageError, json_problem
from llmopt.measure.slo import Slo
from llmopt.measure.warmup import WarmUpRule
from llmopt.messages import t
from llmopt.paths import Workspace
from llmopt.records import Configuration, InferenceParams, SettingValue
from llmopt.study.launches import Contender
from llmopt.study.prepare import Prepared, prepare
from llmopt.study.request import StudyRequest
from llmopt.workload.prompts import forms_for

__all__ = ["Wanted", "contenders", "find_result", "guess", "load_result", "read_pairs", "stored", "wanted"]

SIZE_LIMIT = 256 << 20
SCHEMA_VERSION = 1
FIXED = {"max_tokens": "--max-tokens", "seed": "--seed"}
"""Request settings that belong to the task, not to a configuration."""
WORDS: Mapping[str, SettingValue] = {"true": True, "false": False, "on": True, "off": False, "none": None, "null": None}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One configuration as named: a model, perhaps with stored settings, perhaps with changed ones."""

    label: str
    model: str
    engine: str | None = None
    configuration: Configuration | None = None
    changes: Mapping[str, str] = field(default_factory=dict)


def wanted(text: str, workspace: Workspace) -> Wanted:
    """Read ``MODEL``, ``RESULT`` or either with ``@name=value,…``; raises UsageError or DataError.

    ``engine`` is a name like any other here: ``MODEL@engine=vllm`` runs the model on that engine.
    """
    name, at, changes = text.rpartition("@")
    if not at or "=" not in changes:
        name, changes = text, ""
    pairs = read_pairs(changes.split(",")) if changes else {}
    engine = pairs.pop("engine", None)
    path = find_result(name, workspace)
    if path is None:
        return Wanted(label=text, model=name, engine=engine, changes=pairs)
    found = stored(load_result(path))
    if engine is not None and engine != found.engine:
        raise UsageError("benchmark.other_engine", what=name, engine=found.engine, asked=engine)
    return replace(found, changes=pairs)


def stored(result: Mapping[str, Any]) -> Wanted:
    """The winner (or the one measured configuration) of a result."""
    best = result["best"]
    try:
        given = best["configuration"]
        known = {f.name for f in fields(InferenceParams)}
        params = {k: v for k, v in given["request"].items() if k in known and k not in FIXED}
        configuration = Configuration(
            engine=given["engine"], launch=dict(given["launch"]), request=InferenceParams(**params)
        )
        model = best.get("model") or result["request"]["model"]
        return Wanted(
            label=str(result["study"]), model=model, engine=given["engine"], configuration=configuration, changes={}
        )
    except (KeyError, TypeError, AttributeError) as error:  # a JSON file that only looks like a result
        raise DataError("benchmark.not_a_result", path=result.get("study", "-"), reason=repr(error)) from None


def find_result(text: str, workspace: Workspace) -> Path | None:
    """The result file that ``text`` names (a file, its folder, or a study), or None where it names none."""
    for path in (Path(text), workspace.root / text, workspace.results / text):
        if path.suffix == ".json" and path.is_file():
            return path
        if (path / "result.json").is_file():
            return path / "result.json"
    if text.endswith(".json"):
        raise DataError("benchmark.no_such_result", path=text)
    return None


def load_result(path: Path) -> dict[str, Any]:
    """The content of a ``result.json``; raises DataError for anything else."""
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise DataError("benchmark.not_a_result", path=path, reason=f"> {SIZE_LIMIT >> 20} MB")
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        why = f"{error.lineno}:{error.colno}: {json_problem(error)}"
        raise DataError("benchmark.not_a_result", path=path, reason=why) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("benchmark.not_a_result", path=path, reason=error) from None
    lacking = (
        [name for name in ("schema_version", "study", "best", "request") if name not in found]
        if isinstance(found, dict)
        else ["{}"]
    )
    if lacking:
        raise DataError("benchmark.not_a_result", path=path, reason=t("benchmark.lacking", names=", ".join(lacking)))
    if found["schema_version"] != SCHEMA_VERSION:
        raise DataError("benchmark.other_schema", path=path, version=found["schema_version"])
    return dict(found)


def contenders(
    named: Sequence[Wanted],
    request: StudyRequest,
    *,
    workspace: Workspace,
    settings: SettingsView,
    slo: Slo | None = None,
    on_weights: Callable[..., None] | None = None,
) -> tuple[Contender, ...]:
    """Resolve all of them for one and the same task: the same items, load and answer limit."""

    def prepared_for(one: Wanted, max_tokens: int | None) -> Prepared:
        if request.engine and one.engine and request.engine != one.engine:
            raise UsageError("benchmark.other_engine", what=one.label, engine=one.engine, asked=request.engine)
        asked = replace(request, model=one.model, engine=one.engine or request.engine, max_tokens=max_tokens)
        return prepare(asked, workspace=workspace, settings=settings, on_weights=on_weights)

    ready = [prepared_for(one, request.max_tokens) for one in named]
    limit = max(prepared.work.max_tokens for prepared in ready)
    ready = [
        prepared if prepared.work.max_tokens == limit else prepared_for(one, limit)
        for one, prepared in zip(named, ready, strict=True)
    ]
    rule = WarmUpRule(cap_s=settings["warmup_cap_s"])
    seen: dict[str, int] = {}
    found = []
    for one, prepared in zip(named, ready, strict=True):
        seen[one.label] = seen.get(one.label, 0) + 1
        label = one.label if seen[one.label] == 1 else f"{one.label} #{seen[one.label]}"
        configuration = _changed(one.configuration or prepared.baseline, one, prepared)
        found.append(
            Contender(
                label=label,
                given=one.model,
                prepared=replace(prepared, work=replace(prepared.work, slo=slo, warm_up=rule)),
                configuration=configuration,
            )
        )
    return tuple(found)


# ── changed settings ───────────────────────────────────────────────────────────────────────────────────────────────


def read_pairs(pairs: Sequence[str]) -> dict[str, str]:
    """``name=value`` texts as a mapping; raises UsageError for anything else."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UsageError("benchmark.pair", value=pair)
        found[name.strip().replace("-", "_")] = value.strip()
    return found


def _changed(base: Configuration, one: Wanted, prepared: Prepared) -> Configuration:
    """``base`` with the user's changes; raises UsageError for unknown names and values, SettingsError for conflicts."""
    engine, task = prepared.engine, prepared.task
    parameters = {p.name: p for p in engine.parameters(prepared.model, prepared.hardware, task)}
    known_request = engine.request_settings - FIXED.keys()
    launch, request = dict(base.launch), base.request
    for name, text in (one.changes or {}).items():
        if name in FIXED:
            raise UsageError("benchmark.fixed_setting", name=name, option=FIXED[name])
        if name in known_request:
            value: Any = _request_value(name, text, prepared)
            request = replace(request, **{name: value})
        elif name in launch or name in parameters:
            choices = parameters[name].values if name in parameters else ()
            launch[name] = _launch_value(name, text, launch.get(name), choices)
        else:
            names = sorted({*known_request, *launch, *parameters})
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names
            raise UsageError("benchmark.unknown_setting", name=name, near=", ".join(near))
    if launch != base.launch:
        launch = {
            name: value
            for name, value in launch.items()
            if name not in parameters
            or all(launch.get(other) in allowed for other, allowed in parameters[name].only_if.items())
        }
        rule = engine.conflict(launch, prepared.model, prepared.hardware, task)
        if rule is not None and one.configuration is None:
            from llmopt.messages import t  # noqa: PLC0415 - the rule is a message of its own

            raise SettingsError("benchmark.conflict", what=one.label, rule=t(rule))
    return Configuration(engine=base.engine, launch=launch, request=request)


def _launch_value(name: str, text: str, now: SettingValue, choices: Sequence[SettingValue]) -> SettingValue:
    """``text`` in the type the setting has here; words must be among the known ones, numbers need not."""
    value = guess(text)
    words = [choice for choice in (*choices, now) if isinstance(choice, str)]
    if words and text in words:
        return text
    wanted_numbers = not words
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = number if wanted_numbers and not isinstance(now, bool) else isinstance(value, bool)
    if (words and text not in words) or not (fits or value in choices):
        expected = ", ".join(dict.fromkeys(str(choice) for choice in choices)) or type(now).__name__
        raise UsageError("benchmark.bad_setting", name=name, value=text, expected=expected)
    return value


def _request_value(name: str, text: str, prepared: Prepared) -> SettingValue:
    value = guess(text)
    if name == "prompt_form":
        forms = forms_for(prepared.dataset)
        if text not in forms:
            raise UsageError("benchmark.bad_setting", name=name, value=text, expected=", ".join(forms))
        return text
    kinds = {f.name: str(f.type) for f in fields(InferenceParams)}
    allowed: tuple[type, ...] = (bool,) if "bool" in kinds[name] else (int, float) if "float" in kinds[name] else (int,)
    if value is not None and (not isinstance(value, allowed) or (bool not in allowed and isinstance(value, bool))):
        raise UsageError("benchmark.bad_setting", name=name, value=text, expected=kinds[name])
    if isinstance(value, int | float) and value < 0:
        raise UsageError("benchmark.bad_setting", name=name, value=text, expected="≥ 0")
    return value


def guess(text: str) -> SettingValue:
    """``text`` as a word for true, false or nothing, as a number, or as it is."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if number == number and abs(number) != float("inf"):  # noqa: PLR0124 - NaN is no setting
            return number
    return text
