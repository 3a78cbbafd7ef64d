"""Guards around a caller's own functions: fall back, retry, explain and record, without hiding anything."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from llmopt.errors import UsageError
from llmopt.failures.history import explain_exception, get_history
from llmopt.logs import get_logger, mask
from llmopt.messages import t

if TYPE_CHECKING:
    from types import TracebackType

    from llmopt.failures.classify import Failure

__all__ = ["error_context", "safe_execute"]

P = ParamSpec("P")
R = TypeVar("R")
Kinds = type[BaseException] | tuple[type[BaseException], ...]


@overload
def safe_execute(fallback_result: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def safe_execute(
    fallback_result: Any = None,
    *,
    retries: int = 0,
    on: Kinds = Exception,
    wait_s: float = 0.5,
    most_wait_s: float = 30.0,
    name: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def safe_execute(
    fallback_result: Any = None,
    *,
    retries: int = 0,
    on: Kinds = Exception,
    wait_s: float = 0.5,
    most_wait_s: float = 30.0,
    name: str | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """Decorate a function, sync or async: on a failure of kind ``on`` retry, then return ``fallback_result``.

    Each failure is explained in the log and kept in the history. Waits double from ``wait_s`` to ``most_wait_s``. What
    needs the user (a licence, a driver) is not retried. Ctrl-C, exit and cancellation always pass. Works bare too.
    """
    if retries < 0:
        raise UsageError("failures.negative_retries", retries=retries)
    if inspect.isroutine(fallback_result) or inspect.isfunction(fallback_result):  # used bare, without parentheses
        return safe_execute()(fallback_result)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError("failures.generator", name=function.__qualname__)
        plan = _Plan(name or function.__qualname__, retries, wait_s, most_wait_s)
        if inspect.iscoroutinefunction(function):
            return _guarded_async(function, plan, on, fallback_result)
        return _guarded(function, plan, on, fallback_result, sleep)

    return decorate


def _guarded(
    function: Callable[P, Any], plan: _Plan, on: Kinds, fallback: Any, sleep: Callable[[float], None]
) -> Callable[P, Any]:
    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        for attempt in range(plan.retries + 1):
            try:
                return function(*args, **kwargs)
            except on as error:
                if not plan.again(error, attempt):
                    break
                sleep(plan.wait(attempt))
        return fallback

    return guarded


def _guarded_async(
    function: Callable[P, Awaitable[Any]], plan: _Plan, on: Kinds, fallback: Any
) -> Callable[P, Awaitable[Any]]:
    @functools.wraps(function)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        for attempt in range(plan.retries + 1):
            try:
                return await function(*args, **kwargs)
            except on as error:
                if not plan.again(error, attempt):
                    break
                await asyncio.sleep(plan.wait(attempt))
        return fallback

    return guarded


class _Plan:
    """What one guarded function does with a failure."""

    def __init__(self, name: str, retries: int, wait_s: float, most_wait_s: float) -> None:
        self._name = name
        self.retries = retries
        self._wait_s = wait_s
        self._most_wait_s = most_wait_s

    def again(self, error: BaseException, attempt: int) -> bool:
        """Record the failure; whether another attempt is worth while. Raises what must never be swallowed."""
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | asyncio.CancelledError):
            raise error
        failure = explain_exception(error)
        hopeless = bool(failure.recovery) and failure.recovery[0] in ("ask", "stop")
        again = attempt < self.retries and not hopeless
        key = "failures.did_retry" if again else "failures.did_fall_back"
        done = t(key, attempt=attempt + 1, most=self.retries)
        get_history().record(failure, where=self._name, done=done)
        get_logger("llmopt.errors").warning("%s", _explained(self._name, failure, done))
        return again

    def wait(self, attempt: int) -> float:
        """Seconds before the next attempt."""
        return float(min(self._most_wait_s, self._wait_s * 2**attempt))


def _explained(where: str, failure: Failure, done: str) -> str:
    """The failure for the log: what, why, what was done, what to do."""
    if not failure.known:
        return t("failures.in_function", where=where, text=failure.line, done=done)
    return "\n".join(
        [
            t("failures.in_function", where=where, text=failure.what, done=done),
            t("failures.heading.why", text=failure.why),
            t("failures.heading.remedy", text=failure.remedy),
        ]
    )


class error_context:  # noqa: N801 - the documented name, used like a function
    """Say what was being done: ``with error_context("loading", model=name):`` (or ``async with``).

    A failure gets a note with this text, is explained, and is kept in the history; it passes on unless
    ``reraise=False`` and it is of kind ``on``. ``failure`` holds the explanation afterwards.
    """

    def __init__(self, doing: str, *, reraise: bool = True, on: Kinds = Exception, **details: object) -> None:
        self._doing = doing
        self._reraise = reraise
        self._on = on
        self._details = details
        self.failure: Failure | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        details = ", ".join(f"{name}={value}" for name, value in self._details.items())
        where = mask(f"{self._doing} ({details})" if details else self._doing)
        self.failure = explain_exception(error)
        error.add_note(t("failures.while", doing=where))
        if self.failure.known:
            error.add_note(self.failure.explain())
        get_history().record(self.failure, where=where)
        return not self._reraise and isinstance(error, self._on)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.__exit__(kind, error, trace)
