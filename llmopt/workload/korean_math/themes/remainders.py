"""What is left over, and how many are needed to hold everything."""

from llmopt.workload.korean_math.template import Template, whole

__all__ = ["TEMPLATES"]

TEMPLATES = (
    Template(
        id="balloons_left_over",
        level=1,
        facts=("풍선 {a:개}를 어린이 {b:명}에게 되도록 많이, 똑같이 나누어 주었습니다.",),
        question="나누어 주고 남은 풍선은 몇 개입니까?",
        unit="개",
        program="a % b",
        first="x < b and (a - x) % b == 0",
        draws={"a": whole(23, 59), "b": whole(5, 9)},
    ),
)
