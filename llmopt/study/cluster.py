"""A study over a Ray cluster: this process decides and writes, machines of one kind measure.

The machines describe themselves first. The largest group of equal hardware with our version is what the study is about;
others are passed over by name, because what they measure could not be compared.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmopt import __version__
from llmopt.errors import UsageError
from llmopt.messages import t
from llmopt.records import Configuration, Hardware, InferenceParams, Item, Outcome, Sample
from llmopt.search.conduct import conduct
from llmopt.search.executor import Executor, Group, Report, Resources
from llmopt.search.trial import Failed, Referee, TrialResult
from llmopt.study.remote import WORK, Job, NodeFacts, result_in, survey_node, trial_for
from llmopt.workload.repeats import repeats_for

if TYPE_CHECKING:
    from llmopt.measure.judging import Judge
    from llmopt.search.coordinator import Coordinator
    from llmopt.search.proposer import Proposal, Result
    from llmopt.study.recorder import Recorder
    from llmopt.study.telling import Teller

__all__ = ["Cluster", "ClusterBench", "TrialLedger", "choose_hardware", "needs"]

ATTEMPTS = 3
"""Runs of a group whose machine goes away under it."""
PER_GROUP = 4


class Cluster:
    """A connected cluster: the hardware the study is about, and the executor that finds places on it.

    Raises UsageError where the address does not answer or no machine can take part.
    """

    def __init__(self, address: str) -> None:
        from llmopt.search.executor_ray import RayExecutor  # noqa: PLC0415 - Ray is optional

        self.executor: Executor
        self.executor = ray = RayExecutor(address)
        self.hardware, self.machines, self.passed_over = choose_hardware(ray.survey(survey_node))
        ray.hardware = self.hardware.fingerprint
        self.largest = ray.largest()
        self._ray = ray
        if not self.hardware.devices:  # then every launch takes a whole machine: known before the baseline is measured
            self.expect(
                needs(Configuration(engine="", launch={}, request=InferenceParams()), self.hardware, self.largest)
            )

    def expect(self, resources: Resources) -> None:
        """Say what a usual group needs: no more are begun than there is room for, and their processes start now."""
        self._ray.warm_up(resources, work=WORK)

    def close(self) -> None:
        """Free everything that is held; the cluster stays as it was."""
        self.executor.close()


def choose_hardware(answers: Sequence[tuple[str, Any]]) -> tuple[Hardware, int, tuple[str, ...]]:
    """The most frequent hardware with our version, how many machines have it, and who is passed over and why."""
    fit: list[NodeFacts] = []
    over: list[str] = []
    for address, answer in answers:
        if not isinstance(answer, NodeFacts):
            over.append(f"{address}: {_one_line(answer)}")
        elif answer.version != __version__:
            over.append(f"{answer.host}: llmopt {answer.version}, not {__version__}")
        else:
            fit.append(answer)
    if not fit:
        raise UsageError("search.no_machine", why="; ".join(over) or "-")
    counts = Counter(facts.hardware.fingerprint for facts in fit)
    chosen = max(fit, key=lambda facts: (counts[facts.hardware.fingerprint], len(facts.hardware.devices)))
    wanted = chosen.hardware.fingerprint
    over += [
        f"{facts.host}: {facts.hardware.fingerprint}, not {wanted}"
        for facts in fit
        if facts.hardware.fingerprint != wanted
    ]
    return chosen.hardware, counts[wanted], tuple(over)


def needs(configuration: Configuration, hardware: Hardware, largest: Resources) -> Resources:
    """What a launch takes: its GPUs, tensor parallel inside a machine, pipeline parallel across; else a whole CPU."""
    launch = configuration.launch

    def count(name: str) -> int:
        return max(int(launch.get(name) or 1), 1)

    if not hardware.devices:
        return Resources(cpus=min(largest.cpus, float(max(int(hardware.cpu.usable_cores), 1))))
    return Resources(
        cpus=1.0, gpus=float(count("tensor_parallel") * count("data_parallel")), nodes=count("pipeline_parallel")
    )


class ClusterBench:
    """Runs single trials on the cluster, as a ``Bench`` does here; every one is a launch of its own."""

    launch_key = None

    def __init__(self, cluster: Cluster, job: Callable[[], Job]) -> None:
        self._cluster = cluster
        self._job = job
        self._names = itertools.count()
        self._stopped = threading.Event()

    async def run(
        self,
        configuration: Configuration,
        items: Sequence[Item],
        *,
        on_sample: Callable[[Sample], None] | None = None,
        fresh: bool = False,
        referee: Referee | None = None,
    ) -> TrialResult:
        """Measure ``configuration``; what no machine can hold is a UsageError, what failed there a result."""
        self._stopped.clear()
        trial = trial_for(configuration, tuple(items), fresh=fresh, referee=referee)
        result = await asyncio.to_thread(self._run, configuration, trial)
        if on_sample is not None:
            for sample in result.samples:
                on_sample(sample)
        return result

    async def run_together(
        self,
        configurations: Sequence[Configuration],
        items: Sequence[Item],
        *,
        on_sample: Callable[[Sample], None] | None = None,
        fresh: bool = False,
        referees: Sequence[Referee] = (),
    ) -> list[TrialResult]:
        """One after the other: sharing an engine's time is done within a group, not here."""
        judges: Sequence[Referee | None] = referees or [None] * len(configurations)
        return [
            await self.run(c, items, on_sample=on_sample, fresh=fresh, referee=r)
            for c, r in zip(configurations, judges, strict=True)
        ]

    def judge_by(self, judge: Judge) -> None:
        """Nothing to change: every job is built from the study's workload, which names the judge."""

    def answers_to(self, items: Sequence[Item], params: InferenceParams) -> int:
        """How many answers a trial will ask for."""
        return len(items) * repeats_for(params, self._job().work.repeats)

    async def stop(self) -> None:
        """Give up what is awaited."""
        self._stopped.set()

    def _run(self, configuration: Configuration, trial: Mapping[str, Any]) -> TrialResult:
        lost = 0
        while True:
            report = self._await(configuration, trial)
            if report.kind == "result":
                return result_in(report.value)
            if report.kind == "refused":
                raise UsageError("search.no_machine", why=report.why)
            lost += report.kind == "lost"
            if report.kind == "failed" or lost >= ATTEMPTS:
                return worker_failed(report.why)

    def _await(self, configuration: Configuration, trial: Mapping[str, Any]) -> Report:
        """The first report that says how it went; the end of the group is awaited too, so that its place is free."""
        cluster, name = self._cluster, f"single:{next(self._names)}"
        cluster.executor.start(
            Group(
                id=name,
                work=WORK,
                spec={"job": self._job()},
                trials={name: trial},
                resources=needs(configuration, cluster.hardware, cluster.largest),
            )
        )
        said: Report | None = None
        while not self._stopped.is_set():
            for report in cluster.executor.reports(1.0):
                if report.group != name:
                    continue
                if report.kind != "result":
                    return said or report
                said = report
        cluster.executor.cancel(name)
        return said or Report(group=name, kind="failed", why=t("cli.interrupted"))


