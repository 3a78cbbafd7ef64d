"""Numbers in Korean words, with their counters, in every surface form."""

from fractions import Fraction

import pytest

from llmopt.workload.korean.counters import COUNTERS, amount
from llmopt.workload.korean.numbers import comma, man_form, native, native_modifier, sino


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "영"), (1, "일"), (10, "십"), (11, "십일"), (20, "이십"), (101, "백일"), (110, "백십"), (1000, "천"), (1111, "천백십일"),
        (2026, "이천이십육"), (10_000, "만"), (12_000, "만 이천"), (35_000, "삼만 오천"), (100_000, "십만"), (110_000, "십일만"),
        (10_000_000, "천만"), (100_000_000, "일억"), (123_450_000, "일억 이천삼백사십오만"), (100_010_000, "일억 일만"), (10**12, "일조"),
    ],
)  # fmt: skip
def test_sino_words(number, words):
    assert sino(number) == words


@pytest.mark.parametrize(
    ("number", "alone", "before_counter"),
    [
        (1, "하나", "한"), (2, "둘", "두"), (3, "셋", "세"), (4, "넷", "네"), (5, "다섯", "다섯"), (10, "열", "열"), (11, "열하나", "열한"),
        (20, "스물", "스무"), (21, "스물하나", "스물한"), (35, "서른다섯", "서른다섯"), (44, "마흔넷", "마흔네"), (60, "예순", "예순"),
        (99, "아흔아홉", "아흔아홉"), (100, "백", "백"), (123, "백스물셋", "백스물세"), (220, "이백스물", "이백스무"),
    ],
)  # fmt: skip
def test_native_words(number, alone, before_counter):
    assert native(number) == alone
    assert native_modifier(number) == before_counter


@pytest.mark.parametrize("number", [-1, 10**20])
def test_sino_words_have_limits(number):
    with pytest.raises(ValueError, match="Sino"):
        sino(number)


@pytest.mark.parametrize("number", [0, -3, 1000])
def test_native_words_have_limits(number):
    with pytest.raises(ValueError, match="native"):
        native(number)


@pytest.mark.parametrize(
    ("number", "text"),
    [(900, "900"), (9000, "9천"), (10_000, "1만"), (12_000, "1만 2천"), (12_500, "1만 2,500"), (350_000, "35만")],
)
def test_man_form(number, text):
    assert man_form(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1234567, "1,234,567"),
        (Fraction(5, 2), "2.5"),
        (Fraction(1, 8), "0.125"),
        (Fraction(2, 3), "2/3"),
        (Fraction(-7, 2), "-3.5"),
        (Fraction(6, 2), "3"),
    ],
)
def test_comma_writes_exact_numbers(number, text):
    assert comma(number) == text


@pytest.mark.parametrize(
    ("number", "counter", "form", "text"),
    [
        (12_000, "원", "digits", "12,000원"),
        (12_000, "원", "man", "1만 2천 원"),
        (12_500, "원", "man", "1만 2,500원"),
        (9_500, "원", "man", "9,500원"),
        (12_000, "원", "words", "만 이천 원"),
        (3, "개", "words", "세 개"),
        (20, "살", "words", "스무 살"),
        (35, "명", "words", "서른다섯 명"),
        (120, "명", "words", "120명"),
        (5, "kg", "words", "오 킬로그램"),
        (5, "kg", "digits", "5kg"),
        (3, "일", "words", "사흘"),
        (16, "일", "words", "십육 일"),
        (Fraction(3, 2), "L", "words", "1.5L"),
        (7, "", "words", "칠"),
    ],
)
def test_amount_in_each_form(number, counter, form, text):
    assert amount(number, counter, form) == text


def test_every_counter_can_be_written_in_every_form():
    for counter in COUNTERS:
        for form in ("digits", "man", "words"):
            assert amount(21, counter, form).strip() == amount(21, counter, form)
