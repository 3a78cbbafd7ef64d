"""How well processes are kept: start/stop cycles of misbehaving engines, kills at random moments, stolen ports.

    python benchmarks/process_faults.py --cycles 200 --kills 200 --thefts 100 --out result.json
    python benchmarks/process_faults.py --engine llamacpp --model FILE.gguf --cycles 30 --kills 20

Prints one JSON object and exits 1 when a figure of the specification is missed: no survivor, no descriptor, socket,
record or shared-memory segment left, the parent's memory grows by less than 1 MB, stop p99 < 15 s; after a kill the
whole tree is gone in 5 s and bystanders live; a stolen port costs at most three tries. Linux only: it looks into /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from llmopt.engines.base import Engine, RunFolder
from llmopt.engines.fake import Fake
from llmopt.engines.launch import Phase, launch
from llmopt.engines.registry import get_engine
from llmopt.errors import EngineError
from llmopt.hardware.probe import probe
from llmopt.hardware.tree import shared_segments
from llmopt.models.metadata import read_model
from llmopt.records import LaunchPlan, Load, ModelInfo, Settings, Task
from llmopt.runtime.guardian import Guardian

TREE_GONE_S = 5.0
STOP_P99_S = 15.0
GROWTH_MB = 1.0
WARM_CYCLES = 10
GRACE_S = 0.3
SEGMENTS_CALM_S = 5.0
OWN_SEGMENTS = "LLMOPT_OWN_SHARED_MEMORY"
TASK = Task(load=Load(streams=2), prompt_tokens=64, max_tokens=64)

SCENARIOS: dict[str, dict[str, Any]] = {
    "behaves": {},
    "ignores TERM": {"on_term": "ignore"},
    "heeds TERM late": {"on_term": "slow:0.5"},
    "double-forked child": {"grandchild": "plain"},
    "double-forked child that ignores TERM": {"grandchild": "ignores_term"},
    "ignores TERM with such a child": {"on_term": "ignore", "grandchild": "ignores_term"},
    "exits while loading": {"faults": [{"at": "load", "do": "exit:3"}], "grandchild": "ignores_term"},
    "crashes while loading": {"faults": [{"at": "load", "do": "signal:SIGSEGV"}]},
    "out of memory while loading": {"faults": [{"at": "load", "do": "oom:llamacpp"}]},
    "hangs while loading, cancelled": {"faults": [{"at": "load", "do": "hang"}], "grandchild": "ignores_term"},
    "cancelled while loading": {"load_s": 30.0, "on_term": "ignore"},
    "crashes on the first request": {"faults": [{"at": "request:1", "do": "signal:SIGABRT"}]},
    "crashes in use": {"faults": [{"at": "seconds:0.4", "do": "signal:SIGKILL"}], "grandchild": "ignores_term"},
    "holds shared memory": {"on_term": "ignore"},
    "on a port": {},
}


class Scripted(Fake):
    """The fake engine with one bad habit; the one that holds shared memory gets a descriptor of it handed over."""

    def __init__(self, kind: str, folder: Path) -> None:
        file = folder / f"{kind.replace(' ', '-')}.json"
        file.write_text(json.dumps(SCENARIOS[kind]))
        super().__init__(scenario=file, time_scale=0.01)
        self.transport = "port" if kind == "on a port" else "socket"
        self._segment = f"llmopt-faults-{os.getpid()}" if kind == "holds shared memory" else None

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """The fake engine's plan, its program wrapped where shared memory is to be held."""
        plan = replace(super().plan(model, settings, run), stop_grace_s=GRACE_S)
        if not self._segment:
            return plan
        code = (
            "import os,sys; h=os.open('/dev/shm/'+sys.argv[1],os.O_CREAT|os.O_RDWR); os.ftruncate(h,4096);"
            "os.set_inheritable(h,True); os.execv(sys.argv[2],sys.argv[2:])"
        )
        return replace(plan, argv=(sys.executable, "-c", code, self._segment, *plan.argv))