class TrialLedger:
    """The recorder as the conductor's ledger; ``learn`` hears of every trial that ended."""

    def __init__(
        self,
        recorder: Recorder,
        teller: Teller,
        *,
        items: int,
        learn: Callable[[Proposal, int, TrialResult, Result], None],
    ) -> None:
        self._recorder = recorder
        self._teller = teller
        self._items = items
        self._learn = learn
        self._proposals: dict[int, Proposal] = {}

    def started(self, proposal: Proposal) -> int:
        """A trial begins."""
        number = self._recorder.started(
            proposal.configuration,
            origin=proposal.origin,
            phase="search",
            position=proposal.position,
            derived_from=proposal.derived_from,
            sampler=proposal.sampler,
        )
        self._proposals[number] = proposal
        self._teller.started(number, proposal.configuration, items=self._items, left_s=None)
        return number

    def finished(self, number: int, value: Mapping[str, Any], *, hardware: str) -> Result | None:
        """A trial ended on a machine of the study's hardware."""
        del hardware  # the executor lets no other machine take part
        return self._ended(number, result_in(value))

    def failed(self, number: int, why: str, *, hardware: str) -> Result:
        """A trial's worker raised, or its machine was lost too often."""
        del hardware
        return self._ended(number, worker_failed(why))

    def abandoned(self, number: int, why: str) -> None:
        """A trial was running on a machine that is gone, or when the time was up."""
        del why
        self._recorder.abandoned(number)

    def _ended(self, number: int, result: TrialResult) -> Result:
        told = self._recorder.finished(number, result)
        self._teller.ended(number, result, told, left_s=None)
        self._learn(self._proposals.pop(number), number, result, told)
        return told


def conduct_search(
    cluster: Cluster,
    coordinator: Coordinator,
    ledger: TrialLedger,
    *,
    study: str,
    job: Job,
    trials: int,
    referee: Callable[[], Referee],
    items: tuple[Item, ...],
    may_start: Callable[[], bool],
    may_go_on: Callable[[], bool],
) -> tuple[str, ...]:
    """Hand launch groups to the cluster until enough is known; the machines that were passed over meanwhile."""
    cluster.expect(needs(coordinator.space.configuration({}), cluster.hardware, cluster.largest))
    done = conduct(
        coordinator,
        cluster.executor,
        ledger,
        study=study,
        work=WORK,
        spec=lambda _: {"job": job},
        trial=lambda configuration: trial_for(configuration, items, referee=referee()),
        trials=trials,
        per_group=PER_GROUP,
        attempts=ATTEMPTS,
        resources=lambda configuration: needs(configuration, cluster.hardware, cluster.largest),
        may_start=may_start,
        may_go_on=may_go_on,
    )
    return done.unsuitable


def worker_failed(why: str) -> TrialResult:
    """A trial whose worker gave no result."""
    failed = Failed(id="search.worker_failed", category="unknown", text=t("search.worker_failed", why=why))
    return TrialResult(outcome=Outcome.FAILED, failed=failed)


def _one_line(error: object) -> str:
    text = str(getattr(error, "cause", None) or error).strip()
    return text.splitlines()[-1] if text else type(error).__name__
