"""Items from a user's own rows: columns named, kinds recognised, gold answers checked, duplicates refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any

from llmopt.errors import DataError
from llmopt.records import EVALUATOR_GROUP, Item
from llmopt.workload.columns import near, resolve_columns
from llmopt.workload.files import Row
from llmopt.workload.splits import assign_splits, draw

__all__ = ["DEFAULT_SIZE", "KINDS", "LETTERS", "Reading", "UserItems", "items_from_rows", "option_letter"]

DEFAULT_SIZE = 1000
"""How many rows are drawn where the user names no size."""

KINDS = ("numeric", "qa", "exact", "char_f1", "choice", "json", "open")
LETTERS = "ABCDEFGHIJ"

_TIME_OF_DAY = re.compile(r"오전|오후|\d{1,2}:\d\d")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a user's rows are to be read; see ``datasets.load_dataset``. ``examples`` sets a few clusters aside."""

    seed: int = 0
    size: int | None = None
    columns: Mapping[str, str] | None = None
    kind: str | None = None
    encoding: str | None = None
    examples: bool = True


@dataclass(frozen=True, kw_only=True)
class UserItems:
    """Items with their splits, and what the user should be told about them."""

    items: tuple[Item, ...]
    notes: tuple[tuple[str, Mapping[str, Any]], ...]


def items_from_rows(rows: Iterable[Row], source: str, reading: Reading) -> UserItems:
    """Draw the wanted rows and read them as items; raises DataError naming row and reason."""
    kind = reading.kind
    if kind is not None:
        _check_kind(kind)
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        raise DataError("data.empty", path=source)
    mapping = resolve_columns(tuple(first.values), reading.columns, source=source)
    counter = itertools.count(1)
    every = zip(itertools.chain([first], iterator), counter, strict=False)
    wanted = DEFAULT_SIZE if reading.size is None else reading.size
    drawn = list(draw(((_identity(row, mapping), row) for row, _ in every), wanted, reading.seed))
    total = next(counter) - 1
    kept, repeated = _without_repeats(drawn, mapping, source)
    kept = kept[:wanted]
    read = [item for name, row in kept if (item := _item(name, row, mapping, source)) is not None]
    chosen, unanswered = _with_kind(read, kind, source)
    if not chosen:
        raise DataError("data.nothing_usable", source=source, rows=total, columns=mapping["question"])
    notes: list[tuple[str, Mapping[str, Any]]] = []
    if total > wanted:
        notes.append(("data.drawn", {"size": wanted, "total": total, "seed": reading.seed}))
    for key, count in (("repeated", repeated), ("no_question_rows", len(kept) - len(read)), ("unanswered", unanswered)):
        if count:
            notes.append((f"data.{key}", {"count": count}))
    if chosen[0].kind == "open":
        notes.append(("data.no_gold", {"source": source}))
    items = _split(sorted(chosen, key=lambda item: item.meta["row"]), examples=reading.examples)
    return UserItems(items=items, notes=tuple(notes))


def option_letter(answer: str, options: Sequence[str]) -> str | None:
    """The letter of a gold option given as its text, a letter (``B``, ``(B)``), ``②`` or a number from 1."""
    if answer in options:
        return LETTERS[options.index(answer)]
    bare = answer.strip(" ()[].").upper()
    place = "①②③④⑤⑥⑦⑧⑨⑩".find(bare) if len(bare) == 1 else -1
    if place < 0 and bare.isdecimal():
        place = int(bare) - 1
    if place < 0 and len(bare) == 1:
        place = LETTERS.find(bare)
    return LETTERS[place] if 0 <= place < len(options) else None


def _identity(row: Row, mapping: Mapping[str, str]) -> str:
    if "id" in mapping:
        value = row.values.get(mapping["id"])
        if value not in (None, ""):
            return str(value)
    text = json.dumps(dict(row.values), sort_keys=True, ensure_ascii=False, default=str)
    return "row-" + hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()


def _without_repeats(
    drawn: Sequence[tuple[str, Row]], mapping: Mapping[str, str], source: str
) -> tuple[list[tuple[str, Row]], int]:
    """One row for each id: exact repeats are counted, different rows under one id are refused."""
    seen: dict[str, Row] = {}
    repeated = 0
    for name, row in drawn:
        other = seen.setdefault(name, row)
        if other is row:
            continue
        if "id" in mapping and dict(other.values) != dict(row.values):
            lines = sorted((other.number, row.number))
            raise DataError("data.duplicate_id", source=source, id=name, first=lines[0], second=lines[1])
        repeated += 1
    return list(seen.items()), repeated