class Robbed(Fake):
    """The fake engine on a fixed port that a stranger takes first, the given number of times."""

    transport = "port"

    def __init__(self, times: int) -> None:
        super().__init__(time_scale=0.01)
        self.left = times
        self.strangers: list[socket.socket] = []

    def plan(self, model: ModelInfo, settings: Settings, run: RunFolder) -> LaunchPlan:
        """As planned, but without telling which port it got, and with the thief at work."""
        plan = replace(super().plan(model, settings, run), port_from_log=None)
        if plan.endpoint.port and self.left:
            self.left -= 1
            self.strangers.append(socket.create_server(("127.0.0.1", plan.endpoint.port)))
        return plan


# ── looking at processes ───────────────────────────────────────────────────────────────────────────────────────────


def processes_of(root: Path) -> dict[int, str]:
    """Every living process that was started in, or told about, a place below ``root``; zombies are dead."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.cwd().startswith(str(root)) or any(str(root) in word for word in process.cmdline()):
                found[process.pid] = " ".join(process.cmdline())[:160]
    return found


def engines_of(root: Path) -> dict[int, str]:
    """The same without guardians, victims of this script and strangers."""
    return {
        pid: line for pid, line in processes_of(root).items() if "guardian.py" not in line and "--victim" not in line
    }


def footprint(guardian: Guardian) -> dict[str, float]:
    """Descriptors and memory of our process and of both halves of the guardian."""
    gc.collect()
    processes = [psutil.Process(pid) for pid in (os.getpid(), *guardian.pids)]
    return {
        "parent_rss_mb": processes[0].memory_info().rss / 1e6,
        "guardian_rss_mb": sum(process.memory_info().rss for process in processes[1:]) / 1e6,
        "parent_descriptors": processes[0].num_fds(),
        "guardian_descriptors": sum(process.num_fds() for process in processes[1:]),
    }


def segments() -> set[str]:
    """The shared-memory files of this machine."""
    return {path.name for path in Path("/dev/shm").iterdir()}


def in_shared_memory_of_our_own() -> None:
    """Start again where /dev/shm is ours alone, where that is allowed: other programs make (and leave) segments too."""
    if OWN_SEGMENTS in os.environ or not shutil.which("unshare"):
        return
    own = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"']
    if subprocess.run([*own, "sh", "true"], capture_output=True, check=False).returncode == 0:
        os.environ[OWN_SEGMENTS] = "1"
        os.execvp(own[0], [*own, "sh", sys.executable, *sys.argv])


def segments_left(before: set[str]) -> list[str]:
    """New ones that stay and that no living process uses: other programs of this machine make their own meanwhile."""

    def ownerless() -> set[str]:
        used = {Path(path).name for path in shared_segments(psutil.pids())}
        return segments() - before - used

    until(lambda: not ownerless(), SEGMENTS_CALM_S)
    return sorted(ownerless())


def until(condition: Callable[[], bool], seconds: float) -> float | None:
    """How long it took, None where it did not happen in ``seconds``."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            return None
        time.sleep(0.02)
    return time.monotonic() - began


# ── cycles ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Stopwatch:
    """When the stop ladder began and ended, and when loading began."""

    def __init__(self) -> None:
        self.at: dict[Phase, float] = {}
        self.loading = asyncio.Event()

    def __call__(self, phase: Phase) -> None:
        self.at[phase] = time.monotonic()
        if phase is Phase.LOADING:
            self.loading.set()

    @property
    def stop_s(self) -> float:
        return self.at[Phase.STOPPED] - self.at[Phase.STOPPING]


async def cycle(engine: Engine, model: ModelInfo, settings: Settings, root: Path, kind: str) -> tuple[str, float]:
    """One start and stop: how it went, and how many seconds the stop took."""
    watch = Stopwatch()

    async def use() -> str:
        guardian = Guardian.shared()
        async with launch(
            engine, model, settings, guardian=guardian, run_root=root / "runs", on_phase=watch
        ) as running:
            if kind == "crashes in use":
                await asyncio.wait_for(running.ended(), 60)
                running.check()
        return f"stopped, {running.stop_report.how}" if running.stop_report else "lost"

    task = asyncio.ensure_future(use())
    if "cancelled" in kind:
        await asyncio.wait_for(watch.loading.wait(), 60)
        await asyncio.sleep(random.uniform(0, 0.5))
        task.cancel()
    try:
        outcome = await task
    except asyncio.CancelledError:
        outcome = "cancelled"
    except EngineError as error:
        outcome = error.key
    return outcome, watch.stop_s


