"""Real engine launches on a GPU: each starts, answers, stops, and must give the whole card's memory back.

    python benchmarks/gpu_launches.py --out FOLDER                      # 20 launches, one after another
    python benchmarks/gpu_launches.py --out FOLDER --rounds 1 6 6 6 1   # 20, several at once on the one card
    python benchmarks/gpu_launches.py --out FOLDER --device cpu --layers 2 --hidden 256 --rounds 1 2   # to try it out
    python3 benchmarks/gpu_launches.py --out FOLDER --wheels WHEELS   # offline: our dependencies from wheels, own venv

The weights are seeded and random (``random_model.py``), the engine is transformers (``--python``, by default this
interpreter, has torch and ``transformers[serving]``), and each launch goes the product's own guarded way
(``StudyHost.launch``): baseline, start, one real completion, stop, proof that the device is back at its baseline
+ max(64 MiB, 0.5 %) within 10 s. The engines of a round start together and are stopped together, so that each one's
proof is about the whole card. No round begins after ``--seconds``.

Every line is on disk before the next step: ``launches.jsonl`` (launches with each change of the memory level and the
reading behind it, rounds with who is left on the card), ``card.jsonl`` (moments at which the driver's list lacked a
living engine that it had named before). ``gpu-launches.json`` sums up. Exit code 1 unless all came back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WITHIN_S = 10.0
HOLD_S = 1.0
"""How long all engines of a round stand side by side: long enough for the watch's next reading."""
CARD_PERIOD_S = 0.2
PROMPT_TOKENS, ANSWER_TOKENS = 512, 32


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """What both GPU scripts ask: where to write, on which device with which interpreter, and the model's size."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--python", default=sys.executable, help="interpreter with torch and transformers[serving]")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install into an environment made for this run")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=1024)
    return parser


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, nargs="+", default=[1] * 20, help="engines at once, round by round")
    parser.add_argument("--seconds", type=float, default=600.0, help="no further round begins after this")
    return parser.parse_args()


def again_in_environment(given: argparse.Namespace, script: str) -> int:
    """Run ``script`` in a fresh environment that has the wheels and, after them, everything of this interpreter."""
    import sysconfig  # noqa: PLC0415 - only here

    folder = Path(tempfile.mkdtemp(prefix="llmopt-gpu-"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    wheels = sorted(str(path) for path in given.wheels.glob("*.whl"))
    install = ["install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", *install, *wheels], check=True)
    beside = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (site / "parent.pth").write_text("".join(f"{path}\n" for path in beside))
    rest = [part for part in sys.argv[1:] if not part.startswith("--wheels") and part != str(given.wheels)]
    python = str(folder / "bin" / "python")
    try:
        env = {**os.environ, "PYTHONPATH": str(HERE.parent)}  # ours alone: engines do not get it
        return subprocess.run([python, script, *rest, "--python", python], env=env, check=False).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_model(given: argparse.Namespace, folder: Path) -> int:
    """A seeded random model in ``folder``; how many parameters it has."""
    command = [given.python, str(HERE / "random_model.py"), str(folder)]
    sizes = ["--layers", str(given.layers), "--hidden", str(given.hidden)]
    done = subprocess.run([*command, *sizes], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1])


def note(text: str, began_s: float) -> None:
    """Say how far it is, at once."""
    print(f"[{time.monotonic() - began_s:6.1f} s] {text}", flush=True)


class Lines:
    """A file of JSON lines, each on disk before the next step."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self.rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        """Write one more."""
        with self._lock:
            self.rows.append(row)
            self._file.write(json.dumps(row, default=str, ensure_ascii=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())


class Card:
    """The devices of this machine as the driver shows them, followed from a thread while engines run."""

    def __init__(self, lines: Lines) -> None:
        from llmopt.hardware.devices import device_libraries, find_devices  # noqa: PLC0415 - in the right environment
        from llmopt.hardware.machine import LiveMachine  # noqa: PLC0415

        self._found = find_devices(device_libraries(LiveMachine())).devices
        self._lines = lines
        self._seen: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self.first = self.used()
        self.looks = self.absences = 0
        self.serving: set[int] = set()
        """Engines that are not being stopped: as long as they live, the list should not lack them."""

    def used(self) -> dict[str, int]:
        """Bytes in use by uuid."""
        return {device.uuid: library.memory(device).used_bytes for device, library in self._found}

    def holders(self) -> list[dict[str, Any]]:
        """Every process that the driver names."""
        return [
            {"pid": holder.pid, "name": holder.name, "used_bytes": holder.used_bytes}
            for device, library in self._found
            for holder in library.holders(device)
        ]

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()

    async def back(self) -> dict[str, Any]:
        """Where the card is after a round, waiting for its first use for as long as a release may take."""
        from llmopt.hardware.release import allowed_bytes  # noqa: PLC0415

        allowed = {device.uuid: allowed_bytes(self.first[device.uuid], device.total_bytes) for device, _ in self._found}
        began_s = time.monotonic()
        while True:
            used = self.used()
            returned = all(used[uuid] <= allowed[uuid] for uuid in allowed)
            seconds = time.monotonic() - began_s
            if returned or seconds > WITHIN_S:
                return {"returned": returned, "seconds": round(seconds, 3), "used_bytes": used, "allowed": allowed}
            await asyncio.sleep(0.1)

    def _follow(self) -> None:
        while not self._stop.wait(CARD_PERIOD_S):
            serving = set(self.serving)
            listed = self.holders()
            pids = {holder["pid"] for holder in listed}
            self._seen |= pids
            self.looks += 1
            missing = {pid for pid in (serving & self.serving & self._seen) - pids if _alive(pid)}
            if missing:
                self.absences += 1
                self._lines.add(at=time.time(), missing=sorted(missing), listed=listed)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return False


class Launches:
    """Rounds of launches through one StudyHost."""

    def __init__(self, host: Any, turns: Sequence[Any], card: Card, lines: Lines, began_s: float) -> None:
        self._host, self._turns, self._card, self._lines, self._began_s = host, turns, card, lines, began_s
        self.number = 0

    async def round(self, size: int) -> None:
        """``size`` engines at once: started together, stopped together."""
        waiting, leave = size, asyncio.Event()

        def arrived() -> None:
            nonlocal waiting
            waiting -= 1
            if waiting == 0:
                leave.set()

        numbers = range(self.number, self.number + size)
        self.number += size
        await asyncio.gather(*(self._one(number, size, arrived, leave) for number in numbers))
        state = await self._card.back()
        self._lines.add(kind="round", size=size, left_on_card=self._card.holders(), card=state)
        note(f"round of {size}: card {'at its baseline' if state['returned'] else 'NOT back'}", self._began_s)

    async def _one(self, number: int, size: int, arrived: Any, leave: asyncio.Event) -> None:
        from llmopt.errors import LlmoptError  # noqa: PLC0415

        row: dict[str, Any] = {"kind": "launch", "launch": number, "at_once": size}
        configuration = self._turns[number % len(self._turns)]
        hosted: Any = None
        pids: tuple[int, ...] = ()
        there = False
        try:
            async with self._host.launch(configuration) as hosted:
                pids = hosted.engine.pids()
                self._card.serving.update(pids)
                row |= {"settings": dict(configuration.launch), "start_s": round(hosted.engine.start_seconds, 2)}
                row |= {"pids": pids, "on_card": [one for one in self._card.holders() if one["pid"] in pids]}
                note(f"launch {number}: answered after {row['start_s']} s", self._began_s)
                arrived()
                there = True
                await leave.wait()
                await asyncio.sleep(HOLD_S)
                self._card.serving.difference_update(pids)
        except LlmoptError as error:
            row |= {"failed": error.key, "detail": f"{error}\n{error.detail}"[-4000:]}
        finally:
            self._card.serving.difference_update(pids)
            if not there:
                arrived()
        row |= told(hosted) if hosted is not None else {"verified": None}
        self._lines.add(**row)
        note(f"launch {number}: {'returned' if row['verified'] else 'NOT RETURNED'}", self._began_s)


def told(hosted: Any) -> dict[str, Any]:
    """The proof of one launch's release, and how memory went meanwhile."""
    report, trace, stop = hosted.memory.report, hosted.memory.trace(), hosted.engine.stop_report
    return {
        "verified": report.verified,
        "proof_s": round(report.seconds, 3),
        "processes_left": report.processes_left,
        "segments_left": report.segments_left,
        "devices": [
            {
                "name": device.name,
                "baseline_bytes": device.baseline_bytes,
                "used_bytes": device.used_bytes,
                "allowed_bytes": device.allowed_bytes,
            }
            for device in report.devices
        ],
        "stop": {"how": stop.how, "seconds": round(stop.seconds, 3), "survivors": stop.survivors} if stop else None,
        "peak_host_bytes": trace.peak_host_bytes,
        "peak_device_bytes": trace.peak_device_bytes,
        "watching_cost_share": round(trace.cost_share, 5),
        "levels": [
            {"before": c.before.name, "after": c.after.name, "where": c.where, "reading": asdict(c.reading)}
            for c in hosted.memory.watch.changes
        ],
    }


