r"""The number a model's answer comes to, and the rule that found it.

Rules, the first that finds a number wins, each looking from the end: a marker (``정답:``, ``답은``, ``####``,
``the answer is``), the last balanced ``\\boxed{}``, the last number of the last line with text, the last number at all.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from llmopt.measure.answers.reply import boxed, read_reply
from llmopt.measure.answers.status import STATED
from llmopt.workload.korean.notation import plain
from llmopt.workload.korean.numerals import Quantity, find_quantities, parse_quantity
from llmopt.workload.korean.units import convert

__all__ = ["Extraction", "extract_number", "is_right", "numbers_equal"]


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """The number found (None: none), its unit, the rule that found it and the words it was read from.

    ``truncated`` says that the answer was cut off, by the token limit or inside its thinking: a number found in such
    an answer is rarely the final one.
    """

    value: Fraction | None
    rule: str
    truncated: bool
    unit: str = ""
    text: str = ""


_KOREAN_MARKER = r"(?<![가-힣])(?:최종\s*)?(?:정답|해답|답안|답변|답|결론)"
_MARKER = re.compile(
    rf"(?:{_KOREAN_MARKER}\s*(?:(?:은|는)(?=[\s:=\d(])\s*[:=]?|[:=]|\s-(?=\s)|\s(?=\s*[-+]?\d)|$)"
    r"|\bfinal\s+answer\s*(?:is)?\s*[:=]?|\banswer\s*(?:\bis\b\s*[:=]?|[:=])|^\s*####)",
    re.IGNORECASE | re.MULTILINE,
)
_MARKERS_TRIED, _LONGEST_STATEMENT = 20, 1000
"""Bounds that no sensible answer meets and that keep a looping one cheap to read."""
_SENTENCE_END = re.compile(r"(?<=[.!?。])\s+")
_RESULT = re.compile(r"[=≈→]")
_ASIDE = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_LEAD = re.compile(r"[\s*\"'“‘(\[:=>-]*(?:약|대략|총|모두|전부|합계|시속|분속|초속|₩|[A-Za-z]\s*=)*\s*")
_SUM = re.compile(r"\s*[-+×x*÷/]\s*\d")
_FOR_EACH = re.compile(r"\s*[가-힣]{0,3}(?:당|마다|에)\s+\d")
"""After a number that only says for how many the answer is: 1인당 20개, 1초에 5m."""
_SECOND_NUMBER_WITHIN = 40
_OR = re.compile(r"\s*(?:또는|혹은|아니면|이거나|or)\s*")


def extract_number(text: str, finish_reason: str | None = None) -> Extraction:
    """Find the final number of an answer. ``finish_reason`` is the server's; ``length`` marks the answer truncated."""
    reply = read_reply(text)
    truncated = reply.unclosed or finish_reason == "length"
    visible = text if reply.unclosed else reply.text
    clean = plain(visible)
    for rule, find, where in (
        ("marker", _after_marker, clean),
        ("boxed", _in_box, visible),
        ("last_line", _in_last_line, clean),
        ("fallback", _last_of, clean),
    ):
        found = find(where)
        if found is not None:
            quantity, words = found
            if rule in STATED and _hedged(where, words, quantity):
                return Extraction(value=None, rule=rule, truncated=truncated, text=words)
            return Extraction(value=quantity.value, unit=quantity.unit, rule=rule, truncated=truncated, text=words)
    return Extraction(value=None, rule="none", truncated=truncated)


def numbers_equal(
    value: Fraction | None, gold: Fraction, *, value_unit: str = "", unit: str = "", tolerance: Fraction = Fraction(0)
) -> bool:
    """Whether a found value is the gold one, after converting its unit where the map of units knows how.

    ``tolerance`` is absolute, in the gold's unit.
    """
    if value is None:
        return False
    converted = convert(value, value_unit, unit)
    return converted is not None and abs(converted - gold) <= tolerance


def is_right(found: Extraction, answers: Iterable[str], *, unit: str = "", tolerance: Fraction = Fraction(0)) -> bool:
    """Whether the extraction equals one of an item's accepted answers, given in ``unit`` unless they name their own."""
    golds = (parse_quantity(answer) for answer in answers)
    return any(
        numbers_equal(found.value, gold.value, value_unit=found.unit, unit=gold.unit or unit, tolerance=tolerance)
        for gold in golds
        if gold is not None
    )


def _after_marker(clean: str) -> tuple[Quantity, str] | None:
    for marker in reversed(deque(_MARKER.finditer(clean), maxlen=_MARKERS_TRIED)):
        rest = clean[marker.end() : marker.end() + _LONGEST_STATEMENT].lstrip(" \t*:=#\n")
        found = _stated(rest.split("\n", 1)[0])
        if found:
            return found
    return None


def _in_box(visible: str) -> tuple[Quantity, str] | None:
    content = boxed(visible)
    return _stated(plain(content)) if content else None


def _in_last_line(clean: str) -> tuple[Quantity, str] | None:
    lines = [line for line in clean.splitlines() if line.strip()]
    if not lines:
        return None
    return _last_of(_ASIDE.sub(" ", lines[-1])) or _last_of(lines[-1])


def _stated(segment: str) -> tuple[Quantity, str] | None:
    """The number a stated answer comes to: all of it, else the right side of its last ``=``, else one number of it."""
    sentence = _SENTENCE_END.split(segment.strip(), maxsplit=1)[0]
    bare = _ASIDE.sub(" ", sentence)
    for text in (sentence, bare, *_RESULT.split(bare)[:0:-1], *_RESULT.split(sentence)[:0:-1]):
        quantity = parse_quantity(text)
        if quantity:
            return quantity, text.strip()
    tail = _RESULT.split(bare)[-1] if _RESULT.search(bare) else bare
    return _leading_or_last(tail) or _last_of(sentence)


def _leading_or_last(text: str) -> tuple[Quantity, str] | None:
    found = find_quantities(text)
    if not found:
        return None
    lead = _LEAD.match(text)
    end = found[0].end
    more = _SUM.match(text, end) or _FOR_EACH.match(text, end)
    leads = lead is not None and found[0].start <= lead.end() and not more
    chosen = found[0] if leads else found[-1]
    return chosen.quantity, text[chosen.start : chosen.end].strip()


def _hedged(text: str, words: str, quantity: Quantity) -> bool:
    """Whether another number follows the stated one after "or": who names two has stated none."""
    rest = text[text.rfind(words) + len(words) :] if words in text else ""
    other = _OR.match(rest)
    found = find_quantities(rest[other.end() : other.end() + _SECOND_NUMBER_WITHIN]) if other else []
    return bool(found) and found[0].start == 0 and found[0].quantity != quantity


def _last_of(text: str) -> tuple[Quantity, str] | None:
    found = find_quantities(text)
    return (found[-1].quantity, text[found[-1].start : found[-1].end].strip()) if found else None
