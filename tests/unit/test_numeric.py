"""Finding the final number in whole answers: order of the rules, truncation, units, and English working."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.answers.numeric import extract_number, is_right, numbers_equal

KOREAN = [
    # (answer, number, rule)
    ("12 + 4 = 16\n답: 16", 16, "marker"),
    ("12 + 4 = 16\n정답: 16", 16, "marker"),
    ("정답은 16입니다.", 16, "marker"),
    ("정답은 **16개**입니다.", 16, "marker"),
    ("답은 16", 16, "marker"),
    ("정답 16", 16, "marker"),
    ("정답：１６개", 16, "marker"),
    ("정답 : 16", 16, "marker"),
    ("**정답:** 16개", 16, "marker"),
    ("**정답**: 16개", 16, "marker"),
    ("**정답: 16**", 16, "marker"),
    ("### 정답\n16", 16, "marker"),
    ("정답:\n\n16개", 16, "marker"),
    ("최종 답: 16", 16, "marker"),
    ("최종 정답은 16명입니다", 16, "marker"),
    ("최종 답변: 16", 16, "marker"),
    ("따라서 정답은 16이다.", 16, "marker"),
    ("해답: 16", 16, "marker"),
    ("정답: 16개 (12 + 4)", 16, "marker"),
    ("정답: 16 (사과 12개와 배 4개)", 16, "marker"),
    ("정답: 12 + 4 = 16", 16, "marker"),
    ("정답: 12 + 4 = 16개입니다.", 16, "marker"),
    ("정답: x = 16", 16, "marker"),
    ("정답: 약 16명", 16, "marker"),
    ("정답: 총 16개", 16, "marker"),
    ("정답: 16개. 왜냐하면 12 + 5는 17이 아니기 때문입니다.", 16, "marker"),
    ("정답: 사과는 12개, 배는 4개이므로 모두 16개입니다.", 16, "marker"),
    ("정답: 지우가 가진 구슬은 16개입니다.", 16, "marker"),
    ("정답: 열여섯 개", 16, "marker"),
    ("정답: 열여섯입니다", 16, "marker"),
    ("정답: 3만 5천원", 35000, "marker"),
    ("정답은 35,000원입니다.", 35000, "marker"),
    ("정답: 삼만 오천 원", 35000, "marker"),
    ("정답: ₩35,000", 35000, "marker"),
    ("정답: 5시간 30분", 330, "marker"),
    ("정답: −4℃", -4, "marker"),
    ("정답: 3분의 2", Fraction(2, 3), "marker"),
    ("정답: \\(\\frac{2}{3}\\)", Fraction(2, 3), "marker"),
    ("정답: \\boxed{16}", 16, "marker"),
    ("정답: $16$", 16, "marker"),
    # the last marker wins, and a marker without a number is passed over
    ("답: 먼저 12를 구하고\n정답: 16", 16, "marker"),
    ("마지막 줄에 '정답: <값>' 형식으로 씁니다.\n12 + 4 = 16\n정답: 16", 16, "marker"),
    ("정답: 15\n다시 계산하면 12 + 4 = 16\n정답: 16", 16, "marker"),
    ("정답: 16\n\n위의 답은 확인을 마쳤습니다.", 16, "marker"),
    ("12 + 4 = 16\n정답: <값>", 16, "fallback"),
    ("정답: 1인당 16개", 16, "marker"),
    ("정답: 1초에 16m", 16, "marker"),
    ("정답 - 16", 16, "marker"),
    ("정답: 16개 또는 열여섯 개", 16, "marker"),
    ("정답: 3만 5천여 원", 35000, "marker"),
    ("정답: 16명 또는 17명", None, "marker"),
    ("The answer is 16 or 17.", None, "marker"),
    # other words with 답 in them are not markers
    ("대답: 3번 듣고 12 + 4를 계산하면 16", 16, "last_line"),
    ("오답은 3이고 맞는 값은 16입니다", 16, "last_line"),
    # boxed, last line, anything
    ("계산하면 \\boxed{16}", 16, "boxed"),
    ("\\boxed{12}에 4를 더하면 \\boxed{16} 이고 이는 12보다 크다", 16, "boxed"),
    ("따라서 \\boxed{\\frac{7}{2}}", Fraction(7, 2), "boxed"),
    ("따라서 $\\boxed{35{,}000\\text{원}}$", 35000, "boxed"),
    ("12 + 4 = 16", 16, "last_line"),
    ("16", 16, "last_line"),
    ("16개", 16, "last_line"),
    ("17개입니다", 17, "last_line"),
    ("35,000원", 35000, "last_line"),
    ("따라서 남은 구슬은 열여섯 개입니다.", 16, "last_line"),
    ("먼저 12를 구합니다.\n따라서 모두 16개입니다.", 16, "last_line"),
    ("모두 16개입니다 (12 + 4).", 16, "last_line"),
    ("모두 16개입니다. 다시 한 번 확인해 보세요.", 16, "last_line"),
    ("모두 16개입니다.\n\n감사합니다!", 16, "fallback"),
    ("서른다섯입니다", 35, "last_line"),
    ("기온은 -4도입니다", -4, "last_line"),
    ("12 - 4 = 8", 8, "last_line"),
    ("20 -4 = 16", 16, "last_line"),
    ("1. 사과 12개\n2. 배 4개\n합: 16개", 16, "last_line"),
    # nothing to find
    ("모르겠습니다.", None, "none"),
    ("", None, "none"),
    ("사과와 만두입니다", None, "none"),
    # thinking
    ("<think>12 더하기 3은 15</think>\n정답: 16", 16, "marker"),
    ("12 더하기 3은 15인가?</think>\n정답: 16", 16, "marker"),
    ("<think>정답: 15</think>16개입니다", 16, "last_line"),
]


@pytest.mark.parametrize(("answer", "number", "rule"), KOREAN)
def test_korean_answers(answer, number, rule):
    found = extract_number(answer)
    assert found.value == number
    assert found.rule == rule
    assert not found.truncated


# what English models write for school problems, with what the question asked for
ENGLISH = [
    ("Natalia sold 48/2 = 24 clips in May.\nAltogether 48+24 = 72 clips.\n#### 72", 72),
    ("She earns 12/60 = $0.20 a minute.\nSo 50 x 0.20 = $10.\n#### 10", 10),
    ("#### 1,080", 1080),
    ("#### -5", -5),
    ("#### $18", 18),
    ("#### 18 dollars", 18),
    ("#### 18.00", 18),
    ("####18", 18),
    ("The answer is 18.", 18),
    ("The answer is $18.", 18),
    ("The answer is $18.50.", Fraction(37, 2)),
    ("The answer is 1,234,567.", 1234567),
    ("The answer is: 18", 18),
    ("The final answer is \\boxed{18}.", 18),
    ("The final answer is $\\boxed{18}$. I hope it is correct.", 18),
    ("Final Answer: 18", 18),
    ("**Final Answer:** 18 eggs", 18),
    ("**Answer: 18**", 18),
    ("Answer: 18", 18),
    ("Answer: $18 per day", 18),
    ("answer = 18", 18),
    ("A: 16 - 3 - 4 = 9 eggs are sold. 9 * 2 = $18.", 18),
    ("She makes 9 * 2 = $18 every day at the farmers' market.", 18),
    ("Therefore, she makes \\$18 every day.", 18),
    ("So, it takes 2 + 1 = 3 bolts in total.", 3),
    ("He made a profit of $200,000 - $130,000 = $70,000.", 70000),
    ("The profit is 70,000 dollars.", 70000),
    ("The total is 540 meters.", 540),
    ("So the answer is 5.", 5),
    ("It will take 160 minutes.\n\nThe answer is 160 minutes.", 160),
    ("\\boxed{45}", 45),
    ("Thus $x = 45$.", 45),
    ("The train travels 4.5 hours.", Fraction(9, 2)),
    ("There are 1/2 * 12 = 6 left.", 6),
    ("He needs 3/4 of a cup, which is \\frac{3}{4}.", Fraction(3, 4)),
    ("The temperature is -12 degrees.", -12),
    ("That leaves 25%.", 25),
    ("The discount is 25 percent.", 25),
    ("She has 20 apples left", 20),
    ("Step 1: 12 + 4 = 16\nStep 2: 16 * 2 = 32", 32),
    ("Total cost: $64", 64),
    ("Total = 64", 64),
    ("= 64", 64),
    ("64", 64),
    ("64.", 64),
    ("$64", 64),
    ("64 glasses\n", 64),
    ("He will have 10 years old next year... The answer is 11 years old.", 11),
    ("3 sprints * 3 times * 60 meters = 540 meters", 540),
    ("20 cups in the final meal. #### 20", 20),
    ("The answer is 18. Let me double-check: 16 - 7 = 9, 9 * 2 = 18. The answer is 18.", 18),
    ("So the answer is 366.\n\nNote: 60 * 3 = 180 downloads in the second month.", 366),
    ("Q: How many?\nA: There are 694 of them.\nThe answer is 694", 694),
    ("Each gets $5.50, so 4 x $5.50 = $22.00", 22),
    ("Janet has 2,000 - 1,250 = 750 left.", 750),
]


@pytest.mark.parametrize(("answer", "number"), ENGLISH)
def test_english_working(answer, number):
    assert extract_number(answer).value == number


def test_unclosed_thinking_is_truncated_but_tried():
    found = extract_number("<think>12 + 4는 16이고")
    assert found.truncated
    assert found.value == 16


def test_the_token_limit_is_truncation():
    assert extract_number("정답: 16", "length").truncated
    assert not extract_number("정답: 16", "stop").truncated


def test_the_words_the_number_was_read_from_are_kept():
    assert extract_number("모두 더하면\n정답: 3만 5천 원입니다.").text == "3만 5천 원입니다."
    assert extract_number("구슬은 모두 열여섯 개입니다.").text == "열여섯 개"


@pytest.mark.parametrize(
    ("answer", "golds", "unit", "right"),
    [
        ("정답: 3.5만원", ["35000"], "원", True),
        ("정답: 35000", ["35000"], "원", True),
        ("정답: 3만원", ["3"], "만원", True),
        ("정답: 1.2m", ["120"], "cm", True),
        ("정답: 120cm", ["120"], "cm", True),
        ("정답: 12m", ["12"], "cm", False),
        ("정답: 5시간 30분", ["330"], "분", True),
        ("정답: 5시간 30분", ["5.5"], "시간", True),
        ("정답: 330분", ["5.5"], "시간", True),
        ("정답: 5시간", ["5"], "분", False),
        ("정답: 2kg", ["2000"], "g", True),
        ("정답: 1,500mL", ["1.5"], "L", True),
        ("정답: 16명", ["16"], "개", True),
        ("정답: 16분", ["16"], "명", True),
        ("정답: 16cm", ["16"], "kg", False),
        ("정답: 2년 6개월", ["30"], "개월", True),
        ("정답: 27㎤", ["27"], "mL", True),
        ("정답: 12", ["12", "열둘"], "개", True),
        ("정답: 13", ["12", "13"], "개", True),
        ("정답: 2/3", ["0.6667"], "", False),
        ("정답: 0.5", ["1/2"], "", True),
        ("정답: 4도", ["4"], "℃", True),
        ("정답: 모름", ["4"], "", False),
        ("정답: 4", ["정답 없음"], "", False),
        ("정답: 사흘", ["3"], "일", True),
        ("정답: 3시간", ["180"], "", False),
    ],
)
def test_right_answers_in_other_units(answer, golds, unit, right):
    assert is_right(extract_number(answer), golds, unit=unit) is right


def test_tolerance_only_where_it_is_declared():
    assert not numbers_equal(Fraction("3.14"), Fraction("3.1416"))
    assert numbers_equal(Fraction("3.14"), Fraction("3.1416"), tolerance=Fraction("0.01"))
    assert not numbers_equal(None, Fraction(0))


@pytest.mark.parametrize(
    "piece", ["12 + 4 = 16, ", "정답: ", "\\boxed{", "( 3 ", "열여섯 개 ", "<think>", "1 ", "- ", "{{{{", "삼만 오천 "]
)
def test_long_answers_take_time_in_proportion(piece):
    def seconds(count):
        best = float("inf")
        for _ in range(3):
            begin = time.process_time()
            extract_number(piece * count)
            best = min(best, time.process_time() - begin)
        return best

    assert seconds(1600) < 40 * max(
        seconds(200), 0.005
    )  # eight times the text; a quadratic reader needs sixty-four times


@given(st.text(max_size=200))
def test_any_answer_is_read_without_error(text):
    found = extract_number(text)
    assert (found.value is None) == (found.rule == "none")


@given(st.integers(-(10**9), 10**9), st.text(alphabet="가나다라 마바사.\n", max_size=60))
def test_a_clear_last_line_is_always_read(number, working):
    found = extract_number(f"{working}\n정답: {number:,}")
    assert (found.value, found.rule) == (number, "marker")
