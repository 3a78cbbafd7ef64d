"""A study's trials on another machine: built there from a job, run there, returned as they would have been here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmopt import __version__
from llmopt.engines.base import Engine
from llmopt.errors import EngineMissing
from llmopt.hardware.probe import probe
from llmopt.models.entry import ModelEntry
from llmopt.models.weights import WeightsFormat
from llmopt.paths import Workspace, ensure, state_folder
from llmopt.records import Configuration, Hardware, InferenceParams, Item, ModelInfo, Task
from llmopt.runtime.locks import measuring_lock
from llmopt.search.trial import Bench, Referee, TrialResult
from llmopt.search.workload import Workload
from llmopt.study.host import StudyHost
from llmopt.study.weights import bring_weights

__all__ = ["WORK", "Job", "NodeFacts", "RemoteTrials", "survey_node"]

WORK = "llmopt.study.remote:RemoteTrials"
"""What an executor builds on a machine, by its dotted name."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a machine needs to know of a study to run its trials; travels by pickle within one version."""

    entry: ModelEntry
    form: WeightsFormat | None
    """The form of weights the engine takes; None where it takes none."""
    engine: Engine
    work: Workload
    items: tuple[Item, ...]
    task: Task
    safe: bool = False


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """One machine of a cluster as it describes itself."""

    host: str
    version: str
    hardware: Hardware


def survey_node() -> NodeFacts:
    """Describe the machine this runs on."""
    return NodeFacts(host=socket.gethostname(), version=__version__, hardware=probe())


class RemoteTrials:
    """The worker of one launch group (see ``search.executor.Worker``): one bench on the machine it was built on.

    Weights are fetched there. Where nothing but the processor computes, the machine-wide lock keeps others from
    measuring beside it; GPUs were set apart by whoever placed the group.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._job: Job = spec["job"]
        machine = probe()
        self.hardware = machine.fingerprint
        self._items = {item.id: item for item in self._job.items}
        engine = self._job.engine
        if not engine.installation().available:
            raise EngineMissing("search.engine_not_here", engine=engine.name, host=socket.gethostname())
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="llmopt-group-")))
        host = StudyHost(
            engine=engine,
            model=self._model(),
            hardware=machine,
            task=self._job.task,
            run_root=folder,
            safe=self._job.safe,
        )
        self._alone = not machine.devices
        self._locked = False
        self._bench = Bench(host, self._job.work)
        self._runner = asyncio.Runner()

    def run(self, trial: Mapping[str, Any]) -> Mapping[str, Any]:
        """One trial: ``configuration``, item ids in their order, whether the engine starts afresh, its referee."""
        if self._alone and not self._locked:
            self._stack.enter_context(measuring_lock("cluster", wait=True))
            self._locked = True
        result = self._runner.run(
            self._bench.run(
                configuration_from_plain(trial["configuration"]),
                [self._items[name] for name in trial["items"]],
                fresh=bool(trial.get("fresh")),
                referee=trial.get("referee"),
            )
        )
        return {"result": result}

    def close(self) -> None:
        """Stop the engine and leave nothing behind."""
        try:
            self._runner.run(self._bench.stop())
        finally:
            self._runner.close()
            self._stack.close()

    def _model(self) -> ModelInfo:
        entry = self._job.entry
        if self._job.form is None:
            return entry.facts
        workspace = Workspace(root=ensure(state_folder() / "cluster"))
        return bring_weights(entry, self._job.form, workspace=workspace)


def configuration_from_plain(data: Mapping[str, Any]) -> Configuration:
    """The configuration that travelled as plain data."""
    return Configuration(engine=data["engine"], launch=dict(data["launch"]), request=InferenceParams(**data["request"]))


def trial_for(
    configuration: Configuration, items: tuple[Item, ...], *, fresh: bool = False, referee: Referee | None = None
) -> dict[str, Any]:
    """What ``RemoteTrials.run`` is given."""
    plain = {
        "engine": configuration.engine,
        "launch": dict(configuration.launch),
        "request": configuration.request.given(),
    }
    return {"configuration": plain, "items": [item.id for item in items], "fresh": fresh, "referee": referee}


def result_in(value: Mapping[str, Any]) -> TrialResult:
    """The result in what ``RemoteTrials.run`` returned."""
    found: TrialResult = value["result"]
    return found