def _item(name: str, row: Row, mapping: Mapping[str, str], source: str) -> Item | None:
    """None where the row has no question; raises DataError for text that cannot be written down again."""
    try:
        return _read_item(name, row, mapping, source)
    except ValueError as problem:  # half a character (a lone surrogate), or a number of thousands of digits
        raise DataError("data.bad_text", path=source, line=row.number, problem=str(problem)[:80]) from None


def _read_item(name: str, row: Row, mapping: Mapping[str, str], source: str) -> Item | None:
    def cell(field: str) -> Any:
        return row.values.get(mapping[field]) if field in mapping else None

    question = _text(cell("question"))
    if not question:
        return None
    options = tuple(_listed(cell("options")))
    meta: dict[str, Any] = {"row": row.number, "source": source}
    for field in ("context", "solution"):
        if text := _text(cell(field)):
            meta[field] = text
    if cell("schema"):
        meta["schema"] = _parsed(cell("schema"))
    if declared := _text(cell("kind")):
        meta["declared"] = declared
    level = _text(cell("level"))
    return Item(
        id=name,
        question=question,
        answers=tuple(_listed(cell("answer"))),
        kind="",
        cluster=_text(cell("cluster")),
        level=int(level) if level.isdecimal() else 0,
        unit=_text(cell("unit")),
        options=options,
        split=_declared_split(_text(cell("split"))),
        meta=meta,
    )


def _declared_split(text: str) -> Any:
    return text if text in ("search", "confirm", "examples") else ""


def _split(items: Sequence[Item], *, examples: bool) -> tuple[Item, ...]:
    declared = {item.split for item in items}
    if declared >= {"search", "confirm"} and "" not in declared:
        return tuple(items)
    return assign_splits(items, examples=examples)


def _with_kind(items: Sequence[Item], kind: str | None, source: str) -> tuple[list[Item], int]:
    """Items with their kind; those without the gold answer that the others have are left out and counted."""
    if not any(item.answers or item.meta.get("schema") for item in items):
        return [_finished(item, "open", source) for item in items], 0
    answered = [item for item in items if item.answers or item.meta.get("schema")]
    usual = kind or _usual_kind(answered)
    chosen = [_finished(item, item.meta.get("declared") or usual, source) for item in answered]
    return chosen, len(items) - len(answered)


def _usual_kind(items: Sequence[Item]) -> str:
    if all(item.options for item in items):
        return "choice"
    if all(item.meta.get("schema") for item in items):
        return "json"
    golds = [answer for item in items for answer in item.answers]
    # a time of day is a number, too, but is compared as a moment (15:05 is 오후 3시 5분)
    return "numeric" if all(_is_number(gold) and not _TIME_OF_DAY.search(gold) for gold in golds) else "qa"


def _check_kind(kind: str) -> None:
    """Refuse a kind that neither we nor an installed package score."""
    if kind in KINDS:
        return
    known = (*KINDS, *sorted(point.name for point in entry_points(group=EVALUATOR_GROUP)))
    if kind not in known:
        raise DataError("data.unknown_kind", kind=kind, near=near(kind, known), known=", ".join(known))


def _finished(item: Item, kind: str, source: str) -> Item:
    _check_kind(kind)
    answers = item.answers
    if kind == "numeric" and not all(_is_number(answer) for answer in answers):
        wrong = next(answer for answer in answers if not _is_number(answer))
        raise DataError("data.not_a_number", source=source, line=item.meta["row"], value=wrong)
    if kind == "choice":
        letters = [option_letter(answer, item.options) for answer in answers]
        if not letters or None in letters:
            value = answers[0] if answers else "-"
            count = len(item.options)
            raise DataError("data.not_an_option", source=source, line=item.meta["row"], value=value, count=count)
        answers = tuple(letter for letter in letters if letter)
    meta = {key: value for key, value in item.meta.items() if key != "declared"}
    return replace(item, kind=kind, answers=answers, meta=meta)


def _is_number(text: str) -> bool:
    """Whether a gold answer is one quantity (``35,000원``, ``3만 5천``, ``7/2``, ``스무 명``), as replies are read."""
    from llmopt.workload.korean.numerals import parse_number  # noqa: PLC0415 - its patterns cost names alone 20 ms

    return parse_number(text) is not None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    text.encode()  # raises for a lone surrogate, which JSON can hold and no file can
    return text


def _listed(value: Any) -> Iterator[str]:
    """The texts of one cell: a list, a JSON list as text, or one value."""
    parsed = _parsed(value)
    values = parsed if isinstance(parsed, list | tuple) else [value]
    yield from (text for text in map(_text, values) if text)


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):  # no JSON, nested without end, or a number of thousands of digits
            return value
    return value
