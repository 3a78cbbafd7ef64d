"""Ages now, then and later."""

from llmopt.workload.korean_math.template import Template, whole

__all__ = ["TEMPLATES"]

TEMPLATES = (
    Template(
        id="older_sister",
        level=1,
        facts=("{who|은} 올해 {a:살}입니다.", "언니는 {who}보다 {b:살} 더 많습니다."),
        question="언니는 올해 몇 살입니까?",
        unit="살",
        program="a + b",
        equations=("x - a == b",),
        draws={"a": whole(11, 16), "b": whole(2, 9)},
        words={"who": ("서연이", "하은이", "수아", "예린이", "유나")},
    ),
)
