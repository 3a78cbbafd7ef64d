"""Groups on a Ray cluster: one actor for each at a time, in a placement group, given up when no node can hold it.

Ray core only. An infeasible placement group never raises in Ray, it waits for ever: what no node can ever hold is
refused at once, and waiting has a time-out. A node that dies takes its actors along; their groups are reported lost and
are the conductor's to run again. A node with another version or other hardware is kept occupied, so that the group goes
elsewhere: what was measured there could not be compared.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmopt.errors import UsageError
from llmopt.search.executor import Report, Resources, build_worker, find_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llmopt.search.executor import Group

__all__ = ["RayExecutor"]

_CONNECT_S = 10.0
_WARM_UP_S = 10.0
"""There was room a moment ago: what is not placed by then was somebody else's."""


class _Seat:
    """The actor: builds a group's worker on its node and runs one trial a call; takes another group when it is over."""

    def prepare(self, work: str) -> None:
        """Import what builds the workers, ahead of the first group."""
        find_worker(work)

    def take(self, work: str, spec: Mapping[str, Any]) -> dict[str, str]:
        """Build the worker; where it runs and what it runs. Not in ``__init__``: that would look like a lost node."""
        from llmopt import __version__  # noqa: PLC0415 - on the node

        self._worker = build_worker(work, spec)
        return {"hardware": self._worker.hardware, "version": __version__, "host": socket.gethostname()}

    def run(self, trial: Mapping[str, Any]) -> dict[str, Any]:
        """One trial."""
        return dict(self._worker.run(trial))

    def close(self) -> None:
        """Stop the engine."""
        self._worker.close()


@dataclass(frozen=True, kw_only=True)
class _Resting:
    """A seat without a group: it keeps its place, so that the next group need not wait for a process to start."""

    resources: Resources
    placement: Any
    seat: Any


@dataclass(kw_only=True)
class _Running:
    """A group under way: where it sits, what it still has to run, and the call that is awaited."""

    group: Group
    placement: Any
    waiting: Iterator[tuple[str, Mapping[str, Any]]]
    since_s: float
    seat: Any = None
    call: Any = None
    key: str = ""
    """Of the trial that runs; empty while the seat is being placed or prepared."""
    hardware: str = ""


