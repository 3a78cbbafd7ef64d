"""Units an answer may carry, and the explicit map of which convert into which.

Everything not in the map compares as a bare number; counters (개, 명, 권 …) count as one another, since a model that
answers 17명 where 17개 was asked has the number right.
"""

from __future__ import annotations

from fractions import Fraction

from llmopt.workload.korean.counters import COUNTERS

__all__ = ["ASCII_UNITS", "HANGUL_UNITS", "convert", "dimension"]

_COUNT, _PERCENT = "count", "percent"


def _table(name: str, **factors: str) -> dict[str, tuple[str, Fraction]]:
    """Units by factor: ``_table("time", _60="분 min")`` says 분 and min are 60 of the dimension's smallest unit."""
    return {
        unit: (name, Fraction(factor.removeprefix("_").replace("_", "/")))
        for factor, units in factors.items()
        for unit in units.split()
    }


_MEASURES: dict[str, tuple[str, Fraction]] = {
    **_table("money", _1="원 won krw 원정 ₩", _10000="만원", _1000="천원"),
    **_table("dollar", _1="달러 불 dollar dollars usd", _1_100="센트 cent cents"),
    **_table(
        "length",
        _1="mm 밀리미터 밀리",
        _10="cm 센티미터 센티 센치 센치미터",
        _1000="m 미터 meter meters",
        _1000000="km 킬로미터",
    ),
    **_table("mass", _1_1000="mg 밀리그램", _1="g 그램 gram grams", _1000="kg 킬로그램 킬로", _1000000="t 톤"),
    **_table(
        "volume",
        _1="ml 밀리리터 cc 시시 cm^3 세제곱센티미터",
        _100="dl 데시리터",
        _1000="l 리터 liter liters",
        _1000000="kl 킬로리터 m^3 세제곱미터",
    ),
    **_table(
        "time",
        _1="초 s sec second seconds 초간",
        _60="분 min minute minutes 분간",
        _3600="시간 시 h hr hour hours",
        _86400="일 day days 일간",
        _604800="주 주일 주간 week weeks",
    ),
    **_table("month", _1="개월 달 month months", _12="년 year years 년간"),
    **_table(
        "area",
        _1="mm^2 제곱밀리미터",
        _100="cm^2 제곱센티미터 제곱cm 제곱센티",
        _1000000="m^2 제곱미터 제곱m",
        _100000000="아르",
        _10000000000="ha 헥타르",
        _1000000000000="km^2 제곱킬로미터",
    ),
    **_table("degree", _1="도 degree degrees"),
    **_table(_PERCENT, _1="% 퍼센트 프로 퍼센트포인트 %p percent 푼", _10="할"),
    **_table(_COUNT, _12="다스 타 dozen"),
}
_COUNTERS = (
    frozenset(
        {
            *(name for name, counter in COUNTERS.items() if counter.native),
            *(
                "인분",
                "점",
                "층",
                "쪽",
                "학년",
                "반",
                "문제",
                "세",
                "분",
                "인",
                "회",
                "번째",
                "가구",
                "페이지",
                "장면",
                "등",
                "호",
            ),
            *(
                "문항",
                "건",
                "종류",
                "봉",
                "말",
                "되",
                "두름",
                "손",
                "톨",
                "필",
                "량",
                "동",
                "석",
                "평",
                "위",
                "승",
                "골",
            ),
            *("도막", "마디", "방울", "꾸러미", "망", "관", "바구니", "자리", "갑", "첩", "경기", "차례"),
        }
    )
    - _MEASURES.keys()
)
_ALL = {**{name: (_COUNT, Fraction(1)) for name in _COUNTERS if name}, **_MEASURES}

HANGUL_UNITS: tuple[str, ...] = tuple(sorted((u for u in _ALL if "가" <= u[0] <= "힣"), key=len, reverse=True))
"""Units written in Hangul, longest first."""
ASCII_UNITS: tuple[str, ...] = tuple(sorted((u for u in _ALL if not "가" <= u[0] <= "힣"), key=len, reverse=True))
"""Units written in Latin letters or signs, in lower case, longest first."""


def dimension(unit: str) -> str:
    """What a unit measures; empty for no unit or one that is not in the map."""
    return _ALL.get(_canonical(unit), ("", Fraction(1)))[0]


def convert(value: Fraction, unit: str, into: str) -> Fraction | None:
    """``value`` in the unit ``into``; unchanged where a unit is unknown; None where they measure different things."""
    source, target = _ALL.get(_canonical(unit)), _ALL.get(_canonical(into))
    if source is None or target is None:
        return value
    if source[0] == target[0]:
        return value * source[1] / target[1]
    # 분 is minutes, and also the polite counter of persons
    return value if "분" in (unit, into) and _COUNT in (source[0], target[0]) else None


_SPELLINGS = {"㎡": "m^2", "㎠": "cm^2", "㎢": "km^2", "㎟": "mm^2", "㎥": "m^3", "㎤": "cm^3", "℃": "도", "°": "도"}


def _canonical(unit: str) -> str:
    text = unit.replace(" ", "")
    return _SPELLINGS.get(text, text.lower())
