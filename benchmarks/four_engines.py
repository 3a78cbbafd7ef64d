"""The same small weights on four engines: each optimised by the same command, then compared in one table.

    python benchmarks/four_engines.py --out FOLDER [--model smollm2-135m] [--engines llamacpp,llama-server,…]
        [--trials 3] [--samples 4] [--repeats 4] [--install]
    python benchmarks/four_engines.py --out FOLDER --engines vllm --only optimise      (piece by piece …)
    python benchmarks/four_engines.py --out FOLDER --only compare                      (… and the table at the end)

``--install`` first makes the environments that are missing (``llmopt engines install``; several GB); a ``llama-server``
must be on PATH. An engine that is not here is named and left out. Pieces add to each other, a study that was cut off
goes on: results and reports stay in FOLDER, ``four-engines.json`` has the summary and ``ENGINE.txt`` what the command
said. Half an hour on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENGINES = "llamacpp,llama-server,transformers,vllm"
COMPARED = "four-compared"
PLAINLY = {"vllm": ",enforce_eager=true"}
"""Left out of the comparison: compiling on a CPU takes longer than everything else together."""


def llmopt(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line in the workspace ``folder``; progress goes to our standard error."""
    env = {**os.environ, "LLMOPT_HOME": str(folder)}
    command = [sys.executable, str(ROOT / "main.py"), *arguments]
    print("$ llmopt", *arguments, flush=True)
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=check)


def available(folder: Path, wanted: list[str], *, install: bool) -> list[str]:
    """The engines that are here, after making the missing ones where that was asked for."""
    rows = {row["engine"]: row["available"] for row in json.loads(llmopt(folder, "engines", "--json").stdout)}
    for name in wanted:
        if install and not rows[name] and name in ("transformers", "vllm"):
            llmopt(folder, "engines", "install", name)
            rows[name] = True
    for name in wanted:
        if not rows[name]:
            print(f"left out: {name} is not installed here", flush=True)
    return [name for name in wanted if rows[name]]


def optimise(folder: Path, engine: str, given: argparse.Namespace) -> dict:
    """One study on one engine; continued where an earlier run was cut off."""
    name = f"four-{engine}"
    path = folder / "optimization_results" / name / "result.json"
    began_s = time.monotonic()
    if not path.is_file():
        task = ["--dataset", given.dataset, "--samples", str(given.samples), "--max-tokens", str(given.max_tokens)]
        fresh = ["--model", given.model, "--engine", engine, *task, "--trials", str(given.trials), "--name", name]
        how = ["--resume", name] if path.parent.is_dir() else fresh
        done = llmopt(folder, "optimize", *how, "--lang", "en", "--wait", check=False)
        (folder / f"{engine}.txt").write_text(done.stdout, encoding="utf-8")
        print(done.stdout)
        if done.returncode != 0:
            return {"engine": engine, "exit": done.returncode}
    result = json.loads(path.read_text(encoding="utf-8"))
    return {
        "engine": engine,
        "version": result["command"]["engine_version"],
        "exit": 0,
        "seconds": round(time.monotonic() - began_s, 1),
        "trials": len(result["trials"]),
        "outcomes": [trial["outcome"] for trial in result["trials"]],
        "verdict": {key: result["verdict"].get(key) for key in ("kind", "objective", "effect", "interval", "n")},
        "best": result["best"]["configuration"],
        "command": result["command"]["line"],
    }


def compare(folder: Path, engines: list[str], given: argparse.Namespace) -> str:
    """All of them in turns on the same items; the table as the command prints it."""
    request = f"prompt_form={given.form},temperature=0"
    models = [f"{given.model}@engine={name},{request}{PLAINLY.get(name, '')}" for name in engines]
    task = ["--dataset", given.dataset, "--samples", str(given.compare_samples), "--max-tokens", str(given.max_tokens)]
    name = f"{COMPARED}-{time.strftime('%H%M%S')}"
    more = ["--repeats", str(given.repeats), "--name", name, "--wait"]
    return llmopt(folder, "compare", "--lang", "en", "--models", models[0], *models[1:], *task, *more).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--dataset", default="korean_math_easy")
    parser.add_argument("--form", default="examples", help="prompt form of the comparison")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--compare-samples", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--only", choices=("optimise", "compare"), default=None)
    given = parser.parse_args()
    folder = given.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    engines = available(folder, given.engines.split(","), install=given.install)
    summary = folder / "four-engines.json"
    told = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {"optimised": {}}

    def keep() -> None:
        summary.write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")

    for name in engines if given.only != "compare" else ():
        if told["optimised"].get(name, {}).get("exit") != 0:
            told["optimised"][name] = optimise(folder, name, given)
            keep()
    if given.only != "optimise":
        told["compared"] = compare(folder, engines, given)
        keep()
        print(told["compared"])


if __name__ == "__main__":
    main()
