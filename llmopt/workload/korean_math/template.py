"""What an author writes for one kind of problem: its sentences, its quantities, its program and its equations.

Text uses ``{name:counter|particle}``: ``{n:개}`` prints a quantity with its counter, ``{who|은}`` a word with the
form of the particle that fits it. ``{who}``, ``{other}`` and ``{third}`` are different children wherever a template
does not say otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

__all__ = ["NAMES", "Made", "Piece", "Range", "Template", "compile_text", "made", "quantities_in", "tenths", "whole"]

NAMES = ("민준이", "서연이", "지우", "도윤이", "하은이", "수아", "지호", "예린이", "유나", "태민이", "준서", "나래")
"""Children as schoolbooks name them: the suffix 이 after a final consonant belongs to the name."""


@dataclass(frozen=True)
class Range:
    """A drawn quantity: low..high in steps, divided by ``scale``. All its values have one number of digits."""

    low: int
    high: int
    step: int = 1
    scale: int = 1


@dataclass(frozen=True)
class Made:
    """A quantity computed from drawn ones so that the problem comes out even; kept within low..high."""

    program: str
    low: int
    high: int


def whole(low: int, high: int, step: int = 1) -> Range:
    """Whole numbers low, low + step, … up to high."""
    return Range(low, high, step)


def tenths(low: int, high: int, step: int = 1) -> Range:
    """Decimals with one place, given as tenths: ``tenths(11, 45)`` is 1.1 to 4.5."""
    return Range(low, high, step, 10)


def made(program: str, low: int, high: int) -> Made:
    """A computed quantity, see ``Made``."""
    return Made(program, low, high)


@dataclass(frozen=True, kw_only=True)
class Template:
    """One kind of problem.

    ``facts`` are sentences of which each is necessary; at level 4 and 5 all but the first may be told in any order and
    ``noise``, which does not matter, stands among them. ``program`` computes the answer. ``equations`` say the same
    story as linear equations in the unknown ``x`` (the answer) and others, for the second solver; ``search`` names
    unknowns that are the smallest whole number ≥ 1 for which a condition holds.
    """

    id: str
    level: int
    facts: tuple[str, ...]
    question: str
    unit: str
    program: str
    draws: Mapping[str, Range]
    made: Mapping[str, Made] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name, or several names with blanks between (then drawn without repetition), → the words to draw from."""
    needs: tuple[str, ...] = ()
    equations: tuple[str, ...] = ()
    search: Mapping[str, str] = field(default_factory=dict)
    noise: str = ""
    fractions: bool = False
    """Whether steps and answer may be fractions."""
    example: bool = False
    """Whether it serves as a worked example in prompts, and so in neither half of the set."""


@dataclass(frozen=True)
class Piece:
    """A part of a sentence: fixed ``text``, or a ``name`` with its counter (quantities) and particle."""

    text: str = ""
    name: str = ""
    counter: str | None = None
    particle: str = ""


_PLACEHOLDER = re.compile(r"\{(\w+)(?::([^|}]*))?(?:\|(\w+))?\}")


@cache
def compile_text(text: str) -> tuple[Piece, ...]:
    """The pieces of a sentence, in order."""
    pieces, position = [], 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > position:
            pieces.append(Piece(text=text[position : match.start()]))
        pieces.append(Piece(name=match.group(1), counter=match.group(2), particle=match.group(3) or ""))
        position = match.end()
    if position < len(text):
        pieces.append(Piece(text=text[position:]))
    return tuple(pieces)


@cache
def quantities_in(text: str) -> tuple[str, ...]:
    """The names of the quantities a sentence prints."""
    return tuple(piece.name for piece in compile_text(text) if piece.counter is not None)
