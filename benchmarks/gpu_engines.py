"""The transformers engine on a GPU, end to end, with weights made on the spot: search, memory proof, predictions.

    python benchmarks/gpu_engines.py --out FOLDER [--device cuda] [--study-seconds 450]
    python benchmarks/gpu_engines.py --out FOLDER --device cpu --layers 2 --hidden 256     (to try it out)
    python3 benchmarks/gpu_engines.py --out FOLDER --wheels WHEELS     (offline: our dependencies from wheels, own venv)

Makes a seeded random model (``random_model.py``) and optimises it for speed. Writes ``launches.jsonl`` (every launch
and the proof that its memory came back, as it happens), ``gpu-engines.json`` (every prediction beside its measurement),
``result.json`` and the reports. Needs an interpreter with torch and ``transformers[serving]`` (``--python``; by default
this one). Launches alone, without a search: ``gpu_launches.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import platform
import shutil
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path

from gpu_launches import Lines, again_in_environment, fresh_home, make_model, note, parser_of

NAME = "gpu-transformers"
LEFT_OUT = ("compile", "quantization")
"""Compilation needs minutes a launch; 4 and 8 bit need bitsandbytes. Both are in the ordinary space."""

FIGURES = ("answers_per_minute", "tpot_p50_ms", "memory_bytes")


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--study-seconds", type=float, default=450.0)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=32)
    return parser.parse_args()


class Ledger:
    """Every launch of this run: its memory, and the proof that it came back."""

    def __init__(self, lines: Lines) -> None:
        self.rows = lines.rows
        from llmopt.hardware.supervision import LaunchMemory  # noqa: PLC0415 - after the environment is right

        proved = LaunchMemory.end

        def end(memory, launch):
            report = proved(memory, launch)
            trace = launch.trace()
            lines.add(
                verified=report.verified,
                proof_s=round(report.seconds, 3),
                processes_left=len(report.processes_left),
                peak_host_bytes=trace.peak_host_bytes,
                peak_device_bytes=trace.peak_device_bytes,
                levels=[str(change) for change in launch.watch.changes],
                devices=[
                    {
                        "name": device.name,
                        "baseline_bytes": device.baseline_bytes,
                        "used_bytes": device.used_bytes,
                        "allowed_bytes": device.allowed_bytes,
                    }
                    for device in report.devices
                ],
            )
            return report

        LaunchMemory.end = end  # type: ignore[method-assign]


def narrowed() -> None:
    """Leave out what this machine's minutes do not pay for; dtype, attention and batching stay."""
    from llmopt.engines.transformers import Transformers  # noqa: PLC0415

    everything = Transformers.parameters

    def parameters(engine, model, hardware, task):
        return tuple(p for p in everything(engine, model, hardware, task) if p.name not in LEFT_OUT)

    Transformers.parameters = parameters  # type: ignore[method-assign]


async def study(given: argparse.Namespace, workspace, model: Path, began_s: float) -> tuple[dict, object]:
    from llmopt.config.settings import load_settings  # noqa: PLC0415
    from llmopt.study.optimize import optimize  # noqa: PLC0415
    from llmopt.study.prepare import prepare  # noqa: PLC0415
    from llmopt.study.request import StudyRequest  # noqa: PLC0415

    request = StudyRequest(
        model=str(model), dataset="korean_math_easy", engine="transformers", objectives="answers_per_minute",
        trials=given.trials, samples=given.samples, confirm_samples=given.samples, max_tokens=given.max_tokens,
        timeout_s=given.study_seconds, soft_limit=given.device == "cpu", name=NAME,
    )  # fmt: skip
    settings = load_settings(workspace)
    prepared = prepare(request, workspace=workspace, settings=settings)

    def told(event) -> None:
        if event.kind in ("trial_ended", "phase", "note", "plan", "confirm_pass"):
            note(f"{event.kind} {json.dumps(event.data, ensure_ascii=False, default=str)[:220]}", began_s)

    result = await optimize(request, workspace=workspace, settings=settings, listener=told)
    return result, prepared


# ── predictions ────────────────────────────────────────────────────────────────────────────────────────────────────