class RayExecutor:
    """Groups on the cluster at ``address`` (``auto`` for the one of this machine).

    ``slots`` limits the groups at once (None: as many as the cluster has room for), ``hardware`` is the fingerprint
    that machines must have (None: any). Raises UsageError where Ray is not installed or the address does not answer.
    """

    def __init__(
        self,
        address: str = "auto",
        *,
        slots: int | None = None,
        placement_s: float = 120.0,
        resources: Resources | None = None,
        namespace: str = "llmopt",
        hardware: str | None = None,
    ) -> None:
        self._ray = _connected(address, namespace)
        self.hardware = hardware
        self._slots = slots
        self._placement_s = placement_s
        self.resources = resources
        self._unsuitable: list[_Running] = []
        self._running: dict[str, _Running] = {}
        self._resting: list[_Resting] = []
        self._said: list[Report] = []

    def capacity(self) -> int:
        """Free slots: the limit, else how many more groups of the usual size the cluster has room for."""
        if self._slots is not None:
            return self._slots - len(self._running)
        return self._room() + len(self._resting)

    def warm_up(self, resources: Resources, *, work: str) -> None:
        """Start a seat of this size for ``work`` wherever there is room now: groups that come later begin at once."""
        self.resources = resources
        most = self._room() if self._slots is None else min(self._slots - len(self._running), self._room())
        placements = {(made := self._placement(resources)).ready(): made for _ in range(most - len(self._resting))}
        if not placements:
            return
        ready, late = self._ray.wait(list(placements), num_returns=len(placements), timeout=_WARM_UP_S)
        for call in late:
            self._vacate(None, placements[call])
        for call in ready:
            seat = self._new_seat(resources, placements[call])
            seat.prepare.remote(work)  # nobody waits for it: what is wrong with ``work`` is said when a group takes it
            self._resting.append(_Resting(resources=resources, placement=placements[call], seat=seat))

    def _room(self) -> int:
        """How many more seats of the usual size the cluster could hold."""
        free = self._ray.available_resources()
        placing = sum(run.seat is None for run in self._running.values())
        if self.resources is None:
            return int(free.get("CPU", 0)) - placing
        rooms = [free.get("CPU", 0) / max(self.resources.cpus * self.resources.nodes, 1e-9)]
        if self.resources.gpus:
            rooms.append(free.get("GPU", 0) / (self.resources.gpus * self.resources.nodes))
        return int(min(rooms)) - placing

    def survey(self, describe: Callable[[], Any], *, timeout_s: float = 60.0) -> list[tuple[str, Any]]:
        """What ``describe`` says on every living node, with the node's address; an exception stands for its answer."""
        from ray.util.scheduling_strategies import (  # noqa: PLC0415 - optional, only with --cluster
            NodeAffinitySchedulingStrategy,
        )

        calls = []
        for node in self._alive():
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = self._ray.remote(describe).options(num_cpus=0, scheduling_strategy=where)
            calls.append((node["NodeManagerAddress"], task.remote()))
        found: list[tuple[str, Any]] = []
        deadline = time.monotonic() + timeout_s
        for address, call in calls:
            try:
                answer = self._ray.get(call, timeout=max(deadline - time.monotonic(), 0.1))
            except self._ray.exceptions.RayError as error:
                answer = error
            found.append((address, answer))
        return found

    def _alive(self) -> list[Mapping[str, Any]]:
        """The nodes that can run something."""
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]

    def _possible(self, need: Resources) -> bool:
        """Whether the nodes that are alive could hold it, were they all free."""
        rooms = [node["Resources"] for node in self._alive()]
        large = [r for r in rooms if r.get("CPU", 0) >= need.cpus and r.get("GPU", 0) >= need.gpus]
        return len(large) >= need.nodes

    def largest(self) -> Resources:
        """The most GPUs, and the most CPUs, that one living node has."""
        rooms = [node["Resources"] for node in self._alive()]
        return Resources(
            cpus=max((r.get("CPU", 0.0) for r in rooms), default=0.0),
            gpus=max((r.get("GPU", 0.0) for r in rooms), default=0.0),
        )

    def start(self, group: Group) -> None:
        """Ask for a place; the group begins when the cluster gives it."""
        if not self._possible(group.resources):
            self._said.append(Report(group=group.id, kind="refused", why=self._lacking(group.resources)))
            return
        kept = next((one for one in self._resting if one.resources == group.resources), None)
        if kept is None:
            self._release_resting()  # they may hold the very place that is needed
        placement = self._placement(group.resources) if kept is None else kept.placement
        run = _Running(group=group, placement=placement, waiting=iter(group.trials.items()), since_s=time.monotonic())
        if kept is None:
            run.call = placement.ready()
        else:
            self._resting.remove(kept)
            self._take_seat(run, kept.seat)
        self._running[group.id] = run

    @staticmethod
    def _placement(need: Resources) -> Any:
        from ray.util.placement_group import placement_group  # noqa: PLC0415 - optional, only with --cluster

        bundle = {"CPU": need.cpus, **({"GPU": need.gpus} if need.gpus else {})}
        strategy = "STRICT_PACK" if need.nodes == 1 else "STRICT_SPREAD"
        return placement_group([bundle] * need.nodes, strategy=strategy)

    def reports(self, timeout_s: float) -> list[Report]:
        """What happened since the last call; waits up to ``timeout_s`` for the first."""
        deadline = time.monotonic() + timeout_s
        while not self._said and self._running:
            left = deadline - time.monotonic()
            if left < 0:
                break
            calls = {run.call: run for run in self._running.values()}
            ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=min(left, 1.0))
            for call in ready:
                self._advance(calls[call])
            self._give_up_waiting()
        said, self._said = self._said, []
        return said

    def cancel(self, group_id: str) -> None:
        """Kill the group's actor and free its place."""
        run = self._running.pop(group_id, None)
        if run is not None:
            self._free(run)

    def close(self) -> None:
        """Cancel everything; the cluster itself stays as it was."""
        for group_id in list(self._running):
            self.cancel(group_id)
        for run in self._unsuitable:
            self._free(run)
        self._unsuitable.clear()
        self._release_resting()

    def _release_resting(self) -> None:
        for one in self._resting:
            self._vacate(one.seat, one.placement)
        self._resting.clear()

    # ── one group ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _advance(self, run: _Running) -> None:
        """The awaited call ended: placed, prepared, one trial done, closed, or its node is gone."""
        exceptions = self._ray.exceptions
        try:
            value = self._ray.get(run.call)
        except exceptions.RayTaskError as error:  # what the worker itself raised
            self._end(run, "failed", why=_first_line(getattr(error, "cause", None) or error))
            return
        except exceptions.RayError as error:  # its process, its node or its place is gone
            self._end(run, "lost", why=_first_line(error))
            self._release_resting()  # some of them may be gone as well
            return
        if run.seat is None:
            self._take_seat(run, self._new_seat(run.group.resources, run.placement))
        elif not run.hardware:
            self._described(run, value)
        elif run.key:
            self._say(run, "result", key=run.key, value=value)
            self._next(run)
        else:
            self._say(run, "ended")
            self._running.pop(run.group.id, None)
            self._pass_on(run)

    def _pass_on(self, run: _Running) -> None:
        """The seat of a group that ended: for one that waits, at rest for the next of its size, or given back."""
        waiting = [other for other in self._running.values() if other.seat is None]
        alike = next((other for other in waiting if other.group.resources == run.group.resources), None)
        if alike is not None:
            self._vacate(None, alike.placement)
            alike.placement = run.placement
            self._take_seat(alike, run.seat)
        elif waiting:
            self._free(run)  # it may be the very place that is needed
        else:
            self._resting.append(_Resting(resources=run.group.resources, placement=run.placement, seat=run.seat))

    def _new_seat(self, need: Resources, placement: Any) -> Any:
        from ray.util.scheduling_strategies import (  # noqa: PLC0415 - optional, only with --cluster
            PlacementGroupSchedulingStrategy,
        )

        actor = self._ray.remote(_Seat).options(
            num_cpus=need.cpus,
            num_gpus=need.gpus,
            max_restarts=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=placement,
                placement_group_bundle_index=0,
                placement_group_capture_child_tasks=True,
            ),
        )
        return actor.remote()

    @staticmethod
    def _take_seat(run: _Running, seat: Any) -> None:
        run.seat = seat
        run.call = seat.take.remote(run.group.work, dict(run.group.spec))

    def _described(self, run: _Running, found: Mapping[str, str]) -> None:
        from llmopt import __version__  # noqa: PLC0415 - compared only here

        run.hardware = found["hardware"] or "unknown"
        if found["version"] != __version__:
            self._keep_occupied(run, why=f"{found['host']}: llmopt {found['version']}, not {__version__}")
        elif self.hardware is not None and run.hardware != self.hardware:
            self._keep_occupied(run, why=f"{found['host']}: hardware {run.hardware}, not {self.hardware}")
        else:
            self._next(run)

    def _keep_occupied(self, run: _Running, *, why: str) -> None:
        """This machine will not do; its place stays taken so that nothing else is placed there."""
        self._say(run, "unsuitable", why=why)
        self._running.pop(run.group.id, None)
        self._unsuitable.append(run)

    def _next(self, run: _Running) -> None:
        found = next(run.waiting, None)
        if found is None:
            run.key = ""
            run.call = run.seat.close.remote()
            return
        run.key, trial = found
        run.call = run.seat.run.remote(dict(trial))

    def _give_up_waiting(self) -> None:
        for run in list(self._running.values()):
            if run.seat is None and time.monotonic() - run.since_s > self._placement_s:
                self._end(run, "refused", why=self._lacking(run.group.resources))

    def _lacking(self, need: Resources) -> str:
        most = self.largest()
        return f"{need.nodes} × {need.gpus:g} GPU, {need.cpus:g} CPU (≤ {most.gpus:g} GPU, {most.cpus:g} CPU)"

    def _say(self, run: _Running, kind: Any, *, key: str = "", value: Any = None, why: str = "") -> None:
        self._said.append(
            Report(group=run.group.id, kind=kind, key=key, value=value or {}, why=why, hardware=run.hardware)
        )

    def _end(self, run: _Running, kind: Any, *, why: str = "") -> None:
        self._say(run, kind, why=why)
        self._running.pop(run.group.id, None)
        self._free(run)

    def _free(self, run: _Running) -> None:
        self._vacate(run.seat, run.placement)

    def _vacate(self, seat: Any, placement: Any) -> None:
        from ray.util.placement_group import remove_placement_group  # noqa: PLC0415 - optional, only with --cluster

        if seat is not None:
            self._ray.kill(seat, no_restart=True)
        remove_placement_group(placement)


def _first_line(error: object) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def _refuse_silent(address: str) -> None:
    """Raise UsageError where nobody listens at ``host:port``: Ray itself would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise UsageError("search.ray_unreachable", address=address, reason=error.strerror or error) from None


def _connected(address: str, namespace: str) -> Any:
    try:
        import ray  # noqa: PLC0415 - optional, only with --cluster
    except ImportError:
        raise UsageError("search.ray_missing") from None
    if ray.is_initialized():
        return ray
    _refuse_silent(address)
    try:
        ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level="error")
    except Exception as error:
        raise UsageError("search.ray_unreachable", address=address, reason=_first_line(error)) from error
    return ray
