"""Instruction following by rules: does a reply obey what its prompt asked for, as IFEval names it (arXiv 2311.07911).

Written from the paper's description; Korean words count by blanks, sentences end with a full stop, ! or ?.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from llmopt.measure.answers.reply import Reading, Reply
from llmopt.measure.answers.status import hangul_share
from llmopt.records import Item, Sample

__all__ = ["Instructions", "known_instruction"]

Rule = Callable[[str, Mapping[str, Any]], bool]


class Instructions:
    """1.0 where every instruction of ``meta["instructions"]`` is followed (prompt level, strict)."""

    name = "instructions"

    def read(self, item: Item, reply: Reply, sample: Sample) -> Reading:
        """Check each instruction; the rule says how many of how many were followed."""
        del sample
        asked = [one for one in item.meta.get("instructions", ()) if known_instruction(one["id"])]
        followed = sum(_RULES[one["id"]](reply.text, one) for one in asked)
        right = bool(asked) and followed == len(asked)
        return Reading(float(right), reply.text or None, f"followed {followed}/{len(asked)}")


def known_instruction(name: str) -> bool:
    """Whether there is a rule for it; unknown ones are left out of the score."""
    return name in _RULES


def _compare(count: int, wanted: Any, relation: Any) -> bool:
    limit = int(wanted or 0)
    return count < limit if str(relation).startswith("less") else count >= limit


def _occurrences(text: str, word: str) -> int:
    return len(re.findall(re.escape(word), text, re.IGNORECASE))


def _sentences(text: str) -> int:
    return len([part for part in re.split(r"[.!?。…]+(?:\s|$)|\n+", text) if part.strip()])


def _paragraphs(text: str, mark: str) -> list[str]:
    return [part.strip() for part in re.split(mark, text) if part.strip()]


def _capital_words(text: str) -> int:
    return len(re.findall(r"\b[A-Z]{2,}\b|\b[A-Z]\b", text))


def _language(text: str, asked: Mapping[str, Any]) -> bool:
    share, letters = hangul_share(text)
    return letters == 0 or (share >= 0.5 if asked.get("language") == "ko" else share < 0.5)  # noqa: PLR2004 - the larger part


def _json(text: str, asked: Mapping[str, Any]) -> bool:
    del asked
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(bare)
    except ValueError:
        return False
    return True


def _nth_first_word(text: str, asked: Mapping[str, Any]) -> bool:
    parts = _paragraphs(text, r"\n\s*\n")
    place = int(asked["nth_paragraph"]) - 1
    if len(parts) != int(asked["num_paragraphs"]) or not 0 <= place < len(parts):
        return False
    first = re.split(r"\s", parts[place].strip("\"'“”‘’*#- "))[0].strip(".,!?\"'“”‘’")
    return first.casefold() == str(asked["first_word"]).casefold()


def _two_responses(text: str, asked: Mapping[str, Any]) -> bool:
    del asked
    parts = _paragraphs(text, r"\*{6}")
    return len(parts) == 2 and parts[0] != parts[1]  # noqa: PLR2004 - two replies are asked for


def _sections(text: str, asked: Mapping[str, Any]) -> bool:
    name = str(asked.get("section_spliter") or asked.get("section_splitter") or "Section")
    found = re.findall(
        rf"^\W*{re.escape(name)}\s*[\dIVXLC]+|^\W*[\d]+\s*{re.escape(name)}", text, re.MULTILINE | re.IGNORECASE
    )
    return len(found) >= int(asked["num_sections"])


_RULES: Mapping[str, Rule] = {
    "keywords:existence": lambda text, asked: all(_occurrences(text, str(w)) for w in asked["keywords"]),
    "keywords:forbidden_words": lambda text, asked: (
        not any(_occurrences(text, str(w)) for w in asked["forbidden_words"])
    ),
    "keywords:frequency": lambda text, asked: _compare(
        _occurrences(text, str(asked["keyword"])), asked["frequency"], asked["relation"]
    ),
    "keywords:letter_frequency": lambda text, asked: _compare(
        text.casefold().count(str(asked["letter"]).casefold()), asked["let_frequency"], asked["let_relation"]
    ),
    "language:response_language": _language,
    "length_constraints:number_sentences": lambda text, asked: _compare(
        _sentences(text), asked["num_sentences"], asked["relation"]
    ),
    "length_constraints:number_words": lambda text, asked: _compare(
        len(text.split()), asked["num_words"], asked["relation"]
    ),
    "length_constraints:number_letters": lambda text, asked: _compare(
        len(re.sub(r"\s", "", text)), asked["num_letters"], asked["relation"]
    ),
    "length_constraints:number_paragraphs": lambda text, asked: (
        len(_paragraphs(text, r"\s*\*{3}\s*")) == int(asked["num_paragraphs"])
    ),
    "length_constraints:nth_paragraph_first_word": _nth_first_word,
    "detectable_content:number_placeholders": lambda text, asked: (
        len(re.findall(r"\[[^\[\]\n]+\]", text)) >= int(asked["num_placeholders"])
    ),
    "detectable_content:postscript": lambda text, asked: (
        re.search(rf"^\s*{re.escape(str(asked['postscript_marker']))}", text, re.MULTILINE | re.IGNORECASE) is not None
    ),
    "detectable_format:number_bullet_lists": lambda text, asked: (
        len(re.findall(r"^\s*(?:[*•]\s?(?!\*)|-\s)\S", text, re.MULTILINE)) == int(asked["num_bullets"])
    ),
    "detectable_format:constrained_response": lambda text, _: (
        re.search(r"(?:대답은|답은|answer is) ?(?:예|네|아니오|아니요|아마도|글쎄요|yes|no|maybe)", text, re.IGNORECASE)
        is not None
    ),
    "detectable_format:number_highlighted_sections": lambda text, asked: (
        len(re.findall(r"(?<!\*)\*{1,2}[^*\n]+\*{1,2}", text)) >= int(asked["num_highlights"])
    ),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": lambda text, _: re.search(r"<<[^<>\n]+>>|《[^《》\n]+》", text) is not None,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda text, asked: (
        text.strip().casefold().startswith(str(asked["prompt_to_repeat"]).strip().casefold())
    ),
    "startend:end_checker": lambda text, asked: (
        text.strip().strip('"').casefold().endswith(str(asked["end_phrase"]).strip().casefold())
    ),
    "startend:quotation": lambda text, _: (
        len(text.strip()) > 1 and text.strip()[0] in '"“' and text.strip()[-1] in '"”'
    ),
    "change_case:capital_word_frequency": lambda text, asked: _compare(
        _capital_words(text), asked["capital_frequency"], asked["capital_relation"]
    ),
    "change_case:english_capital": lambda text, _: text.isupper(),
    "change_case:english_lowercase": lambda text, _: text.islower(),
    "punctuation:no_comma": lambda text, _: not re.search(r"[,，、]", text),
}
