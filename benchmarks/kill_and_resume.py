"""Kill -9 at random moments of a real run, resume, and count what was lost, repeated or left running.

    python benchmarks/kill_and_resume.py [--kills 20] [--seed 0] [--out FILE]

Runs ``optimize`` on the smallest real model in a folder of its own. After every kill it waits until no process of the
run is left, reads the database as any program would, and resumes; the last resume runs to the verdict.
"""

from __future__ import annotations

import argparse
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

import psutil

ROOT = Path(__file__).resolve().parent.parent
FIRST = (
    *(
        "--model",
        "smollm2-135m",
        "--dataset",
        "korean_math_easy",
        "--samples",
        "2",
        "--max-tokens",
        "4",
        "--streams",
        "1",
    ),
    *("--trials", "16", "--method", "random", "--name", "kills"),
)
GONE_CAP_S = 15.0


class Run:
    """One study in one folder; its processes are known by the private runtime folder in their command lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime = folder / "run"
        self.runtime.mkdir()
        self.environment = {
            **os.environ,
            "LLMOPT_HOME": str(folder),
            "XDG_RUNTIME_DIR": str(self.runtime),
            "LLMOPT_LOCK_FILE": str(self.runtime / "lock"),
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "main.py"), "optimize", *arguments]
        with (self.folder / "out.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def finished(self) -> list[tuple[int, str, str, str]]:
        path = self.folder / "optimization_results" / "llmopt.db"
        if not path.exists():
            return []
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            query = "SELECT number, phase, key, measurement FROM trials WHERE outcome = 'done' ORDER BY number"
            return db.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            db.close()

    def alive(self) -> int:
        found = 0
        for process in psutil.process_iter(["cmdline", "status"]):
            words = process.info["cmdline"] or []
            ours = any(str(self.runtime) in word for word in words)
            found += ours and process.info["status"] != psutil.STATUS_ZOMBIE
        return found

    def seconds_until_gone(self) -> float:
        began = time.monotonic()
        while self.alive() and time.monotonic() - began < GONE_CAP_S:
            time.sleep(0.05)
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    source = random.Random(chosen.seed)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        run = Run(Path(name))
        arguments: tuple[str, ...] = FIRST
        for kill in range(chosen.kills):
            process = run.start(*arguments)
            moment = source.uniform(1.0, 20.0)
            try:
                process.wait(timeout=moment)
                print("the study ended before the kill", file=sys.stderr)
                break
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
            print(rows[-1], flush=True)
            arguments = ("--resume", "kills") if _exists(run) else FIRST
        code = run.start(*arguments).wait()
        final = run.finished()
        keys = [key for _, phase, key, _ in final if phase != "confirm"]
        summary = {
            "kills": len(rows),
            "lost": sum(row["lost"] for row in rows),
            "repeated": len(keys) - len(set(keys)),
            "left": sum(row["left"] for row in rows) + run.alive(),
            "slowest_gone_s": max((row["gone_s"] for row in rows), default=0.0),
            "finished": len(keys),
            "last_exit_code": code,
        }
    print(summary)
    if chosen.out:
        chosen.out.write_text(json.dumps({"summary": summary, "kills": rows}, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if not (summary["lost"] or summary["repeated"] or summary["left"] or code) else 1)


def _exists(run: Run) -> bool:
    """Whether the study itself was recorded before the kill."""
    path = run.folder / "optimization_results" / "llmopt.db"
    if not path.exists():
        return False
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return bool(db.execute("SELECT COUNT(*) FROM studies").fetchone()[0])
    except sqlite3.OperationalError:
        return False
    finally:
        db.close()


if __name__ == "__main__":
    main()
