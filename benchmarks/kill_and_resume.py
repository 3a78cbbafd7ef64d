"""Kill -9 at random moments of a run, resume, and count what was lost, repeated, left running or decided otherwise.

    python benchmarks/kill_and_resume.py --kills 20                                  # real llama.cpp, smallest model
    python benchmarks/kill_and_resume.py --engine fake --kills 200 --out FILE        # scripted engine, random and grid
    … --minutes 5   # stops after a whole study; the same command with the same --out goes on from there

Every study runs ``optimize`` in a folder of its own. After every kill the script waits until no process of the run is
left, reads the database as any program would, and resumes; the last resume runs to the verdict. With the scripted
engine the same study is then run once without a kill, and what must not depend on kills is compared: the configuration
at each place of the method's sequence, the set of all configurations, and every answer that both gave.
Exit codes: 0 everything held, 1 something did not, 3 ``--minutes`` are over before all kills were made.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
COMMON = ("--dataset", "korean_math_easy", "--name", "kills")
REAL = ("--model", "smollm2-135m", "--samples", "2", "--max-tokens", "4", "--streams", "1", "--trials", "16")
FAKE = ("--dry-run", "--samples", "4", "--trials")
KILLS_A_STUDY = {"llamacpp": 1000, "fake": 20}
LONGEST_S = {"llamacpp": (1.0, 20.0), "fake": (0.2, 4.0)}
METHODS = {"llamacpp": ("random",), "fake": ("random", "grid")}
SPEED = {"LLMOPT_FAKE_TIME_SCALE": "0.02", "LLMOPT_WARMUP_CAP_S": "0.1"}
"""No figure is read here: nothing is waited for that only steadies figures."""
GONE_CAP_S = 15.0
ENDED = ("done", "infeasible", "raced_out")


class Run:
    """One study in one folder; its processes are known by the private runtime folder in their command lines."""

    def __init__(self, folder: Path, engine: str, method: str, seed: int, trials: int) -> None:
        self.folder = folder
        self.runtime = folder / "run"
        self.runtime.mkdir(parents=True)
        self.first = (
            *((*FAKE, str(trials)) if engine == "fake" else REAL),
            *COMMON,
            "--method",
            method,
            "--seed",
            str(seed),
        )
        self.environment = {
            **os.environ,
            **SPEED,
            "LLMOPT_HOME": str(folder),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "LLMOPT_LOCK_FILE": str(self.runtime / "lock"),
        }
        self.database = folder / "optimization_results" / "llmopt.db"

    def start(self) -> subprocess.Popen[bytes]:
        """Begin the study, or go on with it."""
        arguments = ("--resume", "kills") if self.rows("SELECT 1 FROM studies") else self.first
        command = [sys.executable, str(ROOT / "main.py"), "optimize", *arguments]
        with (self.folder / "out.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query; none where there is no database or no table yet."""
        if not self.database.exists():
            return []
        db = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)
        try:
            return db.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            db.close()

    def finished(self) -> list[tuple[Any, ...]]:
        """Every finished trial and confirmation pass."""
        return self.rows("SELECT number, phase, key, measurement FROM trials WHERE outcome = 'done' ORDER BY number")

    def decisions(self) -> dict[str, Any]:
        """What must not depend on kills: configurations by place in the sequence, all of them, and their answers."""
        query = "SELECT key, position, outcome, samples FROM trials WHERE phase != 'confirm' ORDER BY number"
        found = [row for row in self.rows(query) if row[2] in ENDED]
        samples = self.database.parent / "kills" / "samples"
        return {
            "sequence": {position: key for key, position, _, _ in found if position is not None},
            "configurations": sorted({key for key, *_ in found}),
            "answers": {key: _answers(samples / name) for key, _, _, name in found if name},
        }

    def state(self) -> str | None:
        """What the study says of itself."""
        found = self.rows("SELECT state FROM studies")
        return str(found[0][0]) if found else None

    def alive(self) -> int:
        """How many processes of this run live."""
        found = 0
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            ours = any(str(self.runtime) in word for word in words)
            found += ours and process.info["status"] != psutil.STATUS_ZOMBIE
        return found

    def seconds_until_gone(self) -> float:
        """How long the run's processes took to end."""
        began = time.monotonic()
        while self.alive() and time.monotonic() - began < GONE_CAP_S:
            time.sleep(0.05)
        return time.monotonic() - began


