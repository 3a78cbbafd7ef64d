"""Legal sizes from hardware, model and task: the arithmetic that engines share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from llmopt.errors import SettingsError
from llmopt.records import Hardware, ModelInfo, Parameter, Settings, SettingValue, Task

__all__ = [
    "active_names",
    "alias_of",
    "doublings",
    "launch_parameter",
    "openmp_threads",
    "require",
    "round_up",
    "searched",
    "streams_of",
    "thread_choices",
    "usable_threads",
    "with_choices",
]

OPEN_LOOP_STREAMS = 16
"""Streams assumed where requests arrive by rate: enough that the engine's own limit shows."""


def usable_threads(hardware: Hardware) -> int:
    """Whole cores this process may keep busy; at least one."""
    return max(1, int(hardware.cpu.usable_cores))


def openmp_threads() -> int | None:
    """What the user set as OMP_NUM_THREADS, in the environment or in ``.env``; raises SettingsError for no number.

    It is the user's word: engines that are told their threads by this variable get this number and no other.
    """
    text = os.environ.get("OMP_NUM_THREADS", "").strip()
    if not text:
        return None
    if not (text.isdecimal() and int(text) >= 1):
        raise SettingsError("engines.openmp_threads", value=text)
    return int(text)


def thread_choices(hardware: Hardware) -> tuple[int, ...]:
    """The numbers of OpenMP threads to search: the user's own, else doublings up to what may be used."""
    given = openmp_threads()
    usable = usable_threads(hardware)
    return (*doublings(1, usable), usable) if given is None else (given,)


def streams_of(task: Task) -> int:
    """Requests in flight at once, as far as the load says."""
    return task.load.streams or OPEN_LOOP_STREAMS


def doublings(low: int, high: int) -> tuple[int, ...]:
    """``low``, twice ``low`` … up to ``high`` (empty where low > high)."""
    values = []
    while low <= high:
        values.append(low)
        low *= 2
    return tuple(values)


def round_up(value: int, unit: int) -> int:
    """The smallest multiple of ``unit`` that is not below ``value``."""
    return -(-value // unit) * unit


def launch_parameter(
    name: str,
    values: Iterable[SettingValue],
    *,
    ordinal: bool = False,
    changes_answers: bool = False,
    only_if: Mapping[str, tuple[SettingValue, ...]] | None = None,
) -> Parameter:
    """One launch setting; ordinal values are sorted, and doubles dropped.

    ``changes_answers`` False means: the same arithmetic in the same order, by construction or as measured.
    """
    unique = list(dict.fromkeys(values))
    if ordinal:
        unique.sort(key=lambda value: float(value or 0))
    return Parameter(
        name=name,
        level="launch",
        values=tuple(unique),
        ordinal=ordinal,
        changes_answers=changes_answers,
        only_if=only_if or {},
    )


def active_names(parameters: Iterable[Parameter], settings: Settings) -> tuple[str, ...]:
    """The parameters whose conditions ``settings`` meets, in order; a parameter stands after those it depends on."""
    names: list[str] = []
    for parameter in parameters:
        met = all(name in names and settings.get(name) in wanted for name, wanted in parameter.only_if.items())
        if met:
            names.append(parameter.name)
    return tuple(names)


def with_choices(parameters: Iterable[Parameter], always: Iterable[str]) -> tuple[Parameter, ...]:
    """The parameters that have more than one value, or stand in ``always``; none that depends on a dropped one."""
    needed = set(always)
    kept: dict[str, Parameter] = {}
    for parameter in parameters:
        reachable = all(
            other in kept and set(wanted) <= set(kept[other].values) for other, wanted in parameter.only_if.items()
        )
        if reachable and (len(parameter.values) > 1 or parameter.name in needed):
            kept[parameter.name] = parameter
    return tuple(kept.values())


def searched(settings: Settings, space: tuple[Parameter, ...]) -> Settings:
    """Only the settings that the space searches, as far as their conditions hold."""
    return {name: settings[name] for name in active_names(space, settings)}


def require(settings: Settings, known: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise SettingsError unless ``settings`` has all ``known`` names, and none beyond these and ``optional``."""
    needed = set(known)
    missing = sorted(needed - settings.keys())
    if missing:
        raise SettingsError("engines.setting_missing", names=", ".join(missing))
    unknown = sorted(settings.keys() - needed - set(optional))
    if unknown:
        raise SettingsError("engines.setting_unknown", names=", ".join(unknown))


def alias_of(model: ModelInfo) -> str:
    """The name an engine serves a model under: no path, no odd characters."""
    return re.sub(r"[^\w.\-]+", "-", model.name).strip("-.") or "model"
