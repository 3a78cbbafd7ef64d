"""The rules that reject a drawn problem, one by one, on templates made to break them."""

from dataclasses import replace

import pytest

from llmopt.workload.korean_math.draw import Draw, draw_problem
from llmopt.workload.korean_math.literals import literal_numbers
from llmopt.workload.korean_math.template import Template, compile_text, made, tenths, whole

PLAIN = Template(
    id="plain",
    level=1,
    facts=("구슬이 {a:개} 있습니다.", "{who|이} {b:개}를 더 넣었습니다."),
    question="구슬은 모두 몇 개입니까?",
    unit="개",
    program="a + b",
    draws={"a": whole(12, 12), "b": whole(5, 5)},
)


def _drawn(**changes):
    template = replace(PLAIN, **changes)
    return [draw_problem(template, Draw(f"key {n}")) for n in range(20)]


def test_a_sound_template_always_draws():
    assert all(problem is not None and problem.answer == 17 for problem in _drawn())


@pytest.mark.parametrize(
    "changes",
    [
        {"program": "b - a"},  # below zero
        {"program": "a / b"},  # not whole
        {"program": "a - b - 7"},  # nothing
        {"program": "a - b - 6"},  # one
        {"program": "a + b - 5"},  # printed in the text
        {"program": "a + 5 - b + b - 5"},
        {"draws": {"a": whole(12, 12), "b": whole(12, 12)}},  # the same quantity twice
        {"needs": ("a < b",)},
        {"made": {"c": made("a * b", 1, 50)}},  # out of its range
        {
            "facts": ("아이가 {a:살}입니다.", "할머니는 {b:살}입니다."),
            "draws": {"a": whole(12, 12), "b": whole(101, 101)},
        },
        {"unit": "살", "program": "a * 9"},
        {"question": "열두 사람이 가진 구슬은 모두 몇 개입니까?", "program": "a + b - 5"},
        {
            "facts": ("구슬이 {a:개} 있습니다.", "17명이 {b:개}를 더 넣었습니다.")
        },  # the author's own number is the answer
    ],
)
def test_bad_draws_are_rejected(changes):
    assert _drawn(**changes) == [None] * 20


def test_ages_may_add_up_to_more_than_a_hundred():
    assert all(_drawn(unit="살", program="a * 9", question="아홉 사람 나이의 합은 몇 살입니까?"))


def test_draws_depend_on_the_key_alone():
    assert [Draw("x").below(10**9) for _ in range(3)] == [Draw("x").below(10**9)] * 3
    assert Draw("x").below(10**9) != Draw("y").below(10**9)


def test_decimals_are_exact():
    value = Draw("z").value(tenths(21, 21))
    assert value * 10 == 21


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("두 사람이 ", {2}),
        ("한 상자에 3개", {1, 3}),
        ("세상에서", set()),
        ("일주일에 하루", {7, 1}),
        ("네모난", set()),
        ("열두 달", {12}),
    ],
)
def test_numbers_written_by_the_author(text, numbers):
    assert literal_numbers(text) == numbers


def test_placeholders_are_read():
    pieces = compile_text("{who|은} {n:개}를 {w:kg|으로} 바꾸고 {a:} 대 {b:}")
    assert [(p.name, p.counter, p.particle) for p in pieces if p.name] == [
        ("who", None, "은"),
        ("n", "개", ""),
        ("w", "kg", "으로"),
        ("a", "", ""),
        ("b", "", ""),
    ]