def predictions(prepared, result: dict, workspace) -> dict:
    """Each measured trial beside what was foreseen: cold, and from the other trials of this study."""
    from llmopt.predict.forecast import Unknown  # noqa: PLC0415
    from llmopt.predict.study import Prompt, Scene, SeenRun, StudyForecast  # noqa: PLC0415
    from llmopt.records import Configuration, InferenceParams  # noqa: PLC0415
    from llmopt.store.samples import read_samples  # noqa: PLC0415

    folder = workspace.results / NAME
    trials = [t for t in result["trials"] if t["outcome"] == "done" and t["measurement"] and t["samples"]]
    seen, prompts, answers = [], {}, []
    for trial in trials:
        c = trial["configuration"]
        rows = list(read_samples(folder / "samples" / trial["samples"]))
        samples = [row.get("sample", row) for row in rows]
        prompt = statistics.mean(s["prompt_tokens"] for s in samples if s.get("prompt_tokens"))
        answer = statistics.mean(s["completion_tokens"] for s in samples if s.get("completion_tokens"))
        configuration = Configuration(engine=c["engine"], launch=c["launch"], request=InferenceParams(**c["request"]))
        prompts[configuration.request.prompt_form or ""] = Prompt(tokens=prompt)
        answers.append(answer)
        figures = {name: one["value"] for name, one in trial["measurement"]["estimates"].items()}
        seen.append((trial["number"], configuration, prompt, answer, figures))
    scene = Scene(
        model=prepared.model, engine=prepared.engine.name,
        engine_version=prepared.engine.installation().version or "", hardware=prepared.hardware, task=prepared.task,
        prompts=prompts, answer_tokens=statistics.mean(answers),
    )  # fmt: skip
    found = []
    for number, configuration, _, _, figures in seen:
        others = [
            SeenRun(
                scene=scene, configuration=c, answers_per_minute=f["answers_per_minute"], prompt_tokens=p,
                answer_tokens=a,
            )
            for n, c, p, a, f in seen
            if n != number
        ]  # fmt: skip
        row = {
            "trial": number,
            "launch": dict(configuration.launch),
            "measured": {name: figures[name] for name in FIGURES if name in figures},
        }
        for name, runs in (("cold", []), ("from_others", others)):
            expected = StudyForecast(scene, runs).of(configuration)
            row[name] = {"unknown": expected.reason} if isinstance(expected, Unknown) else {
                key: {"value": figure.value, "low": figure.low, "high": figure.high}
                for key, figure in expected.figures.items()
                if key in row["measured"]
            }  # fmt: skip
        fit = StudyForecast(scene).memory(configuration)
        row["fit"] = {"device_bytes": fit.bytes_of(place="device"), "host_bytes": fit.bytes_of(place="host")}
        found.append(row)
    return {"rows": found, "errors": errors(found)}


def errors(rows: list[dict]) -> dict:
    """Mean absolute relative error of each figure, by what was known; the count beside it."""
    told = {}
    for name in ("cold", "from_others"):
        for figure in FIGURES:
            pairs = [(r[name][figure]["value"], r["measured"][figure]) for r in rows if figure in r[name]]
            apart = [abs(math.expm1(math.log(p / m))) for p, m in pairs if p > 0 and m > 0]
            if apart:
                told[f"{name}.{figure}"] = {"mape": round(statistics.mean(apart), 4), "n": len(apart)}
    return told


def summary(given, prepared, result: dict, *, parameters: int, ledger: Ledger, foreseen: dict, began_s: float) -> dict:
    back = [row for row in ledger.rows if row["verified"]]
    worst = [device["used_bytes"] - device["baseline_bytes"] for row in ledger.rows for device in row["devices"]]
    return {
        "machine": asdict(prepared.hardware),
        "versions": result["versions"] | {"platform": platform.platform()},
        "model": {"parameters": parameters, "layers": given.layers, "hidden": given.hidden, "weights": "seeded random"},
        "verdict": {key: result["verdict"].get(key) for key in ("kind", "effect", "interval", "n", "objective")},
        "best": result["best"]["configuration"],
        "baseline": result["baseline"]["configuration"],
        "stopped_by": result["stopped_by"],
        "trials": [
            {
                "number": t["number"],
                "outcome": t["outcome"],
                "launch": t["configuration"]["launch"],
                "failure": t["failure"],
                "launch_s": t["launch_s"],
            }
            for t in result["trials"]
        ],
        "launches": {
            "n": len(ledger.rows),
            "returned": len(back),
            "processes_left": sum(row["processes_left"] for row in ledger.rows),
            "most_left_above_baseline_bytes": max(worst, default=None),
            "rows": ledger.rows,
        },
        "predictions": foreseen,
        "seconds": round(time.monotonic() - began_s, 1),
    }  # fmt: skip


def main() -> int:
    given = arguments()
    if given.wheels:
        return again_in_environment(given, __file__)
    began_s = time.monotonic()
    home = fresh_home(given)
    from llmopt.paths import Workspace  # noqa: PLC0415 - after the environment is right

    workspace = Workspace(root=home)
    ledger = Ledger(Lines(given.out / "launches.jsonl"))
    narrowed()
    try:
        parameters = make_model(given, home / "model")
        note(f"model of {parameters / 1e6:.0f} M parameters", began_s)
        result, prepared = asyncio.run(study(given, workspace, home / "model", began_s))
        for path in sorted((workspace.results / NAME).glob("re*.*")):
            shutil.copy(path, given.out / path.name)
        foreseen = predictions(prepared, result, workspace)
        told = summary(
            given, prepared, result, parameters=parameters, ledger=ledger, foreseen=foreseen, began_s=began_s
        )
        (given.out / "gpu-engines.json").write_text(json.dumps(told, indent=1, default=str, ensure_ascii=False))
    finally:
        logs = sorted(home.rglob("engine.log"), key=lambda path: path.stat().st_mtime)
        if logs:
            shutil.copy(logs[-1], given.out / "engine.log")
        shutil.rmtree(home, ignore_errors=True)
    brief = {key: told[key] for key in ("verdict", "stopped_by", "seconds")}
    launches = {key: value for key, value in told["launches"].items() if key != "rows"}
    print(json.dumps({**brief, "launches": launches, "errors": foreseen["errors"]}, indent=1))
    return 0 if launches["n"] == launches["returned"] else 1


if __name__ == "__main__":
    sys.exit(main())
