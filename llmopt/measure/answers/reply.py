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
    r"\s*(?:(?:은|는|is)(?=[\s:：*_`\"'「『“‘])|(?:은|는)(?=[A-Za-z0-9①-⑩(])|[:：]|\s[-–—](?=\s)|(?=[*_]+\s*[:：]))"
    r"[\s*_`:：]*",
    re.IGNORECASE,
)
_INTRODUCTION = re.compile(r"^(?:다음과|아래와)\s?같\S*\s*|^as follows\s*[:.]?\s*", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_BRACE = re.compile(r"[{}]")
_MARKUP = re.compile(r"^[\s*_`#>\-–—•]+|[\s*_`]+$")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """``text`` without thinking; ``unclosed`` where the thinking never ended, so that no answer was reached."""

    text: str
    unclosed: bool


def read_reply(text: str) -> Reply:
    """Drop the model's thinking, also where the opening tag was already part of the prompt."""
    bare = _THINKING.sub("", text) if "</" in text else text  # a model stuck opening tags must stay cheap to read
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
    openings = {match.end() - 1 for match in _BOXED.finditer(text)}
    waiting: list[int] = []
    last: tuple[int, int] | None = None
    for brace in _BRACE.finditer(text):
        if brace.group() == "{":
            waiting.append(brace.start())
        elif waiting:
            start = waiting.pop()
            if start in openings and (last is None or start > last[0]):
                last = (start, brace.start())
    if last is None:
        return None
    inner = text[last[0] + 1 : last[1]].strip()
    return re.sub(r"^\\text\s*\{(.*)\}$", r"\1", inner)


def _tidy(line: str) -> str:
    return _MARKUP.sub("", line)
