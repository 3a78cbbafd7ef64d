"""What may be tried: the legal configurations of an engine for a task, counted, drawn, checked and told apart.

A configuration is always complete: what is not searched, or not active under its condition, has the default's value.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

from llmopt.errors import UsageError
from llmopt.records import Configuration, InferenceParams, digest

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from llmopt.records import Parameter, Settings, SettingValue

__all__ = ["ENUMERABLE", "Problem", "Space", "grid_values", "tidy"]

ENUMERABLE = 20_000
"""Up to so many combinations a space is walked through; above, or with a continuous range, it is sampled."""

_DRAWS = 2_000
_REQUEST_FIELDS = frozenset(field.name for field in fields(InferenceParams))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a configuration is not legal here: a message key and its values."""

    key: str
    parameter: str = ""
    value: str = ""


def grid_values(parameter: Parameter, *, resolution: int = 5) -> tuple[SettingValue, ...]:
    """The values a grid takes: all of a list or stepped range, else ``resolution`` points spread over the range."""
    if parameter.values:
        return parameter.values
    low, high = _bounds(parameter)
    if parameter.step is not None:
        count = math.floor((high - low) / parameter.step + 1e-9) + 1
        points = [low + i * parameter.step for i in range(count)]
    elif low == high:
        points = [low]
    elif parameter.log:
        points = [low * (high / low) ** (i / (resolution - 1)) for i in range(resolution)]
    else:
        points = [low + (high - low) * i / (resolution - 1) for i in range(resolution)]
    return tuple(dict.fromkeys(tidy(parameter, point) for point in points))


def tidy(parameter: Parameter, number: float) -> float:
    """A number of a range without the noise of floating point, still inside the range; whole where it must be."""
    low, high = _bounds(parameter)
    rounded = round(number) if parameter.integer else round(number, 6)
    return min(max(rounded, low), high)


def _bounds(parameter: Parameter) -> tuple[float, float]:
    if parameter.low is None or parameter.high is None:
        raise ValueError(f"parameter {parameter.name} has neither values nor a range")
    return parameter.low, parameter.high


