"""Numbers an author wrote into fixed text (``두 사람``, ``한 시간``): an answer must not equal one of them."""

from __future__ import annotations

import re

__all__ = ["literal_numbers"]

_WORDS = {
    "한": 1,
    "하나": 1,
    "두": 2,
    "둘": 2,
    "세": 3,
    "셋": 3,
    "네": 4,
    "넷": 4,
    "다섯": 5,
    "여섯": 6,
    "일곱": 7,
    "여덟": 8,
    "아홉": 9,
    "열": 10,
    "열두": 12,
}
_DAYS = {"하루": 1, "일주일": 7}
_WORD = re.compile(
    rf"(?<![가-힣])(?:({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?=\s|개|명|$)|({'|'.join(_DAYS)}))|(\d+)"
)


def literal_numbers(text: str) -> set[int]:
    """The numbers written in a piece of fixed text, as digits or as native words standing alone."""
    numbers = set()
    for match in _WORD.finditer(text):
        word, days, digits = match.groups()
        numbers.add(_WORDS[word] if word else _DAYS[days] if days else int(digits))
    return numbers
