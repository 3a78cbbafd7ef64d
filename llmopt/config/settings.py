"""The settings of this tool: one documented cascade, each value knowing where it came from.

Precedence, weakest first: defaults < ``config/settings.json`` < ``.env`` < environment < command-line flags.
The variables of ``ENGINE_VARIABLES`` are not ours: they are handed on to the engines as they are.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmopt.errors import LlmoptError, SettingsError, UsageError, json_problem
from llmopt.messages import t
from llmopt.paths import Workspace, write_whole

__all__ = [
    "ENGINE_VARIABLES",
    "SPECS",
    "SettingSpec",
    "SettingsView",
    "change_settings",
    "engine_environment",
    "load_settings",
    "save_settings",
]

_MOST_BYTES = 1 << 20
"""Of a settings or .env file: nobody writes more by hand."""

ENGINE_VARIABLES = (
    "TOKENIZERS_PARALLELISM",
    "PYTORCH_CUDA_ALLOC_CONF",
    "HF_HOME",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
)
"""Read from ``.env`` or the environment and given to every engine."""


@dataclass(frozen=True, kw_only=True)
class SettingSpec:
    """One setting: its type, default and bounds; ``parse`` turns the text of a variable or flag into the type."""

    name: str
    kind: type
    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "LLMOPT_" + self.name.upper()

    def check(self, value: Any, origin: str) -> Any:
        """``value`` as this setting's type, or a SettingsError (UsageError for a flag) with value and origin."""
        if value is None and self.default is None:
            return None
        kind: Any = (int, float) if self.kind is float else self.kind
        if not isinstance(value, kind) or (isinstance(value, bool) and self.kind is not bool):
            raise self._bad(value, origin)
        if self.choices and value not in self.choices:
            raise self._bad(value, origin)
        checked: Any = value
        if (self.low is not None and checked < self.low) or (self.high is not None and checked > self.high):
            raise self._bad(value, origin)
        return float(checked) if self.kind is float else checked

    def parse(self, text: str, origin: str) -> Any:
        """The value that ``text`` (a variable) stands for."""
        parsers: dict[type, Callable[[str], Any]] = {int: int, float: float, str: str, bool: _parse_bool}
        try:
            return self.check(parsers[self.kind](text), origin)
        except ValueError:
            raise self._bad(text, origin) from None

    @property
    def expected(self) -> str:
        """What may be written: the choices, or the type with its bounds."""
        if self.choices:
            return " | ".join(self.choices)
        kind = t(f"settings.kind_{self.kind.__name__}")
        if self.low is not None and self.high is not None:
            return t("settings.kind_between", kind=kind, low=f"{self.low:,.10g}", high=f"{self.high:,.10g}")
        return kind if self.low is None else t("settings.kind_from", kind=kind, low=f"{self.low:,.10g}")

    def _bad(self, value: Any, origin: str) -> LlmoptError:
        if origin == FLAG:
            option = "--" + self.name.replace("_", "-")
            return UsageError("settings.bad_flag", option=option, value=value, expected=self.expected)
        return SettingsError("settings.bad_value", name=self.name, value=value, origin=origin, expected=self.expected)


