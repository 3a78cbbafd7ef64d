"""A study of 100,000 trials: how long listing, resuming and reporting take, and what memory they need.

    python benchmarks/study_scale.py [--trials 100000] [--out scale.json]

The database is filled with trials of the scripted engine. Each step runs in a process of its own: ``llmopt list`` as a
user types it; the coordinator rebuilt as ``--resume`` rebuilds it; the result and all reports written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from llmopt.config.settings import load_settings
from llmopt.paths import Workspace
from llmopt.records import Estimate, InferenceParams, Measurement
from llmopt.report.writing import write_report
from llmopt.search.coordinator import Coordinator
from llmopt.store import Store
from llmopt.store.encoding import configuration_to_json, measurement_to_json
from llmopt.study.final import Finals
from llmopt.study.prepare import Prepared, prepare
from llmopt.study.recorder import Recorder
from llmopt.study.request import StudyRequest
from llmopt.study.result import build_result
from llmopt.study.run import Finished, StudyRun, study_folder
from llmopt.study.searching import space_of

NAME = "long"


def prepared(root: Path) -> Prepared:
    workspace = Workspace(root=root)
    request = StudyRequest(model="smollm2-135m", dataset="korean_math_easy", engine="fake", samples=8, name=NAME)
    return prepare(request, workspace=workspace, settings=load_settings(workspace))


def fill(root: Path, trials: int) -> None:
    found = prepared(root)
    names = (
        "accuracy",
        "answers_per_minute",
        "ttft_p50_ms",
        "ttft_p95_ms",
        "itl_p50_ms",
        "tpot_p50_ms",
        "memory_bytes",
    )
    base = found.baseline
    with Store.open(found.workspace.database) as store:
        study = store.create_study(NAME, found.request.to_spec(), fingerprint=found.fingerprint, engine="fake")
        with store.connection.writing() as db:
            for n in range(trials):
                c = replace(
                    base,
                    launch={**base.launch, "context": 8192 + 256 * n},
                    request=InferenceParams(temperature=0.5, prompt_form="examples"),
                )
                quality, speed = (n % 977) / 977, float(n % 89 + 1)
                figures = {name: Estimate(value=0.5, unit="", n=16, low=0.1, high=0.9) for name in names}
                figures["accuracy"] = Estimate(value=quality, unit="share", n=16, low=0.1, high=0.9)
                figures["answers_per_minute"] = Estimate(value=speed, unit="1/min", n=16, low=0.9 * speed)
                measurement = measurement_to_json(Measurement(estimates=figures, certificate={"streams": 4}))
                phase = "search" if n else "baseline"
                db.execute(
                    """INSERT INTO trials (study_id, number, key, launch_key, configuration, origin, phase, position,
                       fidelity, outcome, objectives, violations, score, measurement, hardware, started_s, ended_s,
                       launch_s, warmup_s, measure_s)
                       VALUES (?, ?, ?, ?, ?, 'gp', ?, ?, 1.0, 'done', ?, '[]', ?, ?, '', 0, 1, 1.0, 1.0, 5.0)""",
                    (
                        study, n, c.key, c.launch_key, configuration_to_json(c), phase, n, json.dumps([quality, speed]),
                        quality, measurement,
                    ),
                )  # fmt: skip
        store.end_study(study, "interrupted")


def resume(root: Path) -> None:
    found = prepared(root)
    began = time.perf_counter()
    with Store.open(found.workspace.database) as store:
        run = StudyRun(found, store, store.study(NAME).id, NAME, lambda _: None, started_s=time.monotonic())
        coordinator = Coordinator(space_of(found, run.host), found.goal.objectives, method="auto")
        coordinator.resume(run.recorder.past_trials(), seen=run.recorder.ended_keys())
        assert coordinator.ask() is not None
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": peak_mb()}))


def report(root: Path) -> None:
    found = prepared(root)
    began = time.perf_counter()
    with Store.open(found.workspace.database) as store:
        study = store.study(NAME)
        recorder = Recorder(
            store, study.id, study_folder(found.workspace, NAME),
            objectives=found.goal.objectives, hardware="", engine="fake",
        )  # fmt: skip
        baseline, best = store.trial(study.id, 0), store.trial(study.id, 976)
        assert baseline is not None
        assert best is not None
        run = StudyRun(found, store, study.id, NAME, lambda _: None, started_s=time.monotonic())
        finished = Finished(
            baseline=baseline, best=best, points={"recommended": 976}, finals=Finals(arms=()), stopped_by="trials",
            constraints=(), space=space_of(found, run.host), began_s=0.0, elapsed_s=1.0,
        )  # fmt: skip
        result = build_result(found, finished, store, study.id, NAME)
        write_report(recorder.folder, result)
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": peak_mb()}))


def listing(root: Path) -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "main.py"), "list", "--type", "results", "--json"]
    began = time.perf_counter()
    subprocess.run(command, env={**os.environ, "LLMOPT_HOME": str(root)}, check=True, capture_output=True)
    print(json.dumps({"seconds": time.perf_counter() - began, "peak_mb": None}))


def peak_mb() -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmHWM"))) / 1024


STEPS = {"list": listing, "resume": resume, "report": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        STEPS[given.step](given.root)
        return
    figures: dict = {"trials": given.trials}
    with tempfile.TemporaryDirectory() as text:
        root = Path(text)
        fill(root, given.trials)
        for step in STEPS:
            command = [sys.executable, __file__, "--step", step, "--root", text]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            figures[step] = json.loads(done.stdout)
            print(f"{step:7} {figures[step]['seconds']:.2f} s, peak {figures[step]['peak_mb'] or 0:.0f} MB", flush=True)
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