def _answers(path: Path) -> dict[str, list[Any]]:
    """Item → its answers' text and score, in a fixed order."""
    found: dict[str, list[Any]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            sample = row["sample"]
            found.setdefault(sample["item_id"], []).append([sample["text"], sample["error"], row["score"]["value"]])
    return {item: sorted(answers, key=json.dumps) for item, answers in sorted(found.items())}


def one_study(run: Run, kills: int, moments: random.Random, window_s: tuple[float, float]) -> dict[str, Any]:
    """Up to ``kills`` kills and the run to the end: what was counted."""
    rows = []
    for kill in range(kills):
        process = run.start()
        moment = moments.uniform(*window_s)
        try:
            process.wait(timeout=moment)
            break  # the study ended before the kill
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        before = run.finished()
        gone_s = run.seconds_until_gone()
        after = run.finished()
        rows.append(
            {
                "kill": kill,
                "after_s": round(moment, 2),
                "finished": len(before),
                "lost": sum(row not in after for row in before),
                "gone_s": round(gone_s, 2),
                "left": run.alive(),
            }
        )
    code = run.start().wait() if run.state() != "finished" else 0
    final = run.finished()
    keys = [key for _, phase, key, _ in final if phase != "confirm"]
    numbers = [number for number, *_ in final]
    return {
        "kills": rows,
        "finished": len(keys),
        "repeated": len(keys) - len(set(keys)) + len(numbers) - len(set(numbers)),
        "left": run.alive(),
        "exit_code": code,
        "state": run.state(),
    }


def compared(killed: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Whether kills changed a decision or an answer, and which.

    A race against the best so far may end a trial after fewer items, by its measured speed; only items that both runs
    answered are compared, and each configuration has some.
    """
    answers, n = [], 0
    for key, items in whole["answers"].items():
        others = killed["answers"].get(key, {})
        both = items.keys() & others.keys()
        n += sum(len(items[item]) for item in both)
        answers += [key] if not both or any(items[item] != others[item] for item in both) else []
    different = sorted(set(killed["configurations"]) ^ set(whole["configurations"]))
    return {
        "same_sequence": killed["sequence"] == whole["sequence"],
        "same_configurations": not different,
        "same_answers": not answers,
        "compared_trials": len(whole["configurations"]),
        "compared_answers": n,
        "different": {"answers": answers, "configurations": different},
    }


def summary(studies: list[dict[str, Any]]) -> dict[str, Any]:
    """All studies together."""
    rows = [row for study in studies for row in study["kills"]]
    compared_studies = [study for study in studies if "same_sequence" in study]
    found = {
        "kills": len(rows),
        "kills_with_finished_trials": sum(row["finished"] > 0 for row in rows),
        "studies": len(studies),
        "lost": sum(row["lost"] for row in rows),
        "repeated": sum(study["repeated"] for study in studies),
        "left": sum(row["left"] for row in rows) + sum(study["left"] for study in studies),
        "slowest_gone_s": max((row["gone_s"] for row in rows), default=0.0),
        "finished": sum(study["finished"] for study in studies),
        "unfinished_studies": sum(study["state"] != "finished" or study["exit_code"] != 0 for study in studies),
    }
    if compared_studies:
        found |= {
            "compared_studies": len(compared_studies),
            "other_sequences": sum(not study["same_sequence"] for study in compared_studies),
            "other_configurations": sum(not study["same_configurations"] for study in compared_studies),
            "other_answers": sum(not study["same_answers"] for study in compared_studies),
            "compared_trials": sum(study["compared_trials"] for study in compared_studies),
            "compared_answers": sum(study["compared_answers"] for study in compared_studies),
        }
    return found


BAD = ("lost", "repeated", "left", "unfinished_studies", "other_sequences", "other_configurations", "other_answers")


def main() -> int:
    """Kill, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=sorted(METHODS), default="llamacpp")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=12, help="of each study on the scripted engine")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    began_s = time.monotonic()
    studies = (
        json.loads(chosen.out.read_text(encoding="utf-8"))["studies"] if chosen.out and chosen.out.exists() else []
    )
    while (missing := chosen.kills - sum(len(study["kills"]) for study in studies)) > 0:
        if chosen.minutes is not None and time.monotonic() - began_s > 60 * chosen.minutes:
            print(json.dumps(summary(studies)))
            return 3
        number = len(studies)
        method, seed = METHODS[chosen.engine][number % len(METHODS[chosen.engine])], chosen.seed + number
        with tempfile.TemporaryDirectory() as name:
            run = Run(Path(name) / "killed", chosen.engine, method, seed, chosen.trials)
            kills = min(missing, KILLS_A_STUDY[chosen.engine])
            study = one_study(run, kills, random.Random(seed), LONGEST_S[chosen.engine])
            if chosen.engine == "fake":
                whole = Run(Path(name) / "whole", chosen.engine, method, seed, chosen.trials)
                whole.start().wait()
                study |= compared(run.decisions(), whole.decisions())
            if study["exit_code"]:
                study["last_words"] = (run.folder / "out.log").read_text(encoding="utf-8", errors="replace")[-2000:]
        studies.append({"seed": seed, "method": method, **study})
        print({**studies[-1], "kills": len(study["kills"])}, file=sys.stderr, flush=True)
        if chosen.out:
            text = json.dumps({"summary": summary(studies), "studies": studies}, indent=1)
            chosen.out.write_text(text + "\n", encoding="utf-8")
        if study["exit_code"]:
            break
    found = summary(studies)
    print(json.dumps(found))
    return 1 if any(found.get(name) for name in BAD) else 0


if __name__ == "__main__":
    sys.exit(main())