def host_of(given: argparse.Namespace, model_folder: Path, run_root: Path) -> tuple[Any, list[Any], dict[str, Any]]:
    """The product's host for this model on this machine, the configurations in turn, and facts for the record."""
    from llmopt.engines.registry import get_engine  # noqa: PLC0415 - after the environment is right
    from llmopt.hardware.probe import probe  # noqa: PLC0415
    from llmopt.models.metadata import read_model  # noqa: PLC0415
    from llmopt.records import Configuration, InferenceParams, Load, Task  # noqa: PLC0415
    from llmopt.study.host import StudyHost  # noqa: PLC0415

    engine, hardware, model = get_engine("transformers"), probe(), read_model(model_folder, "random")
    task = Task(load=Load(streams=4), max_tokens=ANSWER_TOKENS, prompt_tokens=PROMPT_TOKENS)
    plain = engine.baseline(model, hardware, task)
    settings = [plain, {**plain, "dtype": "float16" if given.device == "cuda" else "float32"}]
    request = InferenceParams(temperature=0.0)
    turns = [Configuration(engine=engine.name, launch=launch, request=request) for launch in settings]
    host = StudyHost(engine=engine, model=model, hardware=hardware, task=task, run_root=run_root)
    return host, turns, {"machine": asdict(hardware), "engine": engine.installation().version}


