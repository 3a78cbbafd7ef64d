"""This machine's own peaks, measured in seconds: bytes from memory and arithmetic, for one thread and for all."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmopt.errors import EngineError, StorageError
from llmopt.paths import state_folder, write_whole
from llmopt.predict.devices import DeviceSpec

__all__ = ["FILE", "MachineSpeed", "cpu_spec", "load_speed", "measure_machine", "save_speed", "usual_speed"]

FILE = "machine-speed.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class MachineSpeed:
    """Bytes and 4-byte floating-point operations a second."""

    threads: int
    bandwidth_one: float
    bandwidth_all: float
    flops_one: float
    flops_all: float


def measure_machine(threads: int, *, seconds: float = 8.0) -> MachineSpeed:
    """Copies and matrix products on one thread and on ``threads``, in a process of its own; takes about ``seconds``.

    Other load on the machine lowers the result: measure when it is quiet. Raises EngineError where it cannot be done.
    """
    script = Path(__file__).parents[1] / "workers" / "machine_speed.py"
    argv = [sys.executable, "-P", str(script), str(threads), str(seconds)]
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1")
    environment = {**os.environ, **single}
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, timeout=seconds * 4 + 60, check=True)
        return MachineSpeed(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        detail = getattr(error, "stderr", None) or b""
        raise EngineError("predict.not_measured", why=str(error), detail=detail.decode("utf-8", "replace")) from None


def cpu_spec(speed: MachineSpeed, threads: int, *, prompt_threads: int | None = None, name: str = "cpu") -> DeviceSpec:
    """The machine as a device that ``threads`` threads of an engine see; all precisions compute at its float rate.

    ``prompt_threads`` compute prompts, where the engine gives them another number.
    """
    # what all threads reach is no less than what one did: a lower reading was disturbed by other load
    bandwidth_all, flops_all = max(speed.bandwidth_one, speed.bandwidth_all), max(speed.flops_one, speed.flops_all)
    bandwidth = min(speed.bandwidth_one * threads, bandwidth_all)
    flops = min(speed.flops_one * threads, flops_all)
    prompts = min(speed.flops_one * (prompt_threads or threads), flops_all)
    return DeviceSpec(
        name=name,
        family="cpu",
        bandwidth=bandwidth,
        flops={4: flops, 8: flops, 16: flops, 32: flops},
        prompt_speedup=prompts / flops,
    )


def usual_speed(threads: int) -> MachineSpeed:
    """Round figures of a present-day core and its share of memory: good for an order of settings, not for a time."""
    return MachineSpeed(
        threads=threads,
        bandwidth_one=10e9,
        bandwidth_all=min(10e9 * threads, 40e9),
        flops_one=60e9,
        flops_all=60e9 * threads,
    )


def save_speed(speed: MachineSpeed, *, hardware: str, folder: Path | None = None) -> Path:
    """Keep this machine's peaks under its fingerprint ``hardware``; raises StorageError."""
    path = (folder or state_folder()) / FILE
    known = _read(path)
    known["machines"][hardware] = asdict(speed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(known, indent=1))
    except OSError as error:
        raise StorageError("predict.speed_unwritable", path=path, reason=error.strerror or error) from None
    return path


def load_speed(*, hardware: str, folder: Path | None = None) -> MachineSpeed | None:
    """The peaks kept for the machine ``hardware``, or None where it was never measured; a broken file counts as none.

    Measuring again is cheap: nothing is refused because of what an earlier run left.
    """
    found = _read((folder or state_folder()) / FILE)["machines"].get(hardware)
    try:
        speed = MachineSpeed(**found)
        usable = all(math.isfinite(value) and value > 0 for value in asdict(speed).values())
    except TypeError:
        return None
    return speed if usable else None


def _read(path: Path) -> dict[str, Any]:
    empty: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "machines": {}}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return empty
    good = isinstance(known, dict) and known.get("schema_version") == SCHEMA_VERSION
    return known if good and isinstance(known.get("machines"), dict) else empty
