"""One optimisation from request to result on disk; the same code for the command line and the Python API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmopt.config.settings import SettingsView
from llmopt.errors import UsageError
from llmopt.paths import Workspace, ensure
from llmopt.records import digest
from llmopt.report.writing import write_report
from llmopt.runtime.locks import measuring_lock
from llmopt.store.beside import write_questions
from llmopt.store.database import Store
from llmopt.store.heartbeat import beating
from llmopt.study.cluster import Cluster
from llmopt.study.events import Event, Listener, silent, tell_data
from llmopt.study.final import with_final_items
from llmopt.study.knowledge import recorded_facts
from llmopt.study.prepare import Prepared, prepare
from llmopt.study.request import StudyRequest
from llmopt.study.result import build_result
from llmopt.study.run import StudyRun, study_folder
from llmopt.study.weights import fetching_data

__all__ = ["optimize", "resume", "study_name"]


async def optimize(
    request: StudyRequest,
    *,
    workspace: Workspace,
    settings: SettingsView,
    listener: Listener = silent,
    wait_for_lock: bool = False,
) -> dict[str, Any]:
    """Run a new study; the result as written to ``result.json``. Raises LlmoptError kinds; interruptible anywhere."""
    name = study_name(request)
    with Store.open(workspace.database) as store:
        known = store.find_study(name)
        if known is not None:
            asked = json.loads(json.dumps(request.conditions()))  # as it comes back from the database
            same = all(known.spec.get(setting) == value for setting, value in asked.items())
            raise UsageError("store.study_exists" if same else "store.study_differs", name=name)
        return await _run(
            request,
            None,
            name,
            store=store,
            workspace=workspace,
            settings=settings,
            listener=listener,
            wait_for_lock=wait_for_lock,
        )


async def resume(
    name: str | None,
    *,
    workspace: Workspace,
    settings: SettingsView,
    listener: Listener = silent,
    wait_for_lock: bool = False,
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """Continue an interrupted study (the newest one without a name) with what it was asked for at first.

    ``timeout_s`` replaces its time limit; every continuation has the limit anew.
    """
    from dataclasses import replace  # noqa: PLC0415 - one use

    with Store.open(workspace.database) as store:
        row = store.study(name) if name else store.latest_unfinished()
        if row is None:
            raise UsageError("study.nothing_to_resume")
        if row.state == "finished":
            raise UsageError("study.already_finished", name=row.name, folder=study_folder(workspace, row.name))
        if row.spec.get("kind"):
            raise UsageError("study.not_an_optimisation", name=row.name, kind=row.spec["kind"])
        request = StudyRequest.from_spec(row.spec)
        if timeout_s is not None:
            request = replace(request, timeout_s=timeout_s)
        return await _run(
            request,
            row.id,
            row.name,
            store=store,
            workspace=workspace,
            settings=settings,
            listener=listener,
            wait_for_lock=wait_for_lock,
        )


def study_name(request: StudyRequest) -> str:
    """The name given (as a safe folder name), else model, dataset, time and a few letters that no other study has."""
    if request.name:
        slug = re.sub(r"[^\w.-]+", "-", request.name).strip("-.")
        if not slug or slug != request.name or len(slug) > 100:  # noqa: PLR2004 - fits every file system
            raise UsageError("study.bad_name", name=request.name)
        return slug
    stamp = datetime.now(tz=UTC).astimezone().strftime("%Y%m%d-%H%M%S")
    parts = [Path(request.model).name, Path(request.dataset).stem]
    words = [re.sub(r"[^\w.]+", "-", part)[:40].strip("-.") or digest(part, size=4) for part in parts]
    return "-".join([*words, stamp, secrets.token_hex(3)])  # two studies may begin in the same second


async def _run(
    request: StudyRequest,
    study_id: int | None,
    name: str,
    *,
    store: Store,
    workspace: Workspace,
    settings: SettingsView,
    listener: Listener,
    wait_for_lock: bool,
) -> dict[str, Any]:
    listener(Event(kind="phase", data={"name": "prepare"}))
    started_s = time.monotonic()

    def fetching(progress: Any) -> None:
        nonlocal started_s
        started_s = time.monotonic()  # fetching weights is no part of the time limit
        listener(Event(kind="weights", data=fetching_data(progress)))

    with contextlib.ExitStack() as held:
        cluster = None if request.cluster is None else await asyncio.to_thread(Cluster, request.cluster)
        if cluster is not None:
            held.callback(cluster.close)
        prepared = await asyncio.to_thread(
            prepare,
            request,
            workspace=workspace,
            settings=settings,
            on_weights=fetching,
            hardware=None if cluster is None else cluster.hardware,
        )
        prepared = with_final_items(prepared)
        if cluster is None:
            held.enter_context(measuring_lock(f"optimize {name}", wait=wait_for_lock))
        else:  # its machines take their own locks
            _introduce(cluster, listener)
        study_id = _begin(store, prepared, name, study_id)
        ensure(study_folder(workspace, name))
        listener(Event(kind="note", data=_introduction(prepared, name)))
        tell_data(listener, prepared.dataset)
        run = StudyRun(prepared, store, study_id, name, listener, started_s=started_s, cluster=cluster)
        try:
            with beating(store, study_id):
                finished = await run.run()
        except BaseException as error:
            interrupted = isinstance(error, (asyncio.CancelledError, KeyboardInterrupt))
            store.end_study(study_id, "interrupted" if interrupted else "failed")
            raise
        listener(Event(kind="phase", data={"name": "report"}))
        result = build_result(prepared, finished, store, study_id, name)
        write_questions(run.folder, (*prepared.search_items, *prepared.confirm_items))
        await asyncio.to_thread(write_report, run.folder, result)
        store.end_study(study_id, "finished", summary=_summary(result))
    listener(Event(kind="ended", data={"result": result}))
    return result


def _introduce(cluster: Cluster, listener: Listener) -> None:
    """Who takes part, and who does not and why."""
    listener(Event(kind="note", data={"key": "study.cluster", "values": {"machines": cluster.machines}}))
    if cluster.passed_over:
        who = {"who": "; ".join(cluster.passed_over)}
        listener(Event(kind="note", data={"key": "study.cluster_passed_over", "values": who}))


def _begin(store: Store, prepared: Prepared, name: str, study_id: int | None) -> int:
    if study_id is not None:
        store.claim_study(study_id, fingerprint=prepared.fingerprint)
        return study_id
    return store.create_study(
        name,
        {**prepared.request.to_spec(), **recorded_facts(prepared)},
        fingerprint=prepared.fingerprint,
        model=prepared.model.name,
        engine=prepared.engine.name,
        dataset=prepared.dataset.name,
        hardware=prepared.hardware.fingerprint,
    )


def _introduction(prepared: Prepared, name: str) -> dict[str, Any]:
    from llmopt.messages import t  # noqa: PLC0415 - the reason is a message of its own

    values = {
        "name": name,
        "model": prepared.model.name,
        "engine": prepared.engine.name,
        "reason": t(prepared.engine_reason),
        "dataset": prepared.dataset.name,
        "streams": prepared.work.load.flags,
        "tokens": prepared.work.max_tokens,
    }
    return {"key": "study.introduction", "values": values}


def _summary(result: dict[str, Any]) -> dict[str, Any]:
    """What ``list --type results`` shows without opening the folder."""
    verdict = result["verdict"]
    return {"verdict": verdict["kind"], "sentence": verdict["sentence"], "elapsed_s": result["elapsed_s"]}
