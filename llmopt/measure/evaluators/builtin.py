"""The scorers of the built-in kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from llmopt.measure.answers import qa
from llmopt.measure.answers.choice import read_choice
from llmopt.measure.answers.notation import plain
from llmopt.measure.answers.numerals import find_quantities, parse_quantity
from llmopt.measure.answers.reply import Reply, boxed, marked, read_reply
from llmopt.measure.answers.units import convert
from llmopt.measure.evaluators.base import Reading
from llmopt.records import Item, Sample

__all__ = ["Agreement", "CharF1", "Choice", "Exact", "Numeric", "Qa"]


class Numeric:
    """A quantity: Korean numerals, units and fractions compared exactly (``answers/numeric.py``)."""

    name = "numeric"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """Find the last stated number and compare it as a fraction."""
        del sample
        for rule, part in (("marker", marked(reply.text)), ("boxed", boxed(reply.text)), ("last_number", reply.text)):
            found = find_quantities(plain(part)) if part else []
            if found:
                said = found[-1].quantity if rule == "last_number" else found[0].quantity
                right = any((gold := parse_quantity(answer)) and gold.value == said.value for answer in item.answers)
                return Reading(float(right), str(said.value), rule)
        return Reading(0.0, None, "")


class Qa:
    """A short answer; particles and copula after the gold answer are accepted, distractors are not."""

    name = "qa"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """1.0 where a trusted candidate is one of the accepted answers."""
        del sample
        candidates, shown = qa.read_answer(reply.text)
        others = tuple(item.meta.get("distractors", ()))
        if qa.UNKNOWN in item.answers:
            said = any(qa.says_unknown(text) for text, _ in candidates)
            return Reading(float(said), qa.UNKNOWN if said else shown, candidates[0][1] if candidates else "")
        for text, rule in candidates:
            for variant in qa.variants(text):
                if any(qa.same_answer(variant, gold, others=others) for gold in item.answers):
                    return Reading(1.0, variant, rule)
                if any(_same_quantity(variant, gold) for gold in item.answers):
                    return Reading(1.0, variant, f"{rule}+number")
        return Reading(0.0, shown, candidates[0][1] if candidates else "")


def _same_quantity(said: str, gold: str) -> bool:
    """Whether both are quantities of the same worth; a gold answer without a unit accepts any."""
    left, right = parse_quantity(said), parse_quantity(gold)
    if left is None or right is None:
        return False
    return convert(left.value, left.unit, right.unit) == right.value if right.unit else left.value == right.value


class Exact:
    """Official exact match: equal after KorQuAD's normalisation, no particle accepted."""

    name = "exact"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """1.0 where the first candidate equals a gold answer."""
        return _first(item, reply, sample, qa.em)


class CharF1:
    """Official character F1, graded between 0 and 1."""

    name = "char_f1"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """The best F1 of the first candidate over the gold answers."""
        return _first(item, reply, sample, qa.f1_char)


def _first(item: Item, reply: Reply, sample: Sample, measure: Callable[[str, tuple[str, ...]], float]) -> Reading:
    del sample
    candidates, shown = qa.read_answer(reply.text)
    if shown is None:
        return Reading(0.0, None, "")
    return Reading(measure(shown, item.answers), shown, candidates[0][1])


class Choice:
    """Multiple choice by the generated letter."""

    name = "choice"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """1.0 where the letter is the gold letter."""
        del sample
        letter, rule = read_choice(reply.text, item.options)
        return Reading(float(letter is not None and letter in item.answers), letter, rule)


class Agreement:
    """How much an answer agrees with a reference run's answer to the same item, where there is no gold answer.

    1.0 for the same text; else the F1 of character pairs, which unrelated Korean texts share far less than characters.
    """

    name = "agreement"

    def __init__(self, reference: Mapping[str, Sample]) -> None:
        self._reference = {name: read_reply(sample.text).text for name, sample in reference.items() if sample.ok}

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """The agreement with the reference; an item that the reference lacks has no answer to compare with."""
        del sample
        expected = self._reference.get(item.id)
        if expected is None:
            return Reading(0.0, None, "no_reference")
        return Reading(_pair_overlap(reply.text, expected), reply.text, "agreement")


def _pair_overlap(left: str, right: str) -> float:
    one, two = qa.plain(left), qa.plain(right)
    if one == two:
        return 1.0
    pairs_one, pairs_two = (Counter(zip(text, text[1:], strict=False)) for text in (one, two))
    total = pairs_one.total() + pairs_two.total()
    return 2 * (pairs_one & pairs_two).total() / total if total else 0.0
