"""Recognise what went wrong from logs: the signature catalogue as data, classification, history, recovery advice."""

from __future__ import annotations

from llmopt.failures.advice import Advice, advise
from llmopt.failures.classify import Failure, classify, find_failure, find_notices
from llmopt.failures.handling import error_context, safe_execute
from llmopt.failures.history import (
    FailureCount,
    FailureRecord,
    FailureSink,
    History,
    JsonLinesSink,
    MemorySink,
    WorkspaceSink,
    explain_exception,
    get_history,
    set_history,
)

__all__ = [
    "Advice",
    "Failure",
    "FailureCount",
    "FailureRecord",
    "FailureSink",
    "History",
    "JsonLinesSink",
    "MemorySink",
    "WorkspaceSink",
    "advise",
    "classify",
    "error_context",
    "explain_exception",
    "find_failure",
    "find_notices",
    "get_history",
    "safe_execute",
    "set_history",
]
