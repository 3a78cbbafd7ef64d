"""Request settings: what of them is searched."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llmopt.records import Parameter, SettingValue

__all__ = ["request_parameters"]

_TEMPERATURES: tuple[SettingValue, ...] = (0.0, 0.1, 0.3, 0.7, 0.8, 1.0)
_SAMPLED = _TEMPERATURES[1:]


def request_parameters(
    prompt_forms: Sequence[str], *, supported: Collection[str], thinking: bool = False
) -> tuple[Parameter, ...]:
    """The request settings to search, of those an engine takes; ``top_p``, ``top_k`` only above temperature 0."""
    parameters = [
        Parameter(name="prompt_form", level="request", values=tuple(prompt_forms)),
        Parameter(name="temperature", level="request", values=_TEMPERATURES, ordinal=True),
        Parameter(
            name="top_p", level="request", values=(0.3, 0.9, 0.95, 1.0), ordinal=True, only_if={"temperature": _SAMPLED}
        ),
        Parameter(
            name="top_k", level="request", values=(10, 20, 40, 50), ordinal=True, only_if={"temperature": _SAMPLED}
        ),
    ]
    if thinking:
        parameters.append(Parameter(name="thinking", level="request", values=(False, True)))
    return tuple(p for p in parameters if p.name in supported)
