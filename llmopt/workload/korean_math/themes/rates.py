"""Speeds, flows, work done in a time."""

from llmopt.workload.korean_math.template import Template, whole

__all__ = ["TEMPLATES"]

TEMPLATES = (
    Template(
        id="pages_a_day",
        level=1,
        facts=("{who|은} 소설책을 하루에 {a:쪽}씩 읽습니다.", "{b:일} 동안 하루도 빠짐없이 읽었습니다."),
        question="{who|이} 읽은 소설책은 모두 몇 쪽입니까?",
        unit="쪽",
        program="a * b",
        equations=("x / b == a",),
        draws={"a": whole(11, 19), "b": whole(3, 5)},
    ),
    Template(
        id="tap_filling",
        level=1,
        facts=("어떤 수도꼭지에서는 매분 {a:L}의 물이 나옵니다.", "이 수도꼭지를 {b:분} 동안 틀어 놓았습니다."),
        question="나온 물은 모두 몇 L입니까?",
        unit="L",
        program="a * b",
        equations=("x == a * b",),
        draws={"a": whole(3, 9), "b": whole(4, 9)},
    ),
)
