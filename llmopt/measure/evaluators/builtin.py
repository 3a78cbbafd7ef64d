"""The scorers of the built-in kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from llmopt.measure.answers import qa
from llmopt.measure.answers.choice import read_choice
from llmopt.measure.answers.likeness import likeness
from llmopt.measure.answers.moments import parse_clock, parse_date, same_moment
from llmopt.measure.answers.numeric import extract_number, is_right
from llmopt.measure.answers.reply import Reading, Reply, read_reply
from llmopt.measure.answers.status import AGREEMENT, late_status
from llmopt.records import UNJUDGED, AnswerStatus, Item, Sample
from llmopt.workload.korean.numerals import parse_quantity
from llmopt.workload.korean.units import convert

__all__ = ["Agreement", "Answered", "CharF1", "Choice", "EndedWell", "Exact", "Numeric", "Qa"]


class Numeric:
    """A quantity: Korean numerals, units and fractions compared exactly (``answers/numeric.py``)."""

    name = "numeric"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """Find the last stated number and compare it as a fraction."""
        del sample
        found = extract_number(reply.text)
        tolerance = Fraction(str(item.meta.get("tolerance", 0)))
        right = is_right(found, item.answers, unit=item.unit, tolerance=tolerance)
        shown = None if found.value is None else found.text or str(found.value)
        return Reading(float(right), shown, found.rule)


class Qa:
    """A short answer; particles and copula after the gold answer are accepted, distractors are not."""

    name = "qa"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """1.0 where a trusted candidate is one of the accepted answers."""
        del sample
        candidates, shown = qa.read_answer(reply.text)
        rule = candidates[0][1] if candidates else ""
        if qa.UNKNOWN in item.answers:
            said = any(qa.says_unknown(text) for text, _ in candidates)
            return Reading(float(said), qa.UNKNOWN if said else shown, rule)
        others = tuple(item.meta.get("distractors", ()))
        echoes = [
            (qa.without_echo(text, item.question, others), rule) for text, rule in candidates if rule == "predicate"
        ]
        for text, found_by in (*candidates, *echoes):
            for variant in qa.variants(text):
                if any(qa.same_answer(variant, gold, others=others) for gold in item.answers):
                    return Reading(1.0, variant, found_by)
                if any(_same_value(variant, gold) for gold in item.answers):
                    return Reading(1.0, variant, f"{found_by}+value")
        return Reading(0.0, shown, rule)


def _same_value(said: str, gold: str) -> bool:
    """Whether both are the same date, time of day or quantity; a gold answer without a unit accepts any."""
    if parse_date(gold) or parse_clock(gold) is not None:
        return same_moment(said, gold)
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


class Answered:
    """Open questions without a reference run: nothing to compare with, so the score counts in no average.

    Statuses (cut off, empty, refused, wrong language) tell what can be told; ``Agreement`` says more.
    """

    name = "open"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """The reply itself, unjudged."""
        del item, sample
        return Reading(0.0, reply.text or None, UNJUDGED)


class EndedWell:
    """Open questions whose answers are meant to differ: 1.0 where a reply is complete, no refusal, in its language."""

    name = "ended_well"

    def __init__(self, language: str) -> None:
        self._language = language

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """1.0 for the status ``ok``; a cut-off reply never gets here as one."""
        del sample
        found = Reading(0.0, reply.text or None, "ended_well")
        status = late_status(item, reply, found, language=self._language)
        return found._replace(value=float(status is AnswerStatus.OK))


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
            return Reading(0.0, reply.text, UNJUDGED)
        return Reading(likeness(reply.text, expected), reply.text, AGREEMENT)