def run_cycles(
    count: int, engines: Mapping[str, Engine], model: ModelInfo, settings: Settings, root: Path
) -> dict[str, Any]:
    """``count`` cycles over all kinds in turn, with what was left behind."""
    guardian = Guardian.shared()
    before_segments, outcomes = segments(), Counter[str]()
    seconds: list[float] = []
    survivors: dict[int, str] = {}
    first: dict[str, float] = {}

    async def all_of_them() -> None:
        for number in range(WARM_CYCLES + count):
            if number == WARM_CYCLES:
                first.update(footprint(guardian))
            kind = list(engines)[number % len(engines)]
            outcome, stop_s = await cycle(engines[kind], model, settings, root, kind)
            survivors.update(engines_of(root))
            if number >= WARM_CYCLES:
                outcomes[f"{kind}: {outcome}"] += 1
                seconds.append(stop_s)

    asyncio.run(all_of_them())
    last = footprint(guardian)
    return {
        "cycles": count,
        "outcomes": dict(sorted(outcomes.items())),
        "survivors": survivors,
        "stop_p50_s": round(statistics.median(seconds), 3),
        "stop_p99_s": round(sorted(seconds)[max(0, -(-99 * len(seconds) // 100) - 1)], 3),
        "stop_max_s": round(max(seconds), 3),
        "growth": {name: round(last[name] - first[name], 3) for name in first},
        "segments_left": segments_left(before_segments),
        "segments_of_our_own": OWN_SEGMENTS in os.environ,
        "sockets_left": sorted(str(path) for path in guardian.folder.parent.glob("*.sock")),
        "records_left": sorted(path.name for path in guardian.folder.glob("*.json")),
        "containment": guardian.containment,
    }


# ── kills ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def be_victim(engines: Mapping[str, Engine], model: ModelInfo, settings: Settings, root: Path, seed: int) -> None:
    """Start and stop engines until killed."""
    random.seed(seed)

    async def for_ever() -> None:
        print("up", *Guardian.shared().pids, flush=True)
        while True:
            kind = random.choice(list(engines))
            await cycle(engines[kind], model, settings, root, kind)

    asyncio.run(for_ever())


def run_kills(count: int, root: Path, options: argparse.Namespace, longest_s: float) -> dict[str, Any]:
    """SIGKILL to the tool, or to a half of its guardian, at random moments."""
    rng = random.Random(options.seed)
    seconds: dict[str, list[float]] = {"client": [], "serving half": [], "waiting half": []}
    late: list[str] = []
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)", "guardian"])
    try:
        for number in range(count):
            victim = subprocess.Popen(
                [sys.executable, __file__, "--victim", str(root), *_passed_on(options), "--seed", str(number)],
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            assert victim.stdout is not None
            waiting, serving = (int(word) for word in victim.stdout.readline().split()[1:])
            who = rng.choice(list(seconds))
            time.sleep(rng.uniform(0.0, longest_s))
            os.kill({"client": victim.pid, "serving half": serving, "waiting half": waiting}[who], signal.SIGKILL)
            if who != "client":  # the tool lives on: it is told, and must not start another engine for this test
                os.kill(victim.pid, signal.SIGSTOP)
            took = until(lambda: not engines_of(root), 3 * TREE_GONE_S)
            if took is None or took > TREE_GONE_S:
                late.append(f"{number} {who}: {took} {engines_of(root)}")
            seconds[who].append(took if took is not None else float("inf"))
            victim.kill()
            victim.communicate()
            until(lambda: not processes_of(root), 3 * TREE_GONE_S)
        unharmed = bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    everything = sorted(value for values in seconds.values() for value in values)
    return {
        "kills": {who: len(values) for who, values in seconds.items()},
        "gone_p50_s": round(statistics.median(everything), 3),
        "gone_max_s": round(everything[-1], 3),
        "late": late,
        "left": processes_of(root),
        "bystander_unharmed": unharmed,
        "records_left": sorted(path.name for path in root.rglob("guard/*.json")),
        "sockets_left": sorted(path.name for path in root.rglob("*.sock")),
    }


def _passed_on(options: argparse.Namespace) -> list[str]:
    return ["--engine", options.engine, *(["--model", str(options.model)] if options.model else [])]


# ── stolen ports ───────────────────────────────────────────────────────────────────────────────────────────────────


def run_thefts(count: int, model: ModelInfo, settings: Settings, root: Path) -> dict[str, Any]:
    """A port taken once or twice between choice and use, ``count`` times; how many new ports each launch needed."""
    tries = Counter[int]()

    async def rob() -> None:
        for number in range(count):
            engine = Robbed(times=1 + number % 2)
            try:
                async with launch(engine, model, settings, guardian=Guardian.shared(), run_root=root / "runs"):
                    tries[len(engine.strangers)] += 1
            except EngineError:
                tries[-1] += 1
            finally:
                for stranger in engine.strangers:
                    stranger.close()

    asyncio.run(rob())
    return {"thefts": count, "new_ports_needed": {str(key): value for key, value in sorted(tries.items())}}


# ── all together ───────────────────────────────────────────────────────────────────────────────────────────────────


def missed(result: dict[str, Any]) -> list[str]:
    """The figures of the specification that this result does not reach."""
    found = []
    if cycles := result.get("cycles"):
        growth = cycles["growth"]
        found += [name for name in ("survivors", "segments_left", "sockets_left", "records_left") if cycles[name]]
        found += [name for name in ("parent_descriptors", "guardian_descriptors") if growth[name] > 0]
        found += ["parent_rss_mb"] if growth["parent_rss_mb"] >= GROWTH_MB else []
        found += ["stop_p99_s"] if cycles["stop_p99_s"] >= STOP_P99_S else []
    if kills := result.get("kills"):
        found += [name for name in ("late", "left", "sockets_left") if kills[name]]
        found += [] if kills["bystander_unharmed"] else ["bystander"]
    if (thefts := result.get("thefts")) and thefts["new_ports_needed"].get("-1"):
        found.append("thefts")
    return found


@contextmanager
def own_place() -> Iterator[Path]:
    """A short temporary folder that is also our runtime folder, so that what is found there is ours."""
    with tempfile.TemporaryDirectory(prefix="faults") as name:
        os.environ["XDG_RUNTIME_DIR"] = name
        yield Path(name)
        Guardian.shared().close()


def engines_for(options: argparse.Namespace, root: Path) -> tuple[dict[str, Engine], ModelInfo, Settings]:
    """The engines to go through, with a model and settings for them."""
    hardware = probe()
    if options.engine == "fake":
        model = ModelInfo(name="fake", path="fake.gguf", format="gguf")
        (root / "scenarios").mkdir(exist_ok=True)
        engines: dict[str, Engine] = {kind: Scripted(kind, root / "scenarios") for kind in SCENARIOS}
        return engines, model, Fake().baseline(model, hardware, TASK)
    engine, model = get_engine(options.engine), read_model(options.model)
    kinds = {"behaves": engine, "cancelled while loading": engine}
    return kinds, model, engine.preset(model, hardware, TASK, None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=0)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--thefts", type=int, default=0)
    parser.add_argument("--engine", default="fake")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--victim", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.victim:
        os.environ["XDG_RUNTIME_DIR"] = str(options.victim)
        be_victim(*engines_for(options, options.victim), options.victim, options.seed)
    if options.cycles:
        in_shared_memory_of_our_own()
    random.seed(options.seed)
    result: dict[str, Any] = {"engine": options.engine, "python": sys.version.split()[0], "cores": os.cpu_count()}
    with own_place() as root:
        engines, model, settings = engines_for(options, root)
        if options.cycles:
            result["cycles"] = run_cycles(options.cycles, engines, model, settings, root)
        if options.thefts:
            result["thefts"] = run_thefts(options.thefts, model, settings, root)
        Guardian.shared().close()
        if options.kills:
            result["kills"] = run_kills(
                options.kills, root, options, longest_s=2.0 if options.engine == "fake" else 6.0
            )
    result["missed"] = missed(result)
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
