"""What happens to results when storage fails: disk full, read-only, locked, a clock that jumps, power loss.

    python benchmarks/storage_faults.py --full --out FILE        # without --full: the short version CI runs
    python benchmarks/storage_faults.py --only power_loss,locked

Each fault meets a real ``optimize`` on the scripted engine (power loss: the store itself). Afterwards the fault is
taken away and the study resumed. Wanted every time: a clear sentence and the exit code of storage (7), or no harm at
all; nothing corrupted; every trial that was finished before still there, unchanged; the resumed study ends with a
verdict. Full disk and read-only folder are real mounts in a namespace of their own, which Linux allows root and most
users; where it does not, they are reported as not done. Exit code 1 where something was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from llmopt.records import Configuration, InferenceParams, Outcome
from llmopt.store import Store
from llmopt.store.repair import problems

ROOT = Path(__file__).resolve().parent.parent
STUDY = (
    *("optimize", "--dry-run", "--dataset", "korean_math_easy", "--method", "random", "--name", "faults"),
    *("--samples", "4", "--trials"),
)
FEW, MANY = 5, 12
"""Trials of the short and of the full version; none ends before the fault."""
RESUME = ("optimize", "--resume", "faults")
STORAGE = 7
DONE = "SELECT number, key, measurement FROM trials WHERE outcome = 'done' AND phase != 'confirm' ORDER BY number"
DAY_S = 86_400
PATIENCE_S = 180.0
CLOCK = """
import os, time
_now = time.time
def _off():
    try:
        return float(open(os.environ["JUMP"]).read())
    except (OSError, ValueError):
        return 0.0
time.time = lambda: _now() + _off()
"""


def study(full: bool) -> tuple[str, ...]:
    """The command that begins the study."""
    return (*STUDY, str(MANY if full else FEW))


class Workspace:
    """A workspace in a folder of its own, and the command line in it."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder = folder
        self.results = folder / "optimization_results"
        self.database = self.results / "llmopt.db"
        runtime = Path(tempfile.mkdtemp(prefix="sf"))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LLMOPT_")},
            "LLMOPT_HOME": str(folder),
            "XDG_RUNTIME_DIR": str(runtime),
            "LLMOPT_LOCK_FILE": str(runtime / "lock"),
            "LLMOPT_FAKE_TIME_SCALE": "0.02",
            "LLMOPT_WARMUP_CAP_S": "0.1",  # no figure is read here
            "LANG": "C.UTF-8",
            **more,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        command = [sys.executable, str(ROOT / "main.py"), *arguments]
        return subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command: exit code and everything it said."""
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, said

    def finished(self) -> list[tuple[Any, ...]]:
        """The finished trials, read as any program would."""
        if not self.database.exists():
            return []
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as db:
                return db.execute(DONE).fetchall()
        except sqlite3.OperationalError:
            return []

    def wait_for(self, trials: int, process: subprocess.Popen[str]) -> None:
        """Until so many trials are finished (or the run ended)."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.finished()) < trials and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)

    def ends_well(self, before: list[tuple[Any, ...]], *, resume: bool = True) -> dict[str, Any]:
        """Resume, and say whether all is as it must be."""
        code, said = self.run(*RESUME) if resume else (0, "")
        after = self.finished()
        return {
            "resume_code": code,
            "lost": sum(row not in after for row in before),
            "finished": len(after),
            "repeated": len(after) - len({row[1] for row in after}),
            "corrupt": list(problems(self.database)),
            **({"said": said[-600:]} if code else {}),
        }


def clear(code: int, said: str, *words: str) -> bool:
    """The exit code of storage with a sentence that names the place, and no traceback."""
    return code == STORAGE and "Traceback" not in said and all(word in said for word in words)


# ── the faults ─────────────────────────────────────────────────────────────────────────────────────────────────────


def disk_full(folder: Path, full: bool) -> list[dict[str, Any]]:
    """A disk that fills up at several moments of a run. Runs inside a namespace with a small tmpfs at ``folder``."""
    rows = []
    for kept_kb in (40, 160, 400) if full else (160,):
        space = Workspace(folder / f"w{kept_kb}")
        space.folder.mkdir()
        filler = folder / "filler"
        free = shutil.disk_usage(folder).free
        filler.write_bytes(b"x" * max(0, free - kept_kb * 1024))
        code, said = space.run(*study(full))
        before = space.finished()
        filler.unlink()
        begun = space.database.exists() and bool(_studies(space.database))
        row = {"free_kb": kept_kb, "code": code, "clear": clear(code, said, "llmopt"), "finished_before": len(before)}
        if not begun:
            code, said = space.run(*study(full))
            row["started_anew"] = code
        rows.append(
            {**row, **space.ends_well(before, resume=begun), **({} if row["clear"] else {"said_then": said[-600:]})}
        )
        shutil.rmtree(space.folder)
    return rows


