"""Lengths, weights, volumes and temperatures."""

from llmopt.workload.korean_math.template import Template, whole

__all__ = ["TEMPLATES"]

TEMPLATES = (
    Template(
        id="ribbon_cut",
        level=1,
        facts=("길이가 {a:cm}인 {thing|이} 있습니다.", "선물을 묶느라 {b:cm|을} 잘라 썼습니다."),
        question="남은 {thing|은} 몇 cm입니까?",
        unit="cm",
        program="a - b",
        equations=("x + b == a",),
        draws={"a": whole(52, 98), "b": whole(11, 45)},
        words={"thing": ("리본", "끈", "색 테이프", "노끈")},
    ),
)
