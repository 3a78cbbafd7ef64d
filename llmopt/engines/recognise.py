"""What answers at an address that somebody else runs: llama.cpp, llama-swap, Ollama, vLLM, SGLang, or unknown software.

Only addresses that every one of them answers harmlessly are asked: its own words decide, never a port number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmopt.engines.registry import get_engine
from llmopt.records import Endpoint
from llmopt.runtime.http import HttpError, Response, request

__all__ = ["Recognised", "recognise"]

OWNERS = {"llamacpp": "llamacpp", "vllm": "vllm", "sglang": "sglang", "llama-swap": "llama-swap", "fake": "fake"}
"""Who each server says its models are owned by."""
TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """The software behind an endpoint, as far as it says so, and the models it offers."""

    kind: str
    """llamacpp, llama-swap, ollama, vllm, sglang, fake or unknown."""
    version: str | None = None
    models: tuple[str, ...] = ()
    metric_names: Mapping[str, str] = field(default_factory=dict)


async def recognise(endpoint: Endpoint) -> Recognised:
    """Ask the endpoint who it is; raises HttpError where it cannot be reached or refuses the key."""
    listed = await request(endpoint, "GET", f"{endpoint.base_path}/models", timeout_s=TIMEOUT_S)
    entries = _entries(listed)
    models = tuple(str(entry["id"]) for entry in entries if "id" in entry)
    owners = {str(entry.get("owned_by")) for entry in entries}
    kind = next((OWNERS[owner] for owner in sorted(owners) if owner in OWNERS), None)
    if kind is None and listed.headers.get("server", "").startswith("llama.cpp"):
        kind = "llamacpp"
    version = await _version(endpoint, "/version") if kind == "vllm" else None
    if kind is None:
        version = await _version(endpoint, "/api/version")
        kind = "ollama" if version else "unknown"
    names = get_engine(kind).metric_names if kind in ("llamacpp", "vllm", "sglang", "fake") else {}
    return Recognised(kind=kind, version=version, models=models, metric_names=names)


def _entries(response: Response) -> list[dict[str, Any]]:
    """The models of a list, however little of the list is as it should be."""
    try:
        data = response.json().get("data")
    except (HttpError, AttributeError):
        return []
    return [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []


async def _version(endpoint: Endpoint, path: str) -> str | None:
    """The version an address of the server's own tells; None where there is no such address."""
    try:
        told = (await request(endpoint, "GET", path, timeout_s=TIMEOUT_S)).json()
    except HttpError:
        return None
    version = told.get("version") if isinstance(told, dict) else None
    return version if isinstance(version, str) else None
