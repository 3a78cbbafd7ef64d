"""The oldest version of each engine without a known hole that a model file or a request could use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llmopt.records import Installation

__all__ = ["MINIMUM_SAFE", "Minimum", "Safety", "safety"]


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """A version, the advisories it closes, and as numbers what to compare (llama.cpp counts builds)."""

    version: str
    number: tuple[int, ...]
    advisories: tuple[str, ...]


MINIMUM_SAFE: Mapping[str, Minimum] = {
    # code of a model ran although trust_remote_code was off: 2026-22807 until 0.14.0, 2026-27893 until 0.18.0
    "vllm": Minimum(version="0.18.0", number=(0, 18), advisories=("CVE-2026-27893", "CVE-2026-22807")),
    # a template in a model file ran code (fixed by pull request 23660; the first release known to us that has it)
    "sglang": Minimum(version="0.5.17", number=(0, 5, 17), advisories=("CVE-2026-5760",)),
    # a request wrote outside its buffer (2026-21869, fixed in b8908); vocabularies of crafted files (2025-49847)
    **dict.fromkeys(
        ("llamacpp", "llama-server"),
        Minimum(version="b8908", number=(8908,), advisories=("CVE-2026-21869", "CVE-2025-49847")),
    ),
}
LEAST_BUILD = 1000
"""A smaller number is no build of llama.cpp but a release (0.1.0), from which the build cannot be told."""


@dataclass(frozen=True, kw_only=True)
class Safety:
    """An installed engine against the oldest safe version; ``safe`` is None where its version cannot be read."""

    engine: str
    version: str | None
    minimum: str
    advisories: tuple[str, ...]
    safe: bool | None


def safety(found: Installation) -> Safety | None:
    """What is known of an installation; None for an engine that is not here, or has no known hole."""
    minimum = MINIMUM_SAFE.get(found.engine)
    if minimum is None or not found.available:
        return None
    number = _number(found.version or "", builds=len(minimum.number) == 1)
    return Safety(
        engine=found.engine,
        version=found.version,
        minimum=minimum.version,
        advisories=minimum.advisories,
        safe=None if number is None else number >= minimum.number,
    )


def _number(version: str, *, builds: bool) -> tuple[int, ...] | None:
    """The version's leading numbers, or the build: the only number (b8908) or the last one (2026.10.11549)."""
    found = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])]
    if not found:
        return None
    if builds:
        return (found[-1],) if found[-1] >= LEAST_BUILD else None
    return tuple(found)
