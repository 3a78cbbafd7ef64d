"""What a reply is once its thinking is gone, and where it states its answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.answers.moments import Day, parse_clock, parse_date, same_moment
from llmopt.measure.answers.reply import boxed, marked, read_reply


@pytest.mark.parametrize(
    ("text", "visible", "unclosed"),
    [
        ("정답: 3", "정답: 3", False),
        ("<think>음</think>정답: 3", "정답: 3", False),
        ("<thinking>a\nb</thinking>\n정답: 3", "정답: 3", False),
        ("음…</think>정답: 3", "정답: 3", False),
        ("<think>끝나지 않는", "", True),
        ("<think>하나</think>둘<think>셋", "둘", True),
        ("", "", False),
    ],
)
def test_thinking_is_dropped(text, visible, unclosed):
    assert (read_reply(text).text, read_reply(text).unclosed) == (visible, unclosed)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("정답: 서울", "서울"),
        ("답은 서울", "서울"),
        ("해답 없음", None),
        ("오답: 서울", None),
        ("정답을 찾아봅시다", None),
        ("정답: 부산\n정답: 서울", "서울"),
        ("정답:\n\n서울", "서울"),
        ("정답: ", None),
        ("**정답:** 서울", "서울"),
        ("# 정답: 서울", "서울"),
        ("정답은 다음과 같습니다.\n서울", "서울"),
        ("Final answer: 12", "12"),
        ("My answer is 12", "12"),
    ],
)
def test_marked_answers(text, answer):
    assert marked(text) == answer


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        (r"\boxed{3}", "3"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1", None),
        ("", None),
    ],
)
def test_boxes_are_balanced(text, inner):
    assert boxed(text) == inner


@given(st.text(max_size=200))
def test_any_text_can_be_read(text):
    reply = read_reply(text)
    assert "</think>" not in reply.text
    assert marked(reply.text) != ""
    boxed(reply.text)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("3월 14일", Day(None, 3, 14)),
        ("2025년 3월 14일", Day(2025, 3, 14)),
        ("2025-03-14", Day(2025, 3, 14)),
        ("3/14", Day(None, 3, 14)),
        ("3월 14일(금)입니다.", Day(None, 3, 14)),
        ("13월 14일", None),
        ("3월 32일", None),
        ("3월", None),
        ("14일", None),
        ("3.14", None),
    ],
)
def test_dates(text, day):
    assert parse_date(text) == day


@pytest.mark.parametrize(
    ("text", "minute"),
    [
        ("오전 9시", 540),
        ("오전 9시 5분", 545),
        ("오후 3시 반", 930),
        ("15:05", 905),
        ("3:05 pm", 905),
        ("오전 12시", 0),
        ("오후 12시", 720),
        ("낮 12시", 720),
        ("낮 1시", 780),
        ("낮 11시", 660),
        ("밤 11시", 1380),
        ("밤 12시", 0),
        ("저녁 7시 10분입니다", 1150),
        ("새벽 2시", 120),
        ("25시", None),
        ("3시간", None),
        ("9:75", None),
        ("아홉 시", 540),
        ("오후 열두 시 반", 750),
        ("정오", 720),
        ("아홉 시간", None),
    ],
)
def test_times(text, minute):
    assert parse_clock(text) == minute


def test_moments_of_different_kinds_are_never_the_same():
    assert not same_moment("3월 14일", "3시 14분")
    assert not same_moment("서울", "서울")