def _studies(database: Path) -> list[Any]:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            return db.execute("SELECT 1 FROM studies").fetchall()
    except sqlite3.OperationalError:
        return []


def read_only(folder: Path, full: bool) -> list[dict[str, Any]]:
    """A results folder that becomes read-only between a kill and the resume. Runs inside a mount namespace."""
    space = Workspace(folder / "w")
    space.folder.mkdir()
    process = space.start(*study(full))
    space.wait_for(2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = space.finished()
    for options in (("--bind",), ("-o", "remount,bind,ro")):
        subprocess.run(["mount", *options, str(space.results), str(space.results)], check=True)
    code, said = space.run(*RESUME)
    looking, shown = space.run("list")
    subprocess.run(["umount", str(space.results)], check=True)
    row = {
        "code": code,
        "clear": clear(code, said, str(space.database)),
        "list_code": looking,
        "listed": "faults" in shown,
    }
    return [{**row, **space.ends_well(before), **({} if row["clear"] else {"said_then": said[-600:]})}]


def clock_jump(folder: Path, full: bool) -> list[dict[str, Any]]:
    """The wall clock jumps by a day and back during a run, and once more between a kill and the resume."""
    rows = []
    for first in (DAY_S, -DAY_S) if full else (DAY_S,):
        place = folder / f"jump{first}"
        (place / "site").mkdir(parents=True)
        (place / "site" / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
        offset = place / "offset"
        space = Workspace(place / "w", PYTHONPATH=f"{place / 'site'}{os.pathsep}{ROOT}", JUMP=str(offset))
        space.folder.mkdir()
        process = space.start(*study(full))
        for trials, jump in ((1, first), (3, 0)):
            space.wait_for(trials, process)
            offset.write_text(str(jump), encoding="utf-8")
        space.wait_for(4, process)
        _, seen = space.run("status", "--json")
        running = [row["trials"] for row in json.loads(seen)["studies"]] if seen.startswith("{") else []
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = space.finished()
        offset.write_text(str(-first), encoding="utf-8")
        rows.append({"jump_s": first, "seen_meanwhile": running, "clear": True, **space.ends_well(before)})
    return rows


def locked(folder: Path, full: bool) -> list[dict[str, Any]]:
    """Another program holds the database for a while (waited for), and for longer than anybody waits (named)."""
    rows = []
    for hold_s in (10.0, 45.0) if full else (2.0,):
        space = Workspace(folder / f"w{hold_s:g}")
        space.folder.mkdir(parents=True)
        process = space.start(*study(full))
        space.wait_for(2, process)
        with closing(sqlite3.connect(space.database, timeout=30, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(hold_s)
            other.execute("ROLLBACK")
        said, _ = process.communicate(timeout=PATIENCE_S)
        code, before = process.returncode, space.finished()
        wanted = code == 0 if hold_s < 30 else clear(code, said, str(space.database))
        row = {"held_s": hold_s, "code": code, "clear": wanted}
        rows.append(
            {**row, **space.ends_well(before, resume=code != 0), **({} if wanted else {"said_then": said[-600:]})}
        )
    return rows


def power_loss(folder: Path, full: bool) -> list[dict[str, Any]]:
    """Database and log as a disk may hold them after the power went: at every commit, torn, and amid a checkpoint."""
    folder.mkdir(parents=True)
    source, path = random.Random(5), folder / "llmopt.db"
    commits, cuts, halves = (200, 300, 200) if full else (25, 30, 20)
    counts = {"at every commit": 0, "log torn": 0, "checkpoint half done": 0}
    wrong: list[str] = []

    def opens(copy: Path, least: int, most: int, what: str) -> None:
        counts[what] += 1
        try:
            with Store.open(copy) as store:
                done = [trial.number for trial in store.trials(1, outcomes=[Outcome.DONE])]
                _step(store, 1, 10_000)
            if done != list(range(len(done))) or not least <= len(done) <= most or problems(copy):
                wrong.append(f"{what}: {len(done)} of {least}-{most}")
        except Exception as error:  # noqa: BLE001 - the boundary that is measured
            wrong.append(f"{what}: {error!r}")
        shutil.rmtree(copy.parent)

    with Store.open(path) as store:
        study = store.create_study("study", {}, fingerprint="f")
        store.connection.execute("PRAGMA wal_autocheckpoint=40")
        for number in range(commits):
            _step(store, study, number)
            opens(_copy(path, folder / "copy"), number + 1, number + 1, "at every commit")
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.connection.execute("PRAGMA wal_autocheckpoint=0")
        for number in range(commits, commits + 20):
            _step(store, study, number)
        size = path.with_name(path.name + "-wal").stat().st_size
        for _ in range(cuts):
            opens(_copy(path, folder / "copy", wal_bytes=source.randrange(size)), commits, commits + 20, "log torn")
        before = path.read_bytes()
        wal = path.with_name(path.name + "-wal").read_bytes()
        store.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        after = path.read_bytes()
    page = int.from_bytes(before[16:18], "big") or 65536
    for _ in range(halves):
        copy = folder / "copy" / path.name
        copy.parent.mkdir()
        pages = [
            (before if source.random() < 0.5 and at < len(before) else after)[at : at + page]
            for at in range(0, len(after), page)
        ]
        copy.write_bytes(b"".join(pages))
        copy.with_name(path.name + "-wal").write_bytes(wal)
        opens(copy, commits + 20, commits + 20, "checkpoint half done")
    return [
        {
            "copies": counts,
            "wrong": wrong,
            "clear": not wrong,
            "lost": len(wrong),
            "corrupt": [],
            "resume_code": 0,
            "repeated": 0,
        }
    ]


def _step(store: Store, study: int, number: int) -> None:
    configuration = Configuration(engine="fake", launch={"n": number, "pad": "x" * 700}, request=InferenceParams())
    found = store.start_trial(study, configuration, origin="grid")
    store.finish_trial(study, found, Outcome.DONE, score=number)


def _copy(path: Path, folder: Path, *, wal_bytes: int | None = None) -> Path:
    """Database and log; the shared index is lost with the power."""
    folder.mkdir()
    shutil.copyfile(path, folder / path.name)
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        (folder / wal.name).write_bytes(wal.read_bytes()[:wal_bytes])
    return folder / path.name


# ── all together ───────────────────────────────────────────────────────────────────────────────────────────────────

FAULTS: dict[str, Callable[[Path, bool], list[dict[str, Any]]]] = {
    "disk_full": disk_full,
    "read_only": read_only,
    "clock_jump": clock_jump,
    "locked": locked,
    "power_loss": power_loss,
}
MOUNTED = {"disk_full": "size=48m", "read_only": "size=256m"}


def in_a_mount(name: str, full: bool, folder: Path) -> list[dict[str, Any]]:
    """The fault in a mount namespace of its own, as root there."""
    inner = [sys.executable, __file__, "--inside", name, str(folder), *(["--full"] if full else [])]
    who = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f'mount -t tmpfs -o {MOUNTED[name]} none "$0" && exec "$@"'
    done = subprocess.run(
        ["unshare", *who, "--mount", "sh", "-c", mount, str(folder), *inner],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.strip():
        return [{"not_done": (done.stderr or done.stdout).strip()[-600:]}]
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def missed(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What did not hold, by fault."""
    found = []
    for name, each in rows.items():
        for row in each:
            if "not_done" in row:
                found.append(f"{name}: not done")
                continue
            found += [f"{name}: {word}" for word in ("lost", "repeated", "corrupt") if row[word]]
            found += [] if row["clear"] else [f"{name}: no clear message"]
            found += [f"{name}: resume"] if row["resume_code"] or row.get("started_anew") else []
    return sorted(set(found))


def main() -> int:
    """Break things, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default=",".join(FAULTS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(FAULTS[options.inside[0]](Path(options.inside[1]), options.full)))
        return 0
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "f"
            if name in MOUNTED:
                folder.mkdir()
            rows[name] = (in_a_mount if name in MOUNTED else _plain)(name, options.full, folder)
        print(name, rows[name], file=sys.stderr, flush=True)
    result = {"full": options.full, "faults": rows, "missed": missed(rows)}
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if result["missed"] else 0


def _plain(name: str, full: bool, folder: Path) -> list[dict[str, Any]]:
    return FAULTS[name](folder, full)


if __name__ == "__main__":
    sys.exit(main())
