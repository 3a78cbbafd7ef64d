"""Korean numerals as models write them: our own cases, traps, and round trips of every surface form."""

import unicodedata
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.workload.korean.counters import COUNTERS, amount
from llmopt.workload.korean.notation import plain
from llmopt.workload.korean.numbers import comma, man_form, native, sino
from llmopt.workload.korean.numerals import find_quantities, parse_number, parse_quantity

CASES = (Path(__file__).parents[1] / "fixtures" / "korean_numerals.txt").read_text(encoding="utf-8")

TRAPS = [
    "사과",
    "만두",
    "천안",
    "일요일",
    "오이",
    "구구단",
    "이다",
    "이야",
    "사장",
    "사장님",
    "조개",
    "천장",
    "백조",
    "이번",
    "이분",
    "이사",
    "구경",
    "만세",
    "두부",
    "한국",
    "세대",
    "열대",
    "열쇠",
    "이모",
    "사람",
    "오리",
    "이유",
    "네모",
    "일부",
    "만점자",
    "세상",
    "천사",
    "백화점",
    "일본",
    "이웃",
    "삼촌",
    "삼국지",
    "사자",
    "오징어",
    "육지",
    "칠판",
    "팔찌",
    "구름",
    "십자가",
    "백두산",
    "천둥",
    "만화",
    "억새",
    "조금",
    "두더지",
    "세수",
    "네팔",
    "다섯째날들",
    "열매",
    "서울",
    "너구리",
    "한글",
    "공원",
    "영화",
    "영수",
    "공기",
    "이상",
    "일곱난쟁이",
    "반찬",
    "반지",
    "반달",
    "하루살이",
    "오후",
    "오전",
    "모레",
    "없음",
    "모름",
    "알",
    "정답",
    "3~4개",
    "3:2",
    "1,2,3",
    "3-4",
    "12+4",
    "x",
    "개",
    "원",
    "%",
    ".",
    "-",
    "abc",
    "삼각형",
    "사각형",
    "오각형",
    "육하원칙",
    "칠월칠석",
    "팔도강산",
    "구만리장천",
    "백과사전",
    "천자문",
    "만년필",
    "일기",
    "이발소",
    "삼겹살",
    "사진",
    "오락",
    "육교",
    "칠면조",
    "팔꿈치",
    "구두",
    "십대들",
]


def _cases():
    for line in CASES.splitlines()[1:]:
        written, _, expected = line.rpartition(" → ")
        value, _, unit = expected.partition(" ")
        yield written, None if value == "none" else Fraction(value), unit


VECTORS = list(_cases())


@pytest.mark.parametrize(("written", "value", "unit"), VECTORS)
def test_numeral(written, value, unit):
    quantity = parse_quantity(written)
    assert (quantity.value if quantity else None) == value
    if quantity:
        assert quantity.unit == unit


@pytest.mark.parametrize("word", TRAPS)
def test_words_that_only_look_like_numerals_are_nothing(word):
    assert parse_number(word) is None


def test_there_are_enough_cases_of_our_own():
    assert len({written for written, _, _ in VECTORS}) >= 200


def test_decomposed_hangul_reads_the_same():
    assert parse_number(unicodedata.normalize("NFD", "서른다섯 명")) == 35


@given(st.integers(1, 10**16))
def test_sino_words_read_back(number):
    assert parse_number(f"{sino(number)} 원") == number
    assert parse_number(sino(number).replace(" ", "") + "원") == number


@given(st.integers(1, 999))
def test_native_words_read_back(number):
    assert parse_number(native(number)) == number


@given(st.integers(1, 10**8))
def test_digits_with_man_read_back(number):
    assert parse_number(f"{man_form(number)}원") == number
    assert parse_number(comma(number)) == number


@pytest.mark.parametrize(
    "text", ["삼백 세제곱센티미터", "삼백세제곱센티미터", "300세제곱센티미터", "3백 세제곱센티미터"]
)
def test_the_three_of_a_cube_is_no_part_of_the_number(text):
    assert parse_number(text) == 300


_SPOKEN_TWICE = {"번째", "문제", "배", ""}


@given(
    st.integers(2, 9999),
    st.sampled_from(sorted(set(COUNTERS) - _SPOKEN_TWICE)),
    st.sampled_from(["digits", "man", "words"]),
)
def test_every_surface_form_of_an_amount_reads_back(number, counter, form):
    written = amount(number, counter, form)
    assert parse_number(written) == number
    assert parse_number(f"{written}입니다.") == number
    found = find_quantities(plain(f"따라서 구하는 값은 {written}입니다."))
    if any(c.isdigit() for c in written):
        assert [f.quantity.value for f in found] == [number]


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=500))
def test_fractions_read_back(value):
    assert parse_number(str(value)) == value
    if value > 0 and value.denominator > 1:
        assert parse_number(f"{value.denominator}분의 {value.numerator}") == value
        assert parse_number(rf"\frac{{{value.numerator}}}{{{value.denominator}}}") == value


@given(st.decimals(min_value=-10_000, max_value=10_000, places=3))
def test_decimals_read_back(value):
    assert parse_number(f"{value:,}") == Fraction(value)


@given(st.text(max_size=40))
def test_any_text_is_read_without_error(text):
    parse_quantity(text)
    for found in find_quantities(plain(text)):
        assert 0 <= found.start < found.end


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("사과 12개와 배 4개를 더하면 16개입니다.", [12, 4, 16]),
        ("이 문제는 이 점에서 이 배가 중요하다", []),
        ("다시 한 번 확인하자", []),
        ("답은 한 개입니다", [1]),
        ("남은 구슬은 열여섯 개이다.", [16]),
        ("모두 삼만 오천 원을 냈다", [35000]),
        ("3조각을 먹었다", [3]),
        ("기온이 -4도에서 영하 7도로", [-4, -7]),
        ("12 - 4 = 8", [12, 4, 8]),
        ("12-4=8", [12, 4, 8]),
        ("5시간 30분 동안", [330]),
        ("x2 + GPT4", []),
        ("2만원씩 3명이면 6만원", [20000, 3, 60000]),
        ("1/2컵을 3번", [Fraction(1, 2), 3]),
        ("두 사람이 서른 살", [2, 30]),
        ("The 3 dogs ate 1,250.75 grams.", [3, Fraction("1250.75")]),
        ("오이 사과 만두 백화점 천사", []),
        ("1. 먼저 17개", [1, 17]),
    ],
)
def test_numbers_in_running_text(text, values):
    assert [found.quantity.value for found in find_quantities(plain(text))] == values