def _parse_bool(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.strip().lower() not in words:
        raise ValueError(text)
    return words[text.strip().lower()]


SPECS: tuple[SettingSpec, ...] = (
    SettingSpec(name="lang", kind=str, default=None, choices=("ko", "en")),
    SettingSpec(name="model", kind=str, default="qwen2.5-coder-0.5b"),
    SettingSpec(name="dataset", kind=str, default="korean_math"),
    SettingSpec(name="engine", kind=str, default=None),
    SettingSpec(name="streams", kind=int, default=4, low=1, high=4096),
    SettingSpec(name="max_tokens", kind=int, default=None, low=1, high=1_000_000),
    SettingSpec(name="samples", kind=int, default=None, low=2, high=10_000_000),
    SettingSpec(name="trials", kind=int, default=30, low=1, high=1_000_000),
    SettingSpec(name="timeout", kind=float, default=None, low=0.001),
    SettingSpec(name="method", kind=str, default="auto"),
    SettingSpec(name="seed", kind=int, default=0, low=0),
    SettingSpec(name="quality_margin", kind=float, default=0.02, low=0.0, high=1.0),
    SettingSpec(name="speed_margin", kind=float, default=0.05, low=0.0, high=1.0),
    SettingSpec(name="ready_cap_s", kind=float, default=900.0, low=1.0),
    SettingSpec(name="stall_s", kind=float, default=120.0, low=1.0),
    SettingSpec(name="request_timeout_s", kind=float, default=300.0, low=0.1),
    SettingSpec(name="warmup_cap_s", kind=float, default=15.0, low=0.1),
    SettingSpec(name="memory_limit_gb", kind=float, default=None, low=0.1),
    SettingSpec(name="price_per_hour", kind=float, default=None, low=0.0),
    SettingSpec(name="vllm_command", kind=str, default=None),
    SettingSpec(name="transformers_command", kind=str, default=None),
    SettingSpec(name="sglang_command", kind=str, default=None),
    SettingSpec(name="llama_server_command", kind=str, default=None),
    SettingSpec(name="container_tool", kind=str, default="docker", choices=("docker", "podman", "nerdctl")),
    SettingSpec(name="llamacpp_image", kind=str, default=None),
    SettingSpec(name="vllm_image", kind=str, default=None),
    SettingSpec(name="sglang_image", kind=str, default=None),
    SettingSpec(name="transformers_image", kind=str, default=None),
)
FLAG = "flag"
"""The origin of a value given on the command line."""
_BY_NAME = {spec.name: spec for spec in SPECS}


@dataclass(frozen=True)
class SettingsView:
    """The resolved settings: ``view["streams"]`` is a value, ``view.origin("streams")`` says who set it."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    engine_env: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def origin(self, name: str) -> str:
        """``default``, the file's path, ``.env``, the variable's name, or ``flag``."""
        return self.origins[name]

    def apply_engine_environment(self) -> None:
        """Put the engines' variables of ``.env`` into our environment, from which every engine gets its own."""
        for name, value in self.engine_env.items():
            os.environ.setdefault(name, value)


def load_settings(
    workspace: Workspace,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> SettingsView:
    """Resolve the cascade. ``flags`` with value None were not given. Raises SettingsError for what cannot be used."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {spec.name: spec.default for spec in SPECS}
    origins = dict.fromkeys(values, "default")

    def put(name: str, value: Any, origin: str) -> None:
        values[name], origins[name] = value, origin

    for name, value in _read_file(workspace.settings_file).items():
        put(name, _BY_NAME[name].check(value, str(workspace.settings_file)), str(workspace.settings_file))
    dotenv = _read_dotenv(workspace.root / ".env")
    for spec in SPECS:
        for source, origin in ((dotenv, ".env"), (environ, spec.variable)):
            if source.get(spec.variable):
                put(spec.name, spec.parse(source[spec.variable], origin), origin)
    for name, value in (flags or {}).items():
        if value is not None:
            put(name, _BY_NAME[name].check(value, FLAG), FLAG)
    return SettingsView(values, origins, engine_environment(dotenv, environ))


def engine_environment(dotenv: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of ENGINE_VARIABLES that are set; the environment wins over ``.env``."""
    merged = {**dotenv, **environ}
    return {name: merged[name] for name in ENGINE_VARIABLES if merged.get(name)}


def save_settings(workspace: Workspace, values: Mapping[str, Any]) -> Path:
    """Write ``values`` (checked) as the settings file, atomically; returns its path."""
    checked = {name: _BY_NAME[name].check(value, "init") for name, value in values.items()}
    path = workspace.settings_file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(checked, ensure_ascii=False, indent=2) + "\n")
    return path


def change_settings(workspace: Workspace, **values: Any) -> Path:
    """Set some values of the settings file and leave the others; returns its path."""
    return save_settings(workspace, {**_read_file(workspace.settings_file), **values})


def _read_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415 - only needed where a .env file exists

    text = io.StringIO(_text_of(path))
    return {name: value for name, value in dotenv_values(stream=text, interpolate=False).items() if value is not None}


def _text_of(path: Path) -> str:
    """The text of a file that a person wrote; raises SettingsError for what is none, or too much of it."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise SettingsError("settings.too_large", path=path, limit_mb=_MOST_BYTES >> 20)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError("settings.not_utf8", path=path) from None
    except OSError as error:
        raise SettingsError("settings.unreadable", path=path, why=error.strerror) from None


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    text = _text_of(path)
    try:
        loaded = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(
            "settings.not_json", path=path, line=error.lineno, column=error.colno, why=json_problem(error)
        ) from None
    except (RecursionError, ValueError) as error:  # also a number of thousands of digits
        why = t("json.deep") if isinstance(error, RecursionError) else str(error)[:80]
        raise SettingsError("settings.not_json", path=path, line=1, column=1, why=why) from None
    if not isinstance(loaded, dict):
        raise SettingsError("settings.not_object", path=path)
    for name in loaded:
        if name not in _BY_NAME:
            line, column = _position(text, name)
            near = ", ".join(difflib.get_close_matches(name, _BY_NAME, n=2)) or t("data.none")
            raise SettingsError("settings.unknown_key", path=path, line=line, column=column, name=name, near=near)
    return loaded


def _position(text: str, key: str) -> tuple[int, int]:
    """Line and column of ``key`` in JSON text, counted from 1."""
    found = re.search(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:", text)
    offset = found.start() if found else 0
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1
