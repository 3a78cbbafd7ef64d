"""Drawing a set of items: templates spread evenly, every item its own world, all decided by hashes of the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from itertools import count as counting
from random import Random
from typing import Literal, NamedTuple

from llmopt.records import Item
from llmopt.workload.korean_qa.genres import all_genres
from llmopt.workload.korean_qa.model import Ask, Genre, Section
from llmopt.workload.korean_qa.questions import Question, pose
from llmopt.workload.korean_qa.surroundings import MOST_ROWS, Surroundings
from llmopt.workload.korean_qa.worlds import draw_world, write_world

__all__ = ["LEVEL_TOKENS", "SET_VERSION", "generate", "template_ids"]

SET_VERSION = "korean_qa-2"
"""Rises with any change of wording or drawing: the same version and seed give the same bytes."""

_DRAWN = "korean_qa-1"
"""What the draws are made from: version 2 changed what surrounds a document, so the shortest level stayed the same."""

LEVEL_TOKENS = {1: 256, 2: 1024, 3: 4096, 4: 16384}
"""Level → passage length in tokens, nearly (Korean-capable vocabularies differ by a third)."""

_CHARACTERS_PER_TOKEN = 1.25
"""Measured on these passages with the vocabulary of Qwen2.5 (1.22); vocabularies made for Korean need fewer tokens."""
_ROWS = {1: 4, 2: 10, 3: 20, 4: MOST_ROWS}
_EXAMPLES = {"choice": 3}
"""Example templates of a kind, where it is not one: every scorer kind needs three."""
_LETTERS = "ABCD"
_LAYOUTS: dict[str, tuple[Section, ...]] = {
    "span": ("prose",),
    "lookup": ("table", "list"),
    "two_hop": ("prose", "table", "list"),
    "date": ("prose", "list"),
    "count": ("prose", "table"),
    "compare": ("prose", "table", "list"),
    "unanswerable": ("prose", "table", "list"),
    "choice": ("prose", "list"),
}

Split = Literal["search", "confirm", "examples"]


class _Template(NamedTuple):
    genre: Genre
    ask: Ask
    split: Split
    choice: int = 0
    """Its place among the multiple-choice templates of its split."""

    @property
    def id(self) -> str:
        return f"{self.genre.key}.{self.ask.key}"


def template_ids() -> tuple[str, ...]:
    """Every template, named genre.question."""
    return tuple(template.id for side in _templates().values() for template in side)


def generate(count: int, seed: int, *, levels: Sequence[int] = (1,)) -> tuple[Item, ...]:
    """``count`` items, half *search* and half *confirm*, over the given levels, then worked examples beside them.

    Examples are always of the shortest level, so that they cost little of a prompt.
    """
    sides = _templates()
    items = []
    for place in range(count):
        side = sides["confirm" if place % 2 else "search"]
        turn, which = divmod(place // 2, len(side))
        level = levels[(place // 2 + turn) % len(levels)]
        items.append(_make(side[which], seed, level, turn))
    items += [_make(template, seed, min(LEVEL_TOKENS), 0) for template in sides["examples"]]
    return tuple(items)


@cache
def _templates() -> dict[Split, tuple[_Template, ...]]:
    """Templates by split, each side with all kinds in turn: the order depends on names alone, never on a seed."""
    by_kind: dict[str, list[tuple[Genre, Ask]]] = {}
    for genre in all_genres():
        for ask in genre.asks:
            by_kind.setdefault(ask.kind, []).append((genre, ask))
    sides: dict[Split, list[list[_Template]]] = {"search": [], "confirm": [], "examples": []}
    for kind in sorted(by_kind):
        order = sorted(by_kind[kind], key=lambda pair: _hash("split", pair[0].key, pair[1].key))
        column: dict[Split, list[_Template]] = {"search": [], "confirm": [], "examples": []}
        for place, (genre, ask) in enumerate(order):
            split: Split = "examples" if place < _EXAMPLES.get(kind, 1) else "search" if place % 2 else "confirm"
            column[split].append(_Template(genre, ask, split))
        for split, found in column.items():
            sides[split].append(found)
    return {split: tuple(_in_turn(columns)) for split, columns in sides.items()}


def _in_turn(columns: list[list[_Template]]) -> list[_Template]:
    longest = max(map(len, columns))
    order = [column[place] for place in range(longest) for column in columns if place < len(column)]
    choices = counting()
    return [t._replace(choice=next(choices)) if t.ask.kind == "choice" else t for t in order]


def _make(template: _Template, seed: int, level: int, turn: int) -> Item:
    """The item of one template and turn; worlds that do not allow the question are drawn again."""
    for attempt in counting():
        rng = Random(_hash(_DRAWN, seed, template.id, level, turn, attempt))
        passage, question = _attempt(template, seed, level, rng)
        if question is None or _printed(question):
            continue
        item = _item(template, level, passage, question)
        if template.ask.kind != "choice":
            return item
        if len(question.distractors) >= len(_LETTERS) - 1:
            # the gold letters go round, so that a set has each equally often
            choices = sum(other.ask.kind == "choice" for other in _templates()[template.split])
            return _as_choice(item, question, (turn * choices + template.choice) % len(_LETTERS), rng)
    raise AssertionError("counting() never ends")


def _attempt(template: _Template, seed: int, level: int, rng: Random) -> tuple[str, Question | None]:
    used: set[str] = set()
    layout = rng.choice(_LAYOUTS[template.ask.kind])
    world = draw_world(template.genre, _ROWS[level], rng, used)
    passage = write_world(world, layout, rng, groups=template.ask.kind == "two_hop" or level > 1)
    if level > 1:
        characters = LEVEL_TOKENS[level] * _CHARACTERS_PER_TOKEN
        passage = _surroundings(seed).around(passage, template.genre, characters, rng, used)
    return passage, pose(template.ask, world, rng, passage)


@lru_cache(maxsize=2)
def _surroundings(seed: int) -> Surroundings:
    return Surroundings(lambda name: _hash(SET_VERSION, seed, "chapter", name))


def _printed(question: Question) -> bool:
    """Whether the answer stands in the question, where it would give itself away (comparisons name both sides)."""
    return question.query["op"] != "pair" and question.answers[0] in question.text


def _item(template: _Template, level: int, passage: str, question: Question) -> Item:
    ask = template.ask
    meta: dict[str, object] = {
        "context": passage,
        "form": ask.kind,
        "genre": template.genre.key,
        "query": dict(question.query),
    }
    if question.solution and template.split == "examples":
        meta["solution"] = question.solution
    if question.distractors and ask.kind != "choice":
        meta["distractors"] = list(question.distractors)
    name = hashlib.blake2b(passage.encode(), digest_size=6)
    name.update(f"\n{question.text}".encode())
    return Item(
        id=f"qa-{level}-{name.hexdigest()}",
        question=question.text,
        answers=question.answers,
        kind="choice" if ask.kind == "choice" else "qa",
        cluster=template.id,
        level=level,
        split=template.split,
        meta=meta,
    )


def _as_choice(item: Item, question: Question, gold: int, rng: Random) -> Item:
    wrong = rng.sample(question.distractors, len(_LETTERS) - 1)
    return replace(item, options=(*wrong[:gold], question.answers[0], *wrong[gold:]), answers=(_LETTERS[gold],))


def _hash(*parts: object) -> int:
    text = "|".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
