"""The small programs behind the problems: infix text → postfix → exact value, step by step."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from math import gcd, lcm
from typing import TypeAlias

from llmopt.workload.korean.numbers import comma

__all__ = ["Number", "Postfix", "compile_program", "operations", "run", "steps"]

Number: TypeAlias = int | Fraction
Postfix: TypeAlias = tuple[int | str, ...]
"""Numbers, names of quantities and operators; an operator takes the two values before it."""

_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_]\w*)|(//|<=|>=|==|!=|[-+*/%<>(),]))")
_PRECEDENCE = {"<": 1, "<=": 1, ">": 1, ">=": 1, "==": 1, "!=": 1, "+": 2, "-": 2, "*": 3, "/": 3, "//": 3, "%": 3}
_FUNCTIONS = ("lcm", "gcd", "min", "max", "roundup")
_SIGNS = {"+": "+", "-": "-", "*": "×", "/": "÷"}


def _divide(a: Number, b: Number) -> Number:
    if b == 0:
        raise ZeroDivisionError
    quotient = Fraction(a) / b
    return quotient.numerator if quotient.denominator == 1 else quotient


_APPLY: dict[str, Callable[[Number, Number], Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "//": operator.floordiv,
    "%": operator.mod,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "lcm": lambda a, b: lcm(int(a), int(b)),
    "gcd": lambda a, b: gcd(int(a), int(b)),
    "min": min,
    "max": max,
    "roundup": lambda a, b: -(-a // b),
}


@cache
def compile_program(text: str) -> Postfix:
    """Postfix of an infix text with + - * / // %, comparisons, lcm, gcd, min, max and roundup(a, b) = ⌈a/b⌉.

    Raises ValueError where the text is not such an expression. (Shunting-yard; all operators bind to the left.)
    """
    output: list[int | str] = []
    waiting: list[str] = []
    for number, name, sign in _tokens(text):
        if number:
            output.append(int(number))
        elif name and name not in _FUNCTIONS:
            output.append(name)
        elif name or sign == "(":
            waiting.append(name or sign)
        else:
            _shift(sign, waiting, output)
    while waiting:
        output.append(waiting.pop())
    if "(" in output:
        raise ValueError(f"unbalanced parentheses in {text!r}")
    return tuple(output)


def _tokens(text: str) -> list[tuple[str, str, str]]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"cannot read {text!r} from character {position}")
        tokens.append((match.group(1) or "", match.group(2) or "", match.group(3) or ""))
        position = match.end()
    return tokens


def _shift(sign: str, waiting: list[str], output: list[int | str]) -> None:
    if sign in {")", ","}:
        while waiting and waiting[-1] != "(":
            output.append(waiting.pop())
        if not waiting:
            raise ValueError("unbalanced parentheses")
        if sign == ")":
            waiting.pop()
            if waiting and waiting[-1] in _FUNCTIONS:
                output.append(waiting.pop())
        return
    while waiting and _PRECEDENCE.get(waiting[-1], 0) >= _PRECEDENCE[sign]:
        output.append(waiting.pop())
    waiting.append(sign)


def operations(postfix: Postfix) -> int:
    """How many operations the program has."""
    return sum(token in _APPLY for token in postfix)


def run(postfix: Postfix, values: Mapping[str, Number], *, whole: bool = False) -> Number | None:
    """The exact value; None where a step divides by zero, goes below zero or, if ``whole``, is not a whole number."""
    stack: list[Number] = []
    for token in postfix:
        if token in _APPLY:
            right, left = stack.pop(), stack.pop()
            try:
                result = _APPLY[str(token)](left, right)
            except ZeroDivisionError:
                return None
            if result < 0 or (whole and isinstance(result, Fraction)):
                return None
            stack.append(result)
        else:
            stack.append(token if isinstance(token, int) else values[token])
    return stack[0]


def steps(postfix: Postfix, values: Mapping[str, Number]) -> tuple[str, ...]:
    """The working, one line an operation: ``12 + 4 = 16``. Only for programs of + - × ÷."""
    stack: list[Number] = []
    lines: list[str] = []
    for token in postfix:
        if token in _APPLY:
            right, left = stack.pop(), stack.pop()
            result = _APPLY[str(token)](left, right)
            lines.append(f"{comma(left)} {_SIGNS[str(token)]} {comma(right)} = {comma(result)}")
            stack.append(result)
        else:
            stack.append(token if isinstance(token, int) else values[token])
    return tuple(lines)
