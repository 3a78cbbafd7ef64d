"""The documents around the one that is asked about: excerpts from chapters that are written once a seed.

A passage of 16k tokens is nine tenths surroundings. Written anew for every item they would take nine tenths of the
time, and nobody asks about them. So every genre has a few chapters a seed, each an invented world of its own, and a
passage takes a run of rows out of one, from a random row on, under a title and an introduction drawn for it. Where two
passages of a set use the same rows, these stand at different places and begin at different rows (an engine that
remembers prompts finds no common beginning).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from random import Random
from typing import NamedTuple

from llmopt.workload.korean_qa.chance import shuffled
from llmopt.workload.korean_qa.genres import all_genres
from llmopt.workload.korean_qa.model import Genre, Section
from llmopt.workload.korean_qa.worlds import Body, body, draw_world, group_text

__all__ = ["MOST_ROWS", "Surroundings"]

MOST_ROWS = 30
"""Of a document in a passage, the one that is asked about included."""

_CHAPTERS = 8
_CHAPTER_ROWS = 40
_ROUNDS = 2
"""A genre may come twice, by another chapter; thirteen short documents can leave something missing."""
_FEWEST_ROWS = 4
_ROW_CHARACTERS = 75
_ROWS_WITH_GROUPS = 20
"""Documents of more rows tell of their groups, too."""
_LAYOUTS: tuple[Section, ...] = ("prose", "table", "list")
_NAMED = {"person", "combined"}
"""Kinds of fields that hold names one can ask for; rooms and departments recur."""


class _Chapter(NamedTuple):
    name: str
    genre: Genre
    rows: Body
    """Its rows twice over, so that a run may begin at any."""
    groups: str
    names: frozenset[str]

    def excerpt(self, rng: Random, rows: int) -> str:
        genre, start = self.genre, int(rng.random() * _CHAPTER_ROWS)
        title = genre.titles[int(rng.random() * len(genre.titles))]
        intro = genre.intros[int(rng.random() * len(genre.intros))]
        run = self.rows.joint.join(self.rows.rows[start : start + rows])
        return f"{title}\n{intro}\n{self.rows.opening}{run}{self.groups if rows > _ROWS_WITH_GROUPS else ''}"


class Surroundings:
    """The chapters of one seed; ``hashed`` gives the number that decides how a named one is drawn."""

    def __init__(self, hashed: Callable[[str], int]) -> None:
        self._hashed = hashed
        self._written: dict[str, tuple[_Chapter, ...]] = {}
        self._share_a_name: dict[tuple[str, str], bool] = {}

    def around(self, passage: str, genre: Genre, characters: float, rng: Random, used: AbstractSet[str]) -> str:
        """``passage`` among documents of other genres, until it has its length; no name is in two, or in ``used``."""
        parts, chosen = [passage], list[_Chapter]()
        missing = characters - len(passage)
        others = shuffled(rng, [other for other in all_genres() if other.key != genre.key])
        for other in others * _ROUNDS:
            rows = min(MOST_ROWS, int(missing / _ROW_CHARACTERS) - 1)
            if rows < _FEWEST_ROWS:
                break
            chapter = self._free(other, rng, used, chosen)
            if chapter is not None:
                chosen.append(chapter)
                text = chapter.excerpt(rng, rows)
                parts.append(text)
                missing -= len(text)
        return "\n\n".join(shuffled(rng, parts))

    def _free(self, genre: Genre, rng: Random, used: AbstractSet[str], chosen: Sequence[_Chapter]) -> _Chapter | None:
        first, layout = int(rng.random() * _CHAPTERS), int(rng.random() * len(_LAYOUTS))
        for step in range(_CHAPTERS):
            chapter = self._chapter(genre, (first + step) % _CHAPTERS)[layout]
            if chapter.names.isdisjoint(used) and self._apart(chapter, chosen):
                return chapter
        return None

    def _apart(self, chapter: _Chapter, chosen: Sequence[_Chapter]) -> bool:
        """Whether it shares no name with those chosen; every pair of chapters is looked at once."""
        name, known = chapter.name, self._share_a_name
        for other in chosen:
            share = known.get((name, other.name))
            if share is None:
                share = known[name, other.name] = not chapter.names.isdisjoint(other.names)
            if share:
                return False
        return True

    def _chapter(self, genre: Genre, number: int) -> tuple[_Chapter, ...]:
        name = f"{genre.key}|{number}"
        if name not in self._written:
            self._written[name] = _written(name, genre, Random(self._hashed(name)))
        return self._written[name]


def _written(name: str, genre: Genre, rng: Random) -> tuple[_Chapter, ...]:
    """One chapter in every layout."""
    world = draw_world(genre, _CHAPTER_ROWS, rng, set())
    fields = (*genre.fields, *genre.group_fields)
    columns = {**world.row_columns, **world.group_columns}
    names = frozenset(value.text for field in fields if field.kind in _NAMED for value in columns[field.key])
    found = []
    for layout in _LAYOUTS:
        rows = body(genre, layout, world.row_columns, genre.row_patterns, rng)
        twice = rows._replace(rows=[*rows.rows, *rows.rows])
        found.append(_Chapter(name, genre, twice, group_text(world, layout, rng), names))
    return tuple(found)