async def all_rounds(given: argparse.Namespace, launches: Launches, card: Card) -> None:
    """One round after another, until time is over."""
    card.start()
    try:
        for size in given.rounds:
            if time.monotonic() - launches._began_s > given.seconds:  # noqa: SLF001 - one script
                note("time is over", launches._began_s)  # noqa: SLF001
                return
            await launches.round(size)
    finally:
        card.stop()


def summary(given: argparse.Namespace, lines: Lines, card: Card, facts: dict[str, Any], began_s: float) -> dict:
    launches = [row for row in lines.rows if row["kind"] == "launch"]
    rounds = [row for row in lines.rows if row["kind"] == "round"]
    above = [d["used_bytes"] - d["baseline_bytes"] for row in launches for d in row.get("devices", ())]
    stops = sorted(row["stop"]["seconds"] for row in launches if row.get("stop"))
    return {
        "launches": len(launches),
        "wanted": sum(given.rounds),
        "answered": sum("failed" not in row for row in launches),
        "returned": sum(bool(row["verified"]) for row in launches),
        "processes_left": sum(len(row.get("processes_left", ())) for row in launches),
        "rounds": len(rounds),
        "card_back_after_round": sum(row["card"]["returned"] for row in rounds),
        "left_on_card": sum(len(row["left_on_card"]) for row in rounds),
        "most_left_above_baseline_bytes": max(above, default=None),
        "least_peak_device_bytes": min((row.get("peak_device_bytes", 0) for row in launches), default=None),
        "slowest_proof_s": max((row.get("proof_s", 0) for row in launches), default=None),
        "slowest_stop_s": stops[-1] if stops else None,
        "looks_at_the_list": card.looks,
        "looks_that_lacked_an_engine": card.absences,
        **facts,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - began_s, 1),
    }  # fmt: skip


def fresh_home(given: argparse.Namespace) -> Path:
    """A workspace for this run alone, and the environment in which the program uses it and the engine that is meant."""
    given.out.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="llmopt-gpu-run-"))
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ |= {"LLMOPT_TRANSFORMERS_COMMAND": given.python, "LLMOPT_HOME": str(home)}
    return home


def main() -> int:
    given = arguments()
    if given.wheels:
        return again_in_environment(given, __file__)
    began_s = time.monotonic()
    home = fresh_home(given)
    try:
        parameters = make_model(given, home / "model")
        note(f"model of {parameters / 1e6:.0f} M parameters", began_s)
        lines, card = Lines(given.out / "launches.jsonl"), Card(Lines(given.out / "card.jsonl"))
        host, turns, facts = host_of(given, home / "model", home / "runs")
        launches = Launches(host, turns, card, lines, began_s)
        asyncio.run(all_rounds(given, launches, card))
    finally:
        logs = sorted(home.rglob("engine.log"), key=lambda path: path.stat().st_mtime)
        if logs:
            shutil.copy(logs[-1], given.out / "engine.log")
        shutil.rmtree(home, ignore_errors=True)
    found = summary(given, lines, card, {"parameters": parameters, **facts}, began_s)
    (given.out / "gpu-launches.json").write_text(json.dumps(found, indent=1, default=str, ensure_ascii=False) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key != "machine"}, indent=1))
    good = found["launches"] == found["wanted"] == found["returned"] == found["answered"]
    return 0 if good and found["card_back_after_round"] == found["rounds"] else 1


if __name__ == "__main__":
    sys.exit(main())
