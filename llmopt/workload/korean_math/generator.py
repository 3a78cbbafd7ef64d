"""``korean_math``: generated Korean word problems, the same for the same size and seed in every process.

A set never holds more than five items of a template unless asked to: items of one template are not independent, and
``Item.cluster`` says which belong together. Templates of *search*, *confirm* and *examples* are different ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from typing import Literal

from llmopt.errors import DataError
from llmopt.records import Item
from llmopt.workload.korean.numbers import comma
from llmopt.workload.korean_math.draw import Draw, Problem, draw_problem
from llmopt.workload.korean_math.program import compile_program, steps
from llmopt.workload.korean_math.template import Template
from llmopt.workload.korean_math.themes import all_templates

__all__ = ["CANARY", "LEVELS", "PER_TEMPLATE", "SET_VERSION", "as_jsonl", "capacity", "generate", "split_of"]

SET_VERSION = "korean_math-1"
"""Changes with any change of wording, ranges or rules, since every such change changes the items."""
CANARY = "llmopt-canary-8f0c2f5e-5b4d-4d0e-9c36-2b7f1a6de941"
"""Stands in file headers and never in a prompt: found in a model's output, it says the file was trained on."""
LEVELS = (1, 2, 3, 4, 5)
PER_TEMPLATE = 5
_EXAMPLES_PER_TEMPLATE = 2
_MOST_ATTEMPTS = 3000

Split = Literal["search", "confirm", "examples"]


def generate(
    size: int = 200, seed: int = 0, *, levels: Collection[int] = LEVELS, per_template: int = PER_TEMPLATE
) -> tuple[Item, ...]:
    """``size`` items, half *search* and half *confirm*, levels in equal parts, then the worked examples beside them.

    The numbers of items per template, level and split depend on ``size`` alone; the seed changes the items only.
    Raises DataError where ``size`` is more than ``per_template`` allows.
    """
    slots = _slots(levels, per_template)
    if not 0 < size <= len(slots):
        raise DataError("korean_math.size", size=size, most=len(slots), per_template=per_template)
    items, seen = [], set[str]()
    for template, index in slots[:size]:
        items.append(_item(template, seed, index, seen))
    items.extend(_examples(seed, levels, seen))
    return tuple(items)


def capacity(levels: Collection[int] = LEVELS, per_template: int = PER_TEMPLATE) -> int:
    """The largest size ``generate`` accepts."""
    return len(_slots(levels, per_template))


def as_jsonl(items: Sequence[Item]) -> str:
    """The items as a file: a header line with version and canary, then one line an item, the same bytes every time."""
    header = {"set": "korean_math", "version": SET_VERSION, "canary": CANARY}
    lines = [header, *(asdict(item) for item in items)]
    return "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines)


@cache
def split_of() -> dict[str, Split]:
    """Template id → the split it belongs to: examples as marked, the others of a level in turn."""
    splits: dict[str, Split] = {}
    for level in LEVELS:
        asked = [t for t in all_templates() if t.level == level and not t.example]
        for position, template in enumerate(asked):
            splits[template.id] = "search" if position % 2 == 0 else "confirm"
    splits.update({t.id: "examples" for t in all_templates() if t.example})
    return splits


def _slots(levels: Collection[int], per_template: int) -> list[tuple[Template, int]]:
    """Every place of a full set in the order sets are cut from: round by round, levels and splits taking turns."""
    columns = [
        [t for t in all_templates() if t.level == level and split_of()[t.id] == split]
        for level in LEVELS
        if level in levels
        for split in ("search", "confirm")
    ]
    depth = max((len(column) for column in columns), default=0)
    one_round = [column[row] for row in range(depth) for column in columns if row < len(column)]
    return [(template, index) for index in range(per_template) for template in one_round]


def _examples(seed: int, levels: Collection[int], seen: set[str]) -> Iterator[Item]:
    examples = [t for level in LEVELS if level in levels for t in all_templates() if t.example and t.level == level]
    for index in range(_EXAMPLES_PER_TEMPLATE):
        for template in examples:
            yield _item(template, seed, index, seen)


def _item(template: Template, seed: int, index: int, seen: set[str]) -> Item:
    draw = Draw(f"{SET_VERSION}|{seed}|{template.id}|{index}")
    for _ in range(_MOST_ATTEMPTS):
        problem = draw_problem(template, draw)
        if problem is not None and problem.question not in seen:
            seen.add(problem.question)
            return _as_item(template, problem, seed, index)
    raise DataError("korean_math.exhausted", template=template.id, count=index)


def _as_item(template: Template, problem: Problem, seed: int, index: int) -> Item:
    postfix = compile_program(template.program)
    split = split_of()[template.id]
    meta: dict[str, object] = {
        "program": " ".join(
            comma(problem.values[t]) if t in problem.values else str(t) for t in map(str, postfix)
        ).replace(",", ""),
        "values": {name: str(value) for name, value in problem.values.items()},
        "surface": "+".join(sorted(set(problem.forms))),
    }
    if split == "examples":
        meta["solution"] = "\n".join(steps(postfix, problem.values))
    return Item(
        id=f"{template.id}-{seed}-{index}",
        question=problem.question,
        answers=(comma(problem.answer).replace(",", ""),),
        kind="numeric",
        cluster=template.id,
        level=template.level,
        split=split,
        unit=template.unit,
        meta=meta,
    )
