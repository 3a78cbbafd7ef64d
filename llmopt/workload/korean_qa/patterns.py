"""Sentence patterns with slots and particles: ``{name:은} {city} 출신이다`` fills in, and can be read back."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmopt.workload.korean.particles import PARTICLES, particle

__all__ = ["Pattern"]

_SLOT = re.compile(r"\{(\w+)(?::([가-힣]+))?\}")
_ANY = r"[^.\n]+?"


class Pattern:
    """One sentence pattern; ``fields`` are the slots it fills, in order of first appearance."""

    def __init__(self, text: str) -> None:
        self.text = text
        parts = _SLOT.split(text)
        self._literals = tuple(parts[0::3])
        self._slots = tuple(zip(parts[1::3], parts[2::3], strict=True))
        self.fields = tuple(dict.fromkeys(name for name, _ in self._slots))

    def fill(self, values: Mapping[str, str]) -> str:
        """The sentence; each particle takes the form its word asks for."""
        pieces = [self._literals[0]]
        for (name, particle_name), literal in zip(self._slots, self._literals[1:], strict=True):
            word = values[name]
            pieces.append(word)
            if particle_name:
                pieces.append(particle(word, particle_name))
            pieces.append(literal)
        return "".join(pieces)

    def reader(self, shapes: Mapping[str, str]) -> re.Pattern[str]:
        """An expression that matches any sentence of this pattern; ``shapes`` limits what its slots hold."""
        expression = re.escape(self._literals[0])
        seen: set[str] = set()
        for (name, particle_name), literal in zip(self._slots, self._literals[1:], strict=True):
            expression += f"(?P={name})" if name in seen else f"(?P<{name}>{shapes.get(name, _ANY)})"
            seen.add(name)
            if particle_name:
                expression += f"(?:{'|'.join(PARTICLES[particle_name])})"
            expression += re.escape(literal)
        return re.compile(rf"(?:(?<=\n)|(?<=\. )){expression}")
