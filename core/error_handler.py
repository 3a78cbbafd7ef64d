"""Error handling: guarded functions, contexts, explanations and the history of failures."""

from llmopt.failures import (
    Failure,
    FailureRecord,
    classify,
    error_context,
    explain_exception,
    get_history,
    safe_execute,
)

__all__ = [
    "Failure",
    "FailureRecord",
    "classify",
    "error_context",
    "explain_exception",
    "get_history",
    "safe_execute",
]
