"""Perimeters, areas, volumes and angles."""

from llmopt.workload.korean_math.template import Template, whole

__all__ = ["TEMPLATES"]

TEMPLATES = (
    Template(
        id="square_perimeter",
        level=1,
        facts=("한 변의 길이가 {a:cm}인 정사각형 모양의 {thing|이} 있습니다.",),
        question="이 {thing}의 둘레는 몇 cm입니까?",
        unit="cm",
        program="4 * a",
        equations=("x - a == a + a + a",),
        draws={"a": whole(11, 24)},
        words={"thing": ("액자", "타일", "손수건", "방석")},
    ),
)
