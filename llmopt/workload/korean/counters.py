"""Counters and units: which numerals they take and how they are written after a number."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from llmopt.workload.korean.numbers import MAN, NATIVE_LIMIT, comma, man_form, native_modifier, sino

__all__ = ["COUNTERS", "Counter", "Form", "amount"]

Form = Literal["digits", "man", "words"]
"""digits: 12,000원 · man: 1만 2천 원 · words: 만 이천 원, 세 개, 오 킬로그램."""


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A counter or unit; ``spoken`` is how it is written after a number in words (킬로그램 for kg)."""

    text: str
    native: bool = False
    spoken: str = ""


_NATIVE = (
    "개 명 마리 반 권 자루 장 살 시간 번 대 송이 병 잔 그루 켤레 봉지 상자 줄 바퀴 가지 판 통 알 쌍 곳 포기 모둠 접시 "
    "달 배 묶음 시 척 칸 포대 자리 조각 사람 팀 벌 컵 걸음 군데 다발 채 편 그릇 단 포 캔 모 박스 세트 갑 도막 집 가구"
)
_SINO = "원 톤 분 초 일 년 개월 주 층 쪽 인분 점 도 학년 주일 번째 문제"
_DAYS = ("하루", "이틀", "사흘", "나흘", "닷새", "엿새", "이레", "여드레", "아흐레", "열흘")
_LATIN = {
    "km": "킬로미터",
    "m": "미터",
    "cm": "센티미터",
    "mm": "밀리미터",
    "kg": "킬로그램",
    "g": "그램",
    "L": "리터",
    "mL": "밀리리터",
    "%": "퍼센트",
    "㎡": "제곱미터",
    "㎠": "제곱센티미터",
    "㎤": "세제곱센티미터",
    "℃": "도",
}
COUNTERS: dict[str, Counter] = {
    **{text: Counter(text=text, native=True, spoken=text) for text in _NATIVE.split()},
    **{text: Counter(text=text, spoken=text) for text in _SINO.split()},
    **{text: Counter(text=text, spoken=spoken) for text, spoken in _LATIN.items()},
    "": Counter(text=""),
}


def amount(number: int | Fraction, counter: str, form: Form = "digits") -> str:
    """A number with its counter in the asked surface form, falling back to digits where the form has no words for it.

    Raises KeyError for a counter that is not in ``COUNTERS``.
    """
    unit = COUNTERS[counter]
    whole = int(number) if number == int(number) and number > 0 else 0
    if form == "words" and whole:
        if counter == "일" and whole <= len(_DAYS):
            return _DAYS[whole - 1]
        if not unit.native:
            return f"{sino(whole)} {unit.spoken}".rstrip()
        if whole <= NATIVE_LIMIT:
            return f"{native_modifier(whole)} {unit.spoken}"
    if form == "man" and whole >= MAN:
        text = man_form(whole)
        return f"{text}{'' if text[-1].isdigit() else ' '}{unit.text}".rstrip()
    return f"{comma(number)}{unit.text}"
