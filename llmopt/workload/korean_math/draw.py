"""One item from one template: numbers, words, surface forms, and the rules that reject a draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from hashlib import blake2b
from random import Random

from llmopt.workload.korean.counters import Form, amount
from llmopt.workload.korean.particles import attach
from llmopt.workload.korean_math.literals import literal_numbers
from llmopt.workload.korean_math.program import Number, compile_program, run
from llmopt.workload.korean_math.template import NAMES, Range, Template, compile_text

__all__ = ["Draw", "Problem", "draw_problem"]

OLDEST = 100
_AGES_ADDED = "나이의 합"
_AGE_COUNTERS = ("살", "세")
_SHUFFLED_FROM_LEVEL = 4
_PEOPLE = ("who", "other", "third")
_FORMS_OF_LEVEL: Mapping[int, tuple[tuple[Form, ...], bool]] = {
    # level: the forms, and whether each sentence chooses its own
    1: (("digits",), False),
    2: (("digits",), False),
    3: (("digits", "man"), False),
    4: (("digits", "man"), False),
    5: (("digits", "man", "words", "words"), True),
}


class Draw:
    """Reproducible choices: a stream that depends on the text of ``key`` alone.

    Only ``Random.random`` is used, the one method whose sequence Python promises to keep.
    """

    def __init__(self, key: str) -> None:
        self._next = Random(int.from_bytes(blake2b(key.encode(), digest_size=16).digest(), "big")).random

    def below(self, limit: int) -> int:
        """A whole number 0..limit-1."""
        return int(self._next() * limit)

    def distinct(self, pool: Sequence[str], count: int) -> list[str]:
        """``count`` different words of the pool, in drawn order."""
        left = list(pool)
        return [left.pop(self.below(len(left))) for _ in range(count)]

    def value(self, choice: Range) -> Number:
        """A value of the range."""
        number = choice.low + choice.step * self.below((choice.high - choice.low) // choice.step + 1)
        return number if choice.scale == 1 else _divided(number, choice.scale)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A drawn problem: its text, its quantities (printed or not) and its exact answer."""

    question: str
    values: Mapping[str, Number]
    answer: Number
    forms: tuple[Form, ...]


def draw_problem(template: Template, draw: Draw) -> Problem | None:
    """One draw from the template; None where a rule rejects it.

    Rejected: a step below zero, a count that is not whole, an age over 100, an answer of 0 or 1 or equal to a number
    in the text, two equal quantities of one counter, and whatever breaks the template's own ``needs``.
    """
    values: dict[str, Number] = {name: draw.value(choice) for name, choice in template.draws.items()}
    for name, computed in template.made.items():
        value = run(compile_program(computed.program), values, whole=not template.fractions)
        if value is None or not computed.low <= value <= computed.high:
            return None
        values[name] = value
    if not all(run(compile_program(condition), values) for condition in template.needs):
        return None
    answer = run(compile_program(template.program), values, whole=not template.fractions)
    if answer is None or answer in (0, 1) or not _plausible(template, values, answer):
        return None
    question, forms = _tell(template, values, draw)
    return Problem(question=question, values=values, answer=answer, forms=forms)


def _plausible(template: Template, values: Mapping[str, Number], answer: Number) -> bool:
    printed = [(values[name], counter) for name, counter in _printed(template)]
    if len(set(printed)) < len(printed) or answer in _literals(template):
        return False
    if any(answer == value for value, _ in printed):
        return False
    ages = [values[name] for name, counter in _printed(template) if counter in _AGE_COUNTERS]
    if template.unit in _AGE_COUNTERS and _AGES_ADDED not in template.question:
        ages.append(answer)
    return all(age <= OLDEST for age in ages)


def _tell(template: Template, values: Mapping[str, Number], draw: Draw) -> tuple[str, tuple[Form, ...]]:
    words = _draw_words(template, draw)
    opening, *rest = template.facts
    if template.noise:
        rest.append(template.noise)
    if template.level >= _SHUFFLED_FROM_LEVEL:
        rest = draw.distinct(rest, len(rest))
    forms, each_its_own = _FORMS_OF_LEVEL[template.level]
    form = forms[draw.below(len(forms))]
    used: list[Form] = []
    sentences = []
    for sentence in (opening, *rest, template.question):
        parts = []
        form = forms[draw.below(len(forms))] if each_its_own else form
        for piece in compile_text(sentence):
            if piece.text:
                parts.append(piece.text)
                continue
            if piece.counter is None:
                part = words[piece.name]
            else:
                used.append(form)
                part = amount(values[piece.name], piece.counter, form)
            parts.append(attach(part, piece.particle) if piece.particle else part)
        sentences.append("".join(parts))
    return " ".join(sentences), tuple(used)


def _draw_words(template: Template, draw: Draw) -> dict[str, str]:
    words = dict(zip(_PEOPLE, draw.distinct(NAMES, len(_PEOPLE)), strict=True))
    for names, pool in template.words.items():
        keys = names.split()
        words.update(zip(keys, draw.distinct(pool, len(keys)), strict=True))
    return words


def _sentences(template: Template) -> tuple[str, ...]:
    return (*template.facts, *((template.noise,) if template.noise else ()), template.question)


def _printed(template: Template) -> tuple[tuple[str, str], ...]:
    return _printed_in(_sentences(template))


@cache
def _printed_in(sentences: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Each printed quantity once, with its counter."""
    pieces = (piece for sentence in sentences for piece in compile_text(sentence) if piece.counter is not None)
    return tuple({piece.name: piece.counter or "" for piece in pieces}.items())


def _literals(template: Template) -> frozenset[int]:
    return _literals_in(_sentences(template))


@cache
def _literals_in(sentences: tuple[str, ...]) -> frozenset[int]:
    fixed = (piece.text for sentence in sentences for piece in compile_text(sentence) if piece.text)
    return frozenset(number for text in fixed for number in literal_numbers(text))


def _divided(number: int, scale: int) -> Number:
    value = Fraction(number, scale)
    return value.numerator if value.denominator == 1 else value