class Space:
    """The searched parameters of one engine over complete ``defaults``.

    ``conflict`` names (by message key) the rule that complete launch settings break, or None where they are legal.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        engine: str,
        defaults: Settings | None = None,
        request_defaults: InferenceParams | None = None,
        conflict: Callable[[Settings], str | None] | None = None,
    ) -> None:
        self.engine = engine
        self.defaults: dict[str, SettingValue] = dict(defaults or {})
        self.request_defaults = request_defaults or InferenceParams()
        self.parameters = _ordered(parameters, known={*self.defaults, *_REQUEST_FIELDS})
        self.by_name = {parameter.name: parameter for parameter in self.parameters}
        self._conflict = conflict
        self._base = {**self.defaults, **self.request_defaults.given()}
        for parameter in self.parameters:
            if parameter.level == "request" and parameter.name not in _REQUEST_FIELDS:
                raise ValueError(f"{parameter.name} is not a request setting")

    @cached_property
    def fingerprint(self) -> str:
        """The same for spaces whose trials may be continued together."""
        described = [
            [p.name, p.level, list(p.values), p.low, p.high, p.step, p.log, p.integer, _conditions(p)]
            for p in self.parameters
        ]
        return digest([self.engine, self.defaults, self.request_defaults.given(), described])

    @property
    def launch_parameters(self) -> tuple[Parameter, ...]:
        """Those whose change needs a restart."""
        return tuple(parameter for parameter in self.parameters if parameter.level == "launch")

    @property
    def request_parameters(self) -> tuple[Parameter, ...]:
        """Those that may differ between requests to a running engine."""
        return tuple(parameter for parameter in self.parameters if parameter.level == "request")

    @property
    def conditional(self) -> bool:
        """Whether some parameters are active only under others."""
        return any(parameter.only_if for parameter in self.parameters)

    # ── one configuration ──────────────────────────────────────────────────────────────────────────────────────────

    def active(self, parameter: Parameter, settings: Mapping[str, SettingValue]) -> bool:
        """Whether a parameter matters under the settings decided so far."""
        if not parameter.only_if:
            return True
        complete = {**self._base, **settings}
        return all(complete.get(name) in allowed for name, allowed in parameter.only_if.items())

    def configuration(self, assignment: Mapping[str, SettingValue]) -> Configuration:
        """The complete configuration of an assignment; what is inactive or not named takes its default."""
        launch = dict(self.defaults)
        request: dict[str, SettingValue] = {}
        decided: dict[str, SettingValue] = {}
        for parameter in self.parameters:
            if parameter.name not in assignment or not self.active(parameter, decided):
                continue
            value = assignment[parameter.name]
            decided[parameter.name] = value
            (launch if parameter.level == "launch" else request)[parameter.name] = value
        return Configuration(
            engine=self.engine,
            launch=launch,
            request=replace(self.request_defaults, **request),  # type: ignore[arg-type]
        )

    def assignment(self, configuration: Configuration) -> dict[str, SettingValue]:
        """The values of the active parameters in a configuration."""
        values = {**configuration.launch, **configuration.request.given()}
        found: dict[str, SettingValue] = {}
        for parameter in self.parameters:
            if self.active(parameter, values):
                found[parameter.name] = values.get(parameter.name)
        return found

    def problem(self, configuration: Configuration) -> Problem | None:
        """Why a configuration cannot be run here, None where it can; values off the grid but in kind are accepted."""
        if configuration.engine != self.engine:
            return Problem(key="search.other_engine", value=configuration.engine)
        for name in configuration.launch:
            if name not in self.by_name and name not in self.defaults:
                return Problem(key="search.unknown_setting", parameter=name)
        for name, value in self.assignment(configuration).items():
            if not _in_kind(self.by_name[name], value):
                return Problem(key="search.value_out_of_range", parameter=name, value=str(value))
        broken = self._conflict(configuration.launch) if self._conflict else None
        return None if broken is None else Problem(key=broken)

    def check(self, configuration: Configuration) -> None:
        """Raises UsageError where a configuration cannot be run here."""
        problem = self.problem(configuration)
        if problem is not None:
            known = problem.key.startswith("search.")
            key = problem.key if known else "search.conflict"
            raise UsageError(key, parameter=problem.parameter, value=problem.value, rule=problem.key)

    # ── all configurations ─────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def continuous(self) -> bool:
        """Whether some range has no steps, so that a grid is only a sample of it."""
        return any(not p.values and p.step is None and not p.integer for p in self.parameters)

    @cached_property
    def combinations(self) -> int:
        """Grid points before conditions and conflicts are considered: an upper bound, computed at once."""
        return math.prod(len(grid_values(parameter)) for parameter in self.parameters)

    def launches(self) -> Iterator[dict[str, SettingValue]]:
        """The launch assignments of the grid that are legal, lazily."""
        for assignment in self._assignments(self.launch_parameters, {}):
            if self.legal(assignment):
                yield assignment

    def legal(self, assignment: Mapping[str, SettingValue]) -> bool:
        """Whether the launch settings of an assignment break no rule."""
        return self._conflict is None or self._conflict(self.configuration(assignment).launch) is None

    def requests(self, launch: Mapping[str, SettingValue]) -> Iterator[dict[str, SettingValue]]:
        """Complete assignments of the grid that share the launch settings given."""
        return self._assignments(self.request_parameters, launch)

    def configurations(self) -> Iterator[Configuration]:
        """The legal configurations of the grid, lazily; those of one launch follow each other."""
        for launch in self.launches():
            for assignment in self.requests(launch):
                yield self.configuration(assignment)

    def count(self, *, limit: int = 10 * ENUMERABLE) -> int:
        """How many legal configurations the grid has; counting stops at ``limit``."""
        return sum(1 for _ in itertools.islice(self.configurations(), limit))

    @cached_property
    def legal_launches(self) -> tuple[dict[str, SettingValue], ...] | None:
        """All legal launch assignments, or None where there are too many or a range is continuous."""
        bound = math.prod(len(grid_values(parameter)) for parameter in self.launch_parameters)
        ranges = any(not p.values and p.step is None for p in self.launch_parameters)
        return None if bound > ENUMERABLE or ranges else tuple(self.launches())

    def _assignments(
        self, parameters: Sequence[Parameter], decided: Mapping[str, SettingValue]
    ) -> Iterator[dict[str, SettingValue]]:
        if not parameters:
            yield dict(decided)
            return
        first, rest = parameters[0], parameters[1:]
        if not self.active(first, decided):
            yield from self._assignments(rest, decided)
            return
        for value in grid_values(first):
            yield from self._assignments(rest, {**decided, first.name: value})

    # ── drawing ────────────────────────────────────────────────────────────────────────────────────────────────────

    def draw_launch(self, source: random.Random) -> dict[str, SettingValue] | None:
        """A legal launch assignment, each equally likely where they can be listed; None where none was found."""
        listed = self.legal_launches
        if listed is not None:
            return dict(source.choice(listed)) if listed else None
        for _ in range(_DRAWS):
            drawn = self._draw(self.launch_parameters, {}, source)
            if self.legal(drawn):
                return drawn
        return None

    def draw_request(self, launch: Mapping[str, SettingValue], source: random.Random) -> dict[str, SettingValue]:
        """A complete assignment with the launch settings given and drawn request settings."""
        return self._draw(self.request_parameters, launch, source)

    def _draw(
        self, parameters: Sequence[Parameter], decided: Mapping[str, SettingValue], source: random.Random
    ) -> dict[str, SettingValue]:
        drawn = dict(decided)
        for parameter in parameters:
            if self.active(parameter, drawn):
                drawn[parameter.name] = _draw_value(parameter, source)
        return drawn


def _conditions(parameter: Parameter) -> dict[str, list[SettingValue]]:
    return {name: list(values) for name, values in parameter.only_if.items()}


def _draw_value(parameter: Parameter, source: random.Random) -> SettingValue:
    if parameter.values or parameter.step is not None:
        return source.choice(grid_values(parameter))
    low, high = _bounds(parameter)
    if parameter.integer and not parameter.log:
        return source.randint(int(low), int(high))
    drawn = math.exp(source.uniform(math.log(low), math.log(high))) if parameter.log else source.uniform(low, high)
    return tidy(parameter, drawn)


def _in_kind(parameter: Parameter, value: SettingValue) -> bool:
    """Whether a value may stand for the parameter: listed, or a number where it is ordered by size."""
    if parameter.values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return any(value == known and type(value) is type(known) for known in parameter.values) or (
            number and (value in parameter.values or parameter.ordinal)
        )
    low, high = _bounds(parameter)
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _ordered(parameters: Sequence[Parameter], *, known: set[str]) -> tuple[Parameter, ...]:
    """Launch before request, each after those its condition names; ValueError for doubles, strangers and circles."""
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        raise ValueError(f"a parameter is given twice: {sorted(n for n in set(names) if names.count(n) > 1)}")
    waiting = sorted(parameters, key=lambda parameter: parameter.level != "launch")
    placed: list[Parameter] = []
    while waiting:
        done = {parameter.name for parameter in placed}
        ready = [p for p in waiting if all(name in done or name not in names for name in p.only_if)]
        if not ready:
            raise ValueError(f"conditions go round in a circle: {[p.name for p in waiting]}")
        first = next((p for p in ready if p.level == "launch"), ready[0])
        if first.level == "request" and any(p.level == "launch" for p in waiting):
            raise ValueError(f"a launch parameter depends on a request parameter: {[p.name for p in waiting]}")
        placed.append(first)
        waiting.remove(first)
    for parameter in placed:
        strangers = [name for name in parameter.only_if if name not in names and name not in known]
        if strangers:
            raise ValueError(f"{parameter.name} depends on unknown {strangers}")
    return tuple(placed)
