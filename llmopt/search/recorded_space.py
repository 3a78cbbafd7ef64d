"""A search space as plain data and back, so that a result can be explained without its engine or its weights."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from llmopt.records import InferenceParams, Parameter
from llmopt.search.space import Space

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmopt.records import Settings

__all__ = ["space_from_plain", "space_to_plain"]


def space_to_plain(space: Space) -> dict[str, Any]:
    """What the space is made of; its rules are its engine's and are not in it."""
    return {
        "engine": space.engine,
        "defaults": space.defaults,
        "request_defaults": space.request_defaults.given(),
        "parameters": [asdict(parameter) for parameter in space.parameters],
    }


def space_from_plain(data: Mapping[str, Any], conflict: Callable[[Settings], str | None] | None = None) -> Space:
    """The space again, with the rules given. Raises KeyError, TypeError or ValueError for anything else."""
    known = {field.name for field in fields(Parameter)}
    parameters = []
    for raw in data["parameters"]:
        values = {name: value for name, value in raw.items() if name in known}
        values["values"] = tuple(values.get("values") or ())
        values["only_if"] = {name: tuple(allowed) for name, allowed in (values.get("only_if") or {}).items()}
        parameters.append(Parameter(**values))
    return Space(
        parameters,
        engine=data["engine"],
        defaults=data["defaults"],
        request_defaults=InferenceParams(**data["request_defaults"]),
        conflict=conflict,
    )
