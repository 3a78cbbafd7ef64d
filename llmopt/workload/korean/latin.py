"""How Latin units, abbreviations and words end when they are read in Korean.

Units and abbreviations follow from their readings. English words follow rules of the usual transcription (silent e,
short vowel + stop = final consonant), which cannot be right for every word; ``_WORDS`` holds known exceptions.
Results are the values of ``particles.Sound``.
"""

from __future__ import annotations

import re

__all__ = ["latin_sound", "unit_sound"]

_VOWEL, _RIEUL, _CONSONANT = "vowel", "rieul", "consonant"

_UNITS_WITH_CONSONANT = frozenset({"g", "kg", "mg", "t", "min", "won"})
_UNITS_WITH_RIEUL = frozenset({"mil", "mol", "gal"})
_UNITS_WITH_VOWEL = frozenset(
    {
        *("m", "km", "cm", "mm", "nm", "l", "ml", "kl", "dl", "cc", "ha", "a", "cal", "kcal", "h", "s", "ms"),
        *("hz", "khz", "mhz", "ghz", "w", "kw", "mw", "kwh", "wh", "v", "kv", "ma", "n", "j", "pa", "hpa", "k"),
        *("b", "kb", "mb", "gb", "tb", "pb", "kib", "mib", "gib", "tib", "bit", "bps", "kbps", "mbps", "gbps"),
        *("km/h", "m/s", "m/min", "cm/s", "rpm", "m2", "cm2", "km2", "m3", "cm3", "m²", "cm²", "km²", "m³", "cm³"),
        *("usd", "krw"),
    }
)

_LETTER_NAMES_WITH_CONSONANT = frozenset("MN")  # 엠, 엔
_LETTER_NAMES_WITH_RIEUL = frozenset("LR")  # 엘, 알

_WORDS = {
    "github": _CONSONANT,
    "check": _VOWEL,
    "set": _VOWEL,
    "bit": _VOWEL,
    "byte": _VOWEL,
    "big": _CONSONANT,
    "good": _CONSONANT,
    "note": _VOWEL,
    "some": _CONSONANT,
    "one": _CONSONANT,
    "cafe": _VOWEL,
    "recipe": _VOWEL,
}

_ENDINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), sound)
    for pattern, sound in (
        (r"le$|l$", _RIEUL),  # apple, mail
        (r"[nm]e?$|ng$|mb$", _CONSONANT),  # line, game, ping, Python
        (r"oo[kp]$", _CONSONANT),  # book
        (r"[aeiouy]{2}[tkp]$", _VOWEL),  # boat, steak
        (r"[aeiou][tkpbc]$|ck$|pp$", _CONSONANT),  # robot, map, web, Mac, Slack, app
    )
)


def unit_sound(unit: str) -> str | None:
    """The last sound of a unit of measure; None for a unit this table does not know."""
    name = unit.lower()
    if name in _UNITS_WITH_RIEUL:
        return _RIEUL
    if name in _UNITS_WITH_CONSONANT:
        return _CONSONANT
    return _VOWEL if name in _UNITS_WITH_VOWEL else None


def latin_sound(letters: str) -> str:
    """The last sound of a Latin abbreviation (letter names) or word (usual transcription)."""
    if letters.isupper() or len(letters) == 1:
        last = letters[-1].upper()
        if last in _LETTER_NAMES_WITH_CONSONANT:
            return _CONSONANT
        return _RIEUL if last in _LETTER_NAMES_WITH_RIEUL else _VOWEL
    word = letters.lower()
    if word in _WORDS:
        return _WORDS[word]
    for pattern, sound in _ENDINGS:
        if pattern.search(word):
            return sound
    return _VOWEL
