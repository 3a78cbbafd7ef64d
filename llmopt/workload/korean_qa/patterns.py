"""Sentence patterns with slots and particles: ``{name:은} {city} 출신이다`` fills in, and can be read back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

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
        self._particles = tuple((place, name) for place, (_, name) in enumerate(self._slots) if name)
        self._template = "%s".join(literal.replace("%", "%%") for literal in self._literals)
        self.fields = tuple(dict.fromkeys(name for name, _ in self._slots))

    def fill(self, values: Mapping[str, str]) -> str:
        """The sentence; each particle takes the form its word asks for."""
        return self._said(tuple(values[name] for name, _ in self._slots))

    def filler(self, columns: Mapping[str, Sequence[str]]) -> Callable[[int], str]:
        """What fills in a row, given by its number, of values kept by column: for many sentences, faster."""
        rows = [*zip(*(columns[name] for name, _ in self._slots), strict=True)]
        return lambda row: self._said(rows[row])

    def _said(self, words: tuple[str, ...]) -> str:
        if not self._particles:
            return self._template % words
        said = [*words]
        for place, name in self._particles:
            said[place] += particle(words[place], name)
        return self._template % tuple(said)

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
