"""The built-in set of Korean word problems: generated, exact, and as hard as asked."""

from llmopt.workload.korean_math.generator import (
    CANARY,
    LEVELS,
    PER_TEMPLATE,
    SET_VERSION,
    as_jsonl,
    capacity,
    generate,
)

__all__ = ["CANARY", "LEVELS", "PER_TEMPLATE", "SET_VERSION", "as_jsonl", "capacity", "generate"]
