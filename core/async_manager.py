"""Thread-safe asynchronous work: run, submit, wait, cancel and list, from any thread."""

from llmopt.runtime.aio import (
    AsyncTimeout,
    TaskInfo,
    TaskState,
    cancel_async_task,
    forget_async_task,
    list_async_tasks,
    run_async_safe,
    submit_async_task,
    wait_async_task,
)

__all__ = [
    "AsyncTimeout",
    "TaskInfo",
    "TaskState",
    "cancel_async_task",
    "forget_async_task",
    "list_async_tasks",
    "run_async_safe",
    "submit_async_task",
    "wait_async_task",
]
