"""Which form a Korean particle takes after a word, a number, a unit or a Latin name.

The form depends on the last *sound* of what stands before it: a vowel, a consonant, or ㄹ (which counts as a vowel
for 으로/로 only). Written signs are therefore read aloud first: ``10`` ends as 십, ``5kg`` as 킬로그램, ``3/4`` as
사분의 삼, ``CPU`` as 유.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from functools import lru_cache

from llmopt.workload.korean.latin import latin_sound, unit_sound

__all__ = ["PARTICLES", "Sound", "attach", "last_sound", "particle"]


class Sound(Enum):
    """What a word ends in."""

    VOWEL = "vowel"
    RIEUL = "rieul"
    CONSONANT = "consonant"


PARTICLES: dict[str, tuple[str, str]] = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "과": ("과", "와"),
    "으로": ("으로", "로"),
    "으로서": ("으로서", "로서"),
    "으로써": ("으로써", "로써"),
    "으로부터": ("으로부터", "로부터"),
    "이랑": ("이랑", "랑"),
    "이나": ("이나", "나"),
    "이며": ("이며", "며"),
    "이고": ("이고", "고"),
    "이라": ("이라", "라"),
    "이라고": ("이라고", "라고"),
    "이라는": ("이라는", "라는"),
    "이란": ("이란", "란"),
    "이든": ("이든", "든"),
    "이다": ("이다", "다"),
    "이었": ("이었", "였"),
    "이에요": ("이에요", "예요"),
    "아": ("아", "야"),
}
"""Particle → (form after a consonant, form after a vowel). The key is the form after a consonant."""

_KEY_OF_FORM = {vowel: key for key, (_, vowel) in PARTICLES.items()}
_WITH_RO = frozenset({"으로", "으로서", "으로써", "으로부터"})

_HANGUL_FIRST, _HANGUL_LAST = 0xAC00, 0xD7A3
_FINALS = 28
_FINAL_RIEUL = 8

_CLOSING = " \t\"'”’»›》〉」』】〕]}*_~`.,!?…"
_GLOSS = re.compile(r"(?<=\S)\s*[(（][^()（）]*[)）]$")
_FRACTION = re.compile(r"(\d+)\s*[/⁄]\s*\d+$")
_CLOCK = re.compile(r"\d{1,2}:(\d\d)$")
_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?$")
_LATIN = re.compile(r"[A-Za-z]+$")
_UNIT = re.compile(r"(?<=[\d\s)])([A-Za-zμ/]+|[A-Za-z]+[²³23])$")

_DIGIT_SOUND = {
    "0": Sound.CONSONANT,
    "1": Sound.RIEUL,
    "2": Sound.VOWEL,
    "3": Sound.CONSONANT,
    "4": Sound.VOWEL,
    "5": Sound.VOWEL,
    "6": Sound.CONSONANT,
    "7": Sound.RIEUL,
    "8": Sound.RIEUL,
    "9": Sound.VOWEL,
}
_SIGN_SOUND = {
    **dict.fromkeys("%％℃℉°€$＄", Sound.VOWEL),  # 퍼센트, 도, 유로, 달러
    **dict.fromkeys("₩￦¥￥", Sound.CONSONANT),  # 원, 엔
    **dict.fromkeys("㎝㎜㎞㎖㎗㎘ℓ㎟㎠㎡㎢㎣㎤㎥㏄㎐㎑㎒㎓", Sound.VOWEL),
    **dict.fromkeys("㎏㎎㎍", Sound.CONSONANT),  # 그램
    **dict.fromkeys("ⅡⅣⅤⅨ", Sound.VOWEL),  # 이, 사, 오, 구
    **dict.fromkeys("ⅠⅦⅧ", Sound.RIEUL),  # 일, 칠, 팔
    **dict.fromkeys("ⅢⅥⅩ#", Sound.CONSONANT),  # 삼, 육, 십, 샵
    "+": Sound.VOWEL,  # 플러스
    **dict.fromkeys("ㄱㄴㄷㅁㅂㅅㅇㅈㅊㅋㅌㅍㅎ", Sound.CONSONANT),  # the letters' names: 기역, 니은 …
    "ㄹ": Sound.RIEUL,
    **dict.fromkeys("ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅛㅜㅠㅡㅣ", Sound.VOWEL),
}
_ZEROS_WITH_VOWEL = ((12, 16), (20, 24))
"""Trailing zeros, from and below, whose unit is 조 or 해; the others (십, 백, 천, 만, 억, 경) end in a consonant."""


def attach(word: str, name: str) -> str:
    """``word`` followed by the right form of the particle, e.g. ``attach("5kg", "을")`` → ``5kg을``."""
    return word + particle(word, name)


def particle(word: str, name: str) -> str:
    """The form of the particle after ``word``; both forms, as ``은(는)``, where the last sound cannot be known.

    ``name`` is either form of the particle or both (``은``, ``는``, ``은/는``). Raises KeyError for an unknown one.
    """
    key = name.partition("/")[0]
    key = key if key in PARTICLES else _KEY_OF_FORM[key]
    after_consonant, after_vowel = PARTICLES[key]
    sound = last_sound(word)
    if sound is None:
        return f"{after_consonant}({after_vowel})"
    if sound is Sound.CONSONANT or (sound is Sound.RIEUL and key not in _WITH_RO):
        return after_consonant
    return after_vowel


def last_sound(word: str) -> Sound | None:
    """The last sound of ``word`` as read aloud; None where nothing readable is left.

    Closing quotes and punctuation are not read, and neither is a gloss in parentheses: 사과(apple) ends as 사과.
    """
    if word and _HANGUL_FIRST <= ord(word[-1]) <= _HANGUL_LAST:
        return _hangul_sound(word[-1])
    return _read_sound(word)


@lru_cache(maxsize=4096)
def _read_sound(word: str) -> Sound | None:
    text = _readable(word)
    if not text:
        return None
    last = text[-1]
    if _HANGUL_FIRST <= ord(last) <= _HANGUL_LAST:
        return _hangul_sound(last)
    if last in _SIGN_SOUND:
        return _SIGN_SOUND[last]
    text = unicodedata.normalize("NFKC", text)  # ５, ①, ½
    last = text[-1]
    if last.isdigit() and last.isascii() and not _UNIT.search(text):
        return _number_sound(text)
    return _latin_sound(text)


def _readable(word: str) -> str:
    text = word.rstrip(_CLOSING)
    return _GLOSS.sub("", text).rstrip(_CLOSING + ")）²³")


def _hangul_sound(syllable: str) -> Sound:
    final = (ord(syllable) - _HANGUL_FIRST) % _FINALS
    if final == 0:
        return Sound.VOWEL
    return Sound.RIEUL if final == _FINAL_RIEUL else Sound.CONSONANT


def _number_sound(text: str) -> Sound:
    fraction = _FRACTION.search(text)
    if fraction:  # read "denominator 분의 numerator"
        return _number_sound(fraction.group(1))
    clock = _CLOCK.search(text)
    if clock:  # read 시 on the hour, else 분
        return Sound.VOWEL if clock.group(1) == "00" else Sound.CONSONANT
    match = _NUMBER.search(text)
    if match is None or match.group(1):  # decimals are read digit by digit
        return _DIGIT_SOUND[text[-1]]
    digits = match.group().replace(",", "")
    zeros = len(digits) - len(digits.rstrip("0"))
    if zeros in (0, len(digits)) or digits.startswith("0"):
        return _DIGIT_SOUND[digits[-1]]
    vowel = any(low <= zeros < high for low, high in _ZEROS_WITH_VOWEL)
    return Sound.VOWEL if vowel else Sound.CONSONANT


def _latin_sound(text: str) -> Sound | None:
    unit = _UNIT.search(text)
    if unit:
        known = unit_sound(unit.group(1))
        if known:
            return Sound(known)
    letters = _LATIN.search(text)
    if letters is None:
        return None
    alone = unit_sound(text) if len(text) > 1 and text.islower() else None
    if alone:
        return Sound(alone)
    return Sound(latin_sound(letters.group()))
