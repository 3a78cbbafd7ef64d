"""Records as JSON text and back: the database holds plain data only, never pickles."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from llmopt.records import Configuration, Estimate, InferenceParams, Measurement

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "configuration_from_json",
    "configuration_to_json",
    "measurement_from_json",
    "measurement_to_json",
    "plain",
    "to_text",
]

_PARAMS = frozenset(field.name for field in fields(InferenceParams))
_ESTIMATE = frozenset(field.name for field in fields(Estimate))


def plain(value: Any) -> Any:
    """JSON-ready data: non-finite numbers become null, tuples lists, anything unknown its text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "item"):  # a numpy scalar
        return plain(value.item())
    return str(value)


def to_text(value: Any) -> str:
    """Compact JSON text of any plain data."""
    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def configuration_to_json(configuration: Configuration) -> str:
    """The configuration as text; ``None`` settings are left out as ``InferenceParams.given`` does."""
    return to_text(
        {
            "engine": configuration.engine,
            "launch": configuration.launch,
            "request": configuration.request.given(),
        }
    )


def configuration_from_json(text: str) -> Configuration:
    """The configuration again; request settings this version does not know are left out."""
    data: Mapping[str, Any] = json.loads(text)
    request = {name: value for name, value in data["request"].items() if name in _PARAMS}
    return Configuration(engine=data["engine"], launch=data["launch"], request=InferenceParams(**request))


def measurement_to_json(measurement: Measurement) -> str:
    """The measurement as text."""
    return to_text(measurement.to_json())


def measurement_from_json(text: str) -> Measurement:
    """The measurement again; an estimate whose value was not finite counts as not measured."""
    data: Mapping[str, Any] = json.loads(text)
    estimates = {
        name: Estimate(**{field: value for field, value in entry.items() if field in _ESTIMATE})
        for name, entry in data["estimates"].items()
        if entry.get("value") is not None
    }
    return Measurement(
        estimates=estimates,
        valid=bool(data.get("valid", True)),
        warnings=tuple(data.get("warnings", ())),
        certificate=data.get("certificate", {}),
        provisional={name: value for name, value in data.get("provisional", {}).items() if value is not None},
    )
