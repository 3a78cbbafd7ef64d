"""What a model finally said: its reply without the thinking, and the place where it states its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Reading", "Reply", "boxed", "marked", "read_reply"]

_THINKING = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_OPENED = re.compile(r"<(?:think|thinking|thought|reasoning)>.*", re.DOTALL | re.IGNORECASE)
_CLOSED_ONLY = re.compile(r"^.*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_MARKER = re.compile(
    r"(?:(?:최종\s*|따라서\s*)?(?:정답|답변|답안|답)|(?:the\s+)?(?:final\s+|correct\s+)?answer)"
    r"\s*(?:(?:은|는|is)(?=[\s:：*_`\"'「『“‘])|[:：]|(?=[*_]+\s*[:：]))"
    r"[\s*_`:：]*",
    re.IGNORECASE,
)
_INTRODUCTION = re.compile(r"^(?:다음과|아래와)\s?같\S*\s*|^as follows\s*[:.]?\s*", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_MARKUP = re.compile(r"^[\s*_`#>\-–—•]+|[\s*_`]+$")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """``text`` without thinking; ``unclosed`` where the thinking never ended, so that no answer was reached."""

    text: str
    unclosed: bool


def read_reply(text: str) -> Reply:
    """Drop the model's thinking, also where the opening tag was already part of the prompt."""
    bare = _THINKING.sub("", text)
    unclosed = bool(_OPENED.search(bare))
    bare = _OPENED.sub("", bare)
    bare = _CLOSED_ONLY.sub("", bare)
    return Reply(text=bare.strip(), unclosed=unclosed)


class Reading(NamedTuple):
    """What a scorer made of a reply: ``value`` 0..1, the answer it found (None: none), and the rule that fired."""

    value: float
    extracted: str | None
    rule: str


def marked(text: str) -> str | None:
    """What follows the last ``정답:`` (``답은``, ``Answer:`` …): the rest of its line, or the next line with text."""
    found = None
    for match in _MARKER.finditer(text):
        before = text[: match.start()]
        if before and before[-1].isalnum():
            continue
        rest = _INTRODUCTION.sub("", text[match.end() :].lstrip())
        line = _tidy(rest.split("\n", 1)[0])
        if line:
            found = line
    return found


def boxed(text: str) -> str | None:
    r"""The content of the last balanced ``\\boxed{…}``."""
    for match in reversed(list(_BOXED.finditer(text))):
        depth = 1
        for place in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                inner = text[match.end() : place].strip()
                return re.sub(r"^\\text\s*\{(.*)\}$", r"\1", inner)
    return None


def _tidy(line: str) -> str:
    return _MARKUP.sub("", line)
