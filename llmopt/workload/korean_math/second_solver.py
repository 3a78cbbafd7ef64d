"""A second way to the answer, sharing no code with the programs: the story's equations, solved as a linear system.

A template states what its sentences say as equations between quantities and unknowns. Here Python's own parser reads
them, each becomes a linear form over the unknowns, and elimination over fractions finds ``x``. Unknowns under
``search`` are found first, by trying 1, 2, 3 … until their condition holds.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import TypeAlias

__all__ = ["UnsolvableError", "solve"]

Form: TypeAlias = dict[str, Fraction]
"""A linear form: unknown → coefficient; the constant stands under the empty name."""

_CONSTANT = ""
_SEARCH_LIMIT = 100_000


class UnsolvableError(ValueError):
    """The equations have no solution, more than one, or are not linear."""


def solve(
    equations: Sequence[str], values: Mapping[str, int | Fraction], *, search: Mapping[str, str] | None = None
) -> Fraction:
    """The value of ``x``. Raises UnsolvableError unless the equations determine it without contradiction."""
    known = {name: Fraction(value) for name, value in values.items()}
    for name, condition in (search or {}).items():
        known[name] = Fraction(_smallest(name, condition, known))
    rows = []
    for equation in equations:
        left, right = _sides(equation)
        rows.append(_minus(_linear(left, known), _linear(right, known)))
    return _eliminate(rows)


@cache
def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _sides(equation: str) -> tuple[ast.expr, ast.expr]:
    tree = _parsed(equation)
    if not (isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Eq)):
        raise UnsolvableError(f"not an equation: {equation}")
    return tree.left, tree.comparators[0]


def _smallest(name: str, condition: str, known: Mapping[str, Fraction]) -> int:
    tree = _parsed(condition)
    if not (isinstance(tree, ast.Compare) and len(tree.ops) == 1):
        raise UnsolvableError(f"not a condition: {condition}")
    for candidate in range(1, _SEARCH_LIMIT):
        trial = {**known, name: Fraction(candidate)}
        left = _constant(_linear(tree.left, trial))
        right = _constant(_linear(tree.comparators[0], trial))
        if left > right or (left == right and isinstance(tree.ops[0], ast.GtE)):
            return candidate
    raise UnsolvableError(f"nothing below {_SEARCH_LIMIT} satisfies {condition}")


def _linear(node: ast.expr, known: Mapping[str, Fraction]) -> Form:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return {_CONSTANT: Fraction(node.value)}
    if isinstance(node, ast.Name):
        return {_CONSTANT: known[node.id]} if node.id in known else {node.id: Fraction(1)}
    if not isinstance(node, ast.BinOp):
        raise UnsolvableError(f"not linear: {ast.unparse(node)}")
    left, right = _linear(node.left, known), _linear(node.right, known)
    if isinstance(node.op, ast.Add):
        return _minus(left, _times(right, Fraction(-1)))
    if isinstance(node.op, ast.Sub):
        return _minus(left, right)
    if isinstance(node.op, ast.Mult):
        return _times(left, _constant(right)) if set(right) <= {_CONSTANT} else _times(right, _constant(left))
    if isinstance(node.op, ast.Div):
        return _times(left, 1 / _constant(right))
    raise UnsolvableError(f"not linear: {ast.unparse(node)}")


def _constant(form: Form) -> Fraction:
    if set(form) - {_CONSTANT}:
        raise UnsolvableError(f"a product or quotient of unknowns: {sorted(form)}")
    return form.get(_CONSTANT, Fraction(0))


def _times(form: Form, factor: Fraction) -> Form:
    return {name: coefficient * factor for name, coefficient in form.items()}


def _minus(left: Form, right: Form) -> Form:
    names = {*left, *right}
    return {name: left.get(name, Fraction(0)) - right.get(name, Fraction(0)) for name in names}


def _eliminate(rows: list[Form]) -> Fraction:
    """Gauss-Jordan elimination; every row is a form that is zero."""
    unknowns = sorted({name for row in rows for name in row} - {_CONSTANT})
    pivots: dict[str, Form] = {}
    for unknown in unknowns:
        pivot = next((row for row in rows if row.get(unknown)), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        pivot = _times(pivot, 1 / pivot[unknown])
        rows = [_minus(row, _times(pivot, row.get(unknown, Fraction(0)))) for row in rows]
        pivots = {name: _minus(row, _times(pivot, row.get(unknown, Fraction(0)))) for name, row in pivots.items()}
        pivots[unknown] = pivot
    if any(row.get(_CONSTANT) for row in rows):
        raise UnsolvableError("the equations contradict one another")
    answer = pivots.get("x")
    if answer is None or any(answer.get(name) for name in unknowns if name != "x"):
        raise UnsolvableError("the equations leave x open")
    return -answer.get(_CONSTANT, Fraction(0))
