"""Multiples, fractions, percentages and ratios."""

from llmopt.workload.korean_math.template import Template, whole

__all__ = ["TEMPLATES"]

TEMPLATES = (
    Template(
        id="times_as_many_stickers",
        level=1,
        facts=("{who|은} 붙임딱지를 {a:장} 모았습니다.", "{other|은} {who}의 {k:배}만큼 모았습니다."),
        question="{other|이} 모은 붙임딱지는 몇 장입니까?",
        unit="장",
        program="a * k",
        equations=("x / k == a",),
        draws={"a": whole(12, 24), "k": whole(2, 4)},
    ),
)
