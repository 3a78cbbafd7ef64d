"""What the client benchmarks share: the mock with its stamps, a child run with its costs, the state of the machine."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FAKE_ENGINE = ROOT / "llmopt" / "workers" / "fake_engine.py"
MODEL = "fake"
START_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the mock says it did: milliseconds, by its own stamps."""

    ttft_ms: tuple[float, ...]
    gaps_ms: tuple[float, ...]
    events: int

    def percentile(self, name: str, q: float) -> float:
        return percentile(self.ttft_ms if name == "ttft" else self.gaps_ms, q)


@dataclass(kw_only=True)
class Mock:
    """A running fake engine on a loopback port; ``truth`` after it has stopped."""

    port: int
    process: subprocess.Popen[bytes]
    stamps: Path
    processes: int
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def truth(self, keys: Sequence[str] | None = None) -> Truth:
        """From the stamps of all streams (or of those with ``keys``)."""
        wanted = None if keys is None else set(keys)
        lines = [line for line in self.lines if wanted is None or line["key"] in wanted]
        first = [(line["written_ns"][0] - line["received_ns"]) / 1e6 for line in lines if line["written_ns"]]
        gaps = [
            (b - a) / 1e6 for line in lines for a, b in zip(line["written_ns"], line["written_ns"][1:], strict=False)
        ]
        events = sum(len(line["written_ns"]) for line in lines)
        return Truth(ttft_ms=tuple(first), gaps_ms=tuple(gaps), events=events)


@contextlib.contextmanager
def mock(
    *, timing: Mapping[str, float], processes: int = 2, mode: str = "fast", scenario: Mapping[str, Any] | None = None
) -> Iterator[Mock]:
    """The fake engine on a free port, stopped (and its stamps read) on exit."""
    with tempfile.TemporaryDirectory(prefix="llmopt-bench-") as name:
        folder = Path(name)
        script = folder / "scenario.json"
        script.write_text(json.dumps({"timing": dict(timing), **(scenario or {})}))
        stamps = folder / "stamps"
        port = free_port()
        argv = [sys.executable, str(FAKE_ENGINE), "--mode", mode, "--port", str(port), "--scenario", str(script)]
        if mode == "fast":
            argv += ["--processes", str(processes), "--stamps", str(stamps)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        running = Mock(port=port, process=process, stamps=stamps, processes=processes)
        try:
            wait_for_port(port, process)
            yield running
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(30)
            for number in range(processes):
                part = stamps if number == 0 else stamps.with_name(f"{stamps.name}.{number}")
                if part.exists():
                    running.lines += [json.loads(line) for line in part.read_text().splitlines()]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a client cost, its whole process tree together; RSS is that of its largest process."""

    wall_s: float
    cpu_s: float
    max_rss_mb: float
    exit_code: int
    output: str


def run_child(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout_s: float = 900.0
) -> Costs:
    """Run a client to its end and account for it and all it waited for."""
    with tempfile.TemporaryFile() as output:
        began_s = time.monotonic()
        process = subprocess.Popen(argv, stdout=output, stderr=output, env={**os.environ, **(env or {})}, cwd=cwd)
        used = _wait(process, timeout_s)
        wall_s = time.monotonic() - began_s
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    return Costs(
        wall_s=wall_s,
        cpu_s=used.ru_utime + used.ru_stime,
        max_rss_mb=used.ru_maxrss / 1024,
        exit_code=process.returncode,
        output=text[-4000:],
    )


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> resource.struct_rusage:
    deadline_s = time.monotonic() + timeout_s
    while True:
        pid, status, used = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return used
        if time.monotonic() > deadline_s:
            process.kill()
        time.sleep(0.05)


def percentile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise SystemExit(f"the mock ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit("the mock did not start")


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures by."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average_before": os.getloadavg(),
        "llmopt": version("llmopt"),
    }


def add_runs(path: Path) -> list[dict[str, Any]]:
    """The runs an earlier call kept in ``path``; none where there is no such file."""
    return list(json.loads(path.read_text())["runs"]) if path.exists() else []


def save(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=asdict) + "\n")
    print(f"raw results: {path}")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += [
        "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |"
        for row in rows
    ]
    return "\n".join(lines)
