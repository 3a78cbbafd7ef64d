"""The postfix machine behind every maths item."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.workload.korean_math.program import compile_program, operations, run, steps

VALUES = {"a": 12, "b": 4, "c": 5}


@pytest.mark.parametrize(
    ("text", "postfix", "value"),
    [
        ("a + b", ("a", "b", "+"), 16),
        ("a - b - c", ("a", "b", "-", "c", "-"), 3),
        ("a + b * c", ("a", "b", "c", "*", "+"), 32),
        ("(a + b) * c", ("a", "b", "+", "c", "*"), 80),
        ("a / b / 3", ("a", "b", "/", 3, "/"), 1),
        ("a % c", ("a", "c", "%"), 2),
        ("a // c", ("a", "c", "//"), 2),
        ("roundup(a, c)", ("a", "c", "roundup"), 3),
        ("roundup(a * 2, c - 1)", ("a", 2, "*", "c", 1, "-", "roundup"), 6),
        ("lcm(a, c) + gcd(a, b)", ("a", "c", "lcm", "a", "b", "gcd", "+"), 64),
        ("max(a, b) - min(b, c)", ("a", "b", "max", "b", "c", "min", "-"), 8),
        ("a < b + c * 2", ("a", "b", "c", 2, "*", "+", "<"), True),
        ("a % c == 2", ("a", "c", "%", 2, "=="), True),
        ("a / c", ("a", "c", "/"), Fraction(12, 5)),
    ],
)
def test_infix_becomes_postfix_and_runs(text, postfix, value):
    assert compile_program(text) == postfix
    assert run(postfix, VALUES) == value


@pytest.mark.parametrize("text", ["a + ", "a $ b"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises((ValueError, IndexError)):
        run(compile_program(text), VALUES)


@pytest.mark.parametrize("text", ["(a + b", "a + b)", "min(a, b"])
def test_unbalanced_parentheses_are_refused(text):
    with pytest.raises(ValueError, match="parentheses"):
        compile_program(text)


def test_steps_that_make_no_sense_of_things_are_rejected():
    assert run(compile_program("b - a"), VALUES) is None
    assert run(compile_program("b - a + a"), VALUES) is None
    assert run(compile_program("a / (b - 4)"), VALUES) is None
    assert run(compile_program("a / c"), VALUES, whole=True) is None
    assert run(compile_program("a / c * c"), VALUES, whole=True) is None


def test_working_is_one_line_an_operation():
    program = compile_program("(a + b) * c / 2")
    assert operations(program) == 3
    assert steps(program, VALUES) == ("12 + 4 = 16", "16 × 5 = 80", "80 ÷ 2 = 40")
    assert steps(compile_program("a * 1000 / 5"), VALUES)[0] == "12 × 1,000 = 12,000"


@given(
    st.recursive(
        st.integers(1, 99).map(str),
        lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        max_leaves=8,
    )
)
def test_agrees_with_exact_arithmetic(text):
    fractions = "".join(
        f"Fraction({part})" if part.isdigit() else part for part in text.replace("(", " ( ").replace(")", " ) ").split()
    )
    try:
        expected = eval(fractions)
    except ZeroDivisionError:
        expected = None
    found = run(compile_program(text), {})
    assert found is None or found == expected
    if expected is None:
        assert found is None
