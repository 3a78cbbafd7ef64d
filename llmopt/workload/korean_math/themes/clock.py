"""Clocks, calendars and durations."""

from llmopt.workload.korean_math.template import Template, whole

__all__ = ["TEMPLATES"]

TEMPLATES = (
    Template(
        id="homework_and_reading",
        level=1,
        facts=("{who|은} 저녁에 {a:분} 동안 숙제를 했습니다.", "그리고 {b:분} 동안 책을 읽었습니다."),
        question="숙제와 책 읽기에 쓴 시간은 모두 몇 분입니까?",
        unit="분",
        program="a + b",
        equations=("x - b == a",),
        draws={"a": whole(25, 55), "b": whole(12, 40)},
    ),
)
