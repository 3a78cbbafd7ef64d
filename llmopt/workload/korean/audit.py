"""A second opinion on particles: reads finished text and lists the words whose particle does not fit.

It shares nothing with the rule in ``particles``: it knows no placeholders, decomposes syllables by Unicode, spells
numbers out in words before looking at their last sound, and works back from what is written. Words that merely look
as if they ended in a particle (가을, 사과, 있는) stand in small lists.
"""

from __future__ import annotations

import re
import unicodedata

from llmopt.workload.korean.numbers import sino

__all__ = ["misfits"]

_FINAL_JAMO = ("\u11a8", "\u11c2")
_RIEUL_JAMO = "\u11af"

_SPOKEN = {
    "km": "킬로미터",
    "m": "미터",
    "cm": "센티미터",
    "mm": "밀리미터",
    "kg": "킬로그램",
    "g": "그램",
    "L": "리터",
    "mL": "밀리리터",
    "%": "퍼센트",
    "℃": "도",
    "㎡": "제곱미터",
    "㎠": "제곱센티미터",
    "㎤": "세제곱센티미터",
}
_VERB_STEMS = tuple("있없남걷앉받찍굽씻닫읽얻묶꽂깎넘넣먹않갖싣놓찾잡심낳쌓얹")
_NOT_PARTICLES = {
    "은": ("지은", "나은", "부은", "이은", "모은"),
    "이": ("나이", "차이", "사이", "아이", "오이"),
    "을": ("마을", "가을", "노을", "부을", "모을", "이을", "지을"),
    "과": ("사과", "교과", "치과", "제과", "효과"),
    "가": ("정가", "물가", "작가", "평가", "단가"),
    "로": ("따로",),
}
_AFTER_CONSONANT = ("은", "이", "을", "과", "으로", "이었", "이나")
_AFTER_VOWEL = ("는", "가", "를", "와", "로", "였")
_WORD = re.compile(r"[^\s]+")
_TRIMMED = "\"'“”‘’()[]{}<>《》「」『』.,!?…:;·"
_TAIL = re.compile(r"(였|이었)습니다$|(였|이었)다$")
_LAST_NUMBER = re.compile(r"(\d[\d,]*)$")
_LAST_UNIT = re.compile(r"(?<=\d)(" + "|".join(sorted(map(re.escape, _SPOKEN), key=len, reverse=True)) + r")$")


def misfits(text: str) -> list[str]:
    """The words of ``text`` whose particle is not the one their last sound asks for."""
    return [word for word in (match.group().strip(_TRIMMED) for match in _WORD.finditer(text)) if _misfit(word)]


def _misfit(word: str) -> bool:
    for stem, suffix in _splits(word):
        sound = _last_sound(stem)
        if sound is None or _excused(word, stem, suffix):
            continue
        if suffix in _AFTER_CONSONANT and (sound == "" or (suffix == "으로" and sound == _RIEUL_JAMO)):
            return True
        if suffix in _AFTER_VOWEL and sound and not (suffix == "로" and sound == _RIEUL_JAMO):
            return True
    return False


def _splits(word: str) -> list[tuple[str, str]]:
    """The stem and the longest particle-like ending."""
    tail = _TAIL.search(word)
    if tail:
        suffix = tail.group(1) or tail.group(2)
        return [(word[: tail.start()], suffix)]
    for suffix in sorted((*_AFTER_CONSONANT, *_AFTER_VOWEL), key=len, reverse=True):
        if word.endswith(suffix) and len(word) > len(suffix):
            return [(word[: -len(suffix)], suffix)]
    return []


def _excused(word: str, stem: str, suffix: str) -> bool:
    if suffix == "는" and stem.endswith(_VERB_STEMS):
        return True
    return word in _NOT_PARTICLES.get(suffix, ())


def _last_sound(stem: str) -> str | None:
    """The final consonant of the stem read aloud (empty for none); None where it is not readable."""
    unit = _LAST_UNIT.search(stem)
    number = _LAST_NUMBER.search(stem)
    if unit:
        stem = _SPOKEN[unit.group()]
    elif number:
        stem = sino(int(number.group().replace(",", "")))
    if not stem or not "가" <= stem[-1] <= "힣":
        return None
    jamo = unicodedata.normalize("NFD", stem[-1])[-1]
    return jamo if _FINAL_JAMO[0] <= jamo <= _FINAL_JAMO[1] else ""
