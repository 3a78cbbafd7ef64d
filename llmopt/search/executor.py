"""Where launch groups run: here, or on other machines. One coordinator hands them out and is the only writer.

The unit is the *launch group*: one engine start and the trials that share it. What runs a group is built where it runs,
from the dotted name of a function, so that another machine needs nothing but this package.
"""

from __future__ import annotations

import importlib
import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Executor", "Group", "LocalExecutor", "Report", "Resources", "Worker", "build_worker", "find_worker"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one group needs: ``nodes`` bundles of so many GPUs and CPUs (tensor parallel inside, pipeline across)."""

    cpus: float = 1.0
    gpus: float = 0.0
    nodes: int = 1


@dataclass(frozen=True, kw_only=True)
class Group:
    """Trials that share a launch, and the function (``package.module:name``) that builds their worker.

    ``trials`` maps an idempotency key to what the worker is to run; the order is the order of running.
    """

    id: str
    work: str
    spec: Mapping[str, Any]
    trials: Mapping[str, Mapping[str, Any]]
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an executor says of a group.

    ``result``: trial ``key`` ended with ``value``. ``failed``: the worker raised (``why``), the group is over.
    ``ended``: all trials were reported. ``lost``: the machine is gone. ``refused``: no machine can hold it.
    ``unsuitable``: the machine it was given is of another kind and is not asked again.
    """

    group: str
    kind: Literal["result", "failed", "ended", "lost", "refused", "unsuitable"]
    key: str = ""
    value: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    hardware: str = ""
    """The fingerprint of the machine it ran on."""


class Worker(Protocol):
    """Runs the trials of one group, on the machine it was built on."""

    hardware: str
    """The fingerprint of that machine."""

    def run(self, trial: Mapping[str, Any]) -> Mapping[str, Any]:
        """One trial to its end; plain data in and out."""
        ...

    def close(self) -> None:
        """Stop the engine; called whatever happened."""
        ...


class Executor(Protocol):
    """A place to run groups."""

    def capacity(self) -> int:
        """How many groups may run at once now."""
        ...

    def start(self, group: Group) -> None:
        """Begin a group; its reports come from ``reports``."""
        ...

    def reports(self, timeout_s: float) -> list[Report]:
        """What happened since the last call; waits up to ``timeout_s`` for the first."""
        ...

    def cancel(self, group_id: str) -> None:
        """Stop a group after the trial that runs; it reports nothing more."""
        ...

    def close(self) -> None:
        """Stop everything."""
        ...


def find_worker(work: str) -> Callable[[Mapping[str, Any]], Worker]:
    """What builds a worker, by its name ``package.module:name``."""
    module, _, name = work.partition(":")
    found: Callable[[Mapping[str, Any]], Worker] = getattr(importlib.import_module(module), name)
    return found


def build_worker(work: str, spec: Mapping[str, Any]) -> Worker:
    """The worker that ``package.module:name`` builds from ``spec``."""
    return find_worker(work)(spec)


class LocalExecutor:
    """Groups on this machine, ``slots`` at a time (one where speed is measured)."""

    def __init__(self, *, slots: int = 1) -> None:
        self._slots = slots
        self._reports: queue.Queue[Report] = queue.Queue()
        self._threads: dict[str, threading.Thread] = {}
        self._cancelled: set[str] = set()

    def capacity(self) -> int:
        """Free slots."""
        self._threads = {name: thread for name, thread in self._threads.items() if thread.is_alive()}
        return self._slots - len(self._threads)

    def start(self, group: Group) -> None:
        """Run the group in a thread of its own."""
        thread = threading.Thread(target=self._run, args=(group,), name=f"llmopt-group-{group.id}", daemon=True)
        self._threads[group.id] = thread
        thread.start()

    def reports(self, timeout_s: float) -> list[Report]:
        """Reports in the order they came."""
        found: list[Report] = []
        try:
            found.append(self._reports.get(timeout=timeout_s))
            while True:
                found.append(self._reports.get_nowait())
        except queue.Empty:
            return [report for report in found if report.group not in self._cancelled]

    def cancel(self, group_id: str) -> None:
        """Stop after the present trial."""
        self._cancelled.add(group_id)

    def close(self) -> None:
        """Cancel everything and wait for the trials that run."""
        self._cancelled.update(self._threads)
        for thread in self._threads.values():
            thread.join()

    def _run(self, group: Group) -> None:
        say = self._reports.put
        hardware = ""
        try:
            worker = build_worker(group.work, group.spec)
            hardware = worker.hardware
            try:
                for key, trial in group.trials.items():
                    if group.id in self._cancelled:
                        return
                    value = worker.run(trial)
                    say(Report(group=group.id, kind="result", key=key, value=value, hardware=hardware))
            finally:
                worker.close()
        except Exception as error:  # noqa: BLE001 - the boundary to a worker: whatever it raises is its report
            say(Report(group=group.id, kind="failed", why=f"{type(error).__name__}: {error}", hardware=hardware))
            return
        say(Report(group=group.id, kind="ended", hardware=hardware))
