"""From the many ways of writing a number down to plain characters: LaTeX, full-width forms, signs, markdown."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["plain"]

# Unicode compatibility folding would turn these into something else (℃ → °C, ½ → 1⁄2, m² → m2), so they go first.
_BEFORE_FOLDING = str.maketrans(
    {
        "℃": "도",
        "℉": "도",
        "²": "^2",
        "³": "^3",
        "㎡": "m^2",
        "㎠": "cm^2",
        "㎢": "km^2",
        "㎟": "mm^2",
        "㎥": "m^3",
        "㎤": "cm^3",
        "½": " 1/2",
        "⅓": " 1/3",
        "⅔": " 2/3",
        "¼": " 1/4",
        "¾": " 3/4",
        "⅕": " 1/5",
        "⅖": " 2/5",
        "⅗": " 3/5",
        "⅘": " 4/5",
        "⅙": " 1/6",
        "⅚": " 5/6",
        "⅛": " 1/8",
        "⅜": " 3/8",
        "⅝": " 5/8",
        "⅞": " 7/8",
        "−": "-",
        "‐": "-",
        "‑": "-",
        "–": "-",
        "﹣": "-",
        "⁄": "/",
        "∕": "/",
        "\u200b": "",
        "\ufeff": "",
    }
)
_ENCLOSED = re.compile(
    r"\\(?:text|mathrm|textbf|mathbf|textit|mathit|operatorname|mbox|boxed|fbox|textrm|bm|mathsf)\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{([^{}]*)\}\s*\{([^{}]*)\}|(\d)(\d))")
_LATEX_SIGN = re.compile(r"[\\{^]")
_LATEX = (
    (re.compile(r"\\[\[\]()]"), " "),
    (re.compile(r"\{\s*,\s*\}"), ","),
    (re.compile(r"\\[,!:;]"), ""),
    (re.compile(r"\\(?:quad|qquad|left|right|displaystyle|,|~)(?![A-Za-z])|\\\s"), " "),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*C?|\\degree\s*C?|\\circ\s*C?"), "도"),
    (re.compile(r"\\times|\\cdot|\\ast"), "×"),
    (re.compile(r"\\div"), "÷"),
    (re.compile(r"\\(?:approx|simeq|fallingdotseq)"), "≈"),
    (re.compile(r"\\(?:Rightarrow|rightarrow|to|implies|therefore)(?![A-Za-z])"), "→"),
    (re.compile(r"\\([%$#&_])"), r"\1"),
    (re.compile(r"\^\{(-?\d+)\}"), r"^\1"),
)
_DEGREES = re.compile(r"°\s*[CF]?")
_THOUSANDS_GAP = re.compile(r"(?<=\d)[\u2009\u202f\u00a0'’](?=\d{3}(?!\d))")
_MARKDOWN = re.compile(r"\$|\*\*|__|`|^\s*>+\s*|~~", re.MULTILINE)


def plain(text: str) -> str:
    r"""The text with LaTeX, full-width and compatibility characters, and markdown reduced to plain characters.

    Lines stay lines. Dollar signs go, be they currency or LaTeX.
    ``½`` becomes `` 1/2``, ``\\frac{7}{2}`` ``7/2``, ``℃`` and ``°C`` ``도``, every minus sign ``-``.
    """
    text = _THOUSANDS_GAP.sub("", text.translate(_BEFORE_FOLDING))
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/")
    if _LATEX_SIGN.search(text):
        text = _without_latex(text)
    text = _DEGREES.sub("도", text)
    return _MARKDOWN.sub("", text)


def _without_latex(text: str) -> str:
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    before = ""
    while before != text:  # innermost first, so that nesting unwinds
        before = text
        text = _ENCLOSED.sub(r"\1", text)
        text = _FRACTION.sub(_as_quotient, text)
    return text


def _as_quotient(match: re.Match[str]) -> str:
    above, below = (match.group(1) or match.group(3)).strip(), (match.group(2) or match.group(4)).strip()
    gap = " " if match.start() and match.string[match.start() - 1].isdigit() else ""
    return f"{gap}{above}/{below}"
