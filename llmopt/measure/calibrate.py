"""How small a difference this machine can tell from chance: the noise floor, from measuring the same thing again (A/A).

Kept for the machine in one file, by hardware and engine, so that repeats are derived from it and not guessed.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmopt.errors import StorageError
from llmopt.measure.stats.paired import pairs_needed
from llmopt.measure.stats.special import t_quantile
from llmopt.paths import state_folder

__all__ = ["NoiseFloor", "load_client", "load_noise", "measure_noise", "noise_from", "save_client", "save_noise"]

SCHEMA_VERSION = 1
FILE = "calibration.json"


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """How much one launch differs from the next, all else equal: ``spread`` is the deviation of a pair's log ratio."""

    objective: str
    spread: float
    pairs: int
    """How many A/A pairs it was estimated from."""

    def resolves(self, pairs: int = 4) -> float:
        """The smallest relative difference that ``pairs`` pairs tell from chance (half of the 95 % interval)."""
        if pairs < 2:  # noqa: PLR2004 - one pair has no spread
            return math.inf
        return math.expm1(t_quantile(0.975, pairs - 1) * self.spread / math.sqrt(pairs))

    def pairs_for(self, difference: float, *, power: float = 0.8) -> int:
        """Pairs that find a true relative ``difference`` with ``power``; at least 4."""
        return pairs_needed(self.spread, math.log1p(difference), power=power)


async def measure_noise(
    launch: Callable[[], Awaitable[float]], *, objective: str, pairs: int = 6
) -> tuple[NoiseFloor, tuple[float, ...]]:
    """Measure the same launch ``2 × pairs`` times in a row; returns the floor and the values."""
    values = [await launch() for _ in range(2 * pairs)]
    return noise_from(values, objective=objective), tuple(values)


def noise_from(values: Sequence[float], *, objective: str) -> NoiseFloor:
    """The floor from A/A values in the order they were measured: neighbours are pairs, so slow drift drops out.

    The true mean of an A/A log ratio is 0, so no degree of freedom is spent on it. Raises ValueError below two pairs.
    """
    logs = [math.log(a / b) for a, b in zip(values[::2], values[1::2], strict=False)]
    if len(logs) < 2:  # noqa: PLR2004 - one pair has no spread
        raise ValueError("a noise floor needs at least two pairs")
    return NoiseFloor(objective=objective, spread=math.sqrt(statistics.fmean(x * x for x in logs)), pairs=len(logs))


def save_noise(floor: NoiseFloor, *, hardware: str, engine: str, folder: Path | None = None) -> Path:
    """Keep a floor for this machine (``hardware``: its fingerprint) and engine; raises StorageError."""
    path = (folder or state_folder()) / FILE
    known = _read(path)
    known["floors"][f"{hardware} {engine} {floor.objective}"] = asdict(floor)
    return _write(path, known)


def save_client(errors_ms: Mapping[int, float], *, hardware: str, folder: Path | None = None) -> Path:
    """Keep the p99 of our own TTFT error by number of streams (see ``self_check``); raises StorageError."""
    path = (folder or state_folder()) / FILE
    known = _read(path)
    known["clients"][hardware] = {str(streams): error for streams, error in errors_ms.items()}
    return _write(path, known)


def load_client(streams: int, *, hardware: str, folder: Path | None = None) -> float | None:
    """The error kept for the fewest streams that are at least ``streams``, else the most; None if not calibrated."""
    path = (folder or state_folder()) / FILE
    found = _read(path)["clients"].get(hardware)
    try:
        errors = {int(number): float(error) for number, error in (found or {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise StorageError("measure.calibration_file", path=path, reason=error) from None
    if not errors:
        return None
    return errors[min((number for number in errors if number >= streams), default=max(errors))]


def _write(path: Path, known: Mapping[str, Any]) -> Path:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            json.dump(known, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StorageError("measure.calibration_unwritable", path=path, reason=error.strerror or error) from None
    return path


def load_noise(*, hardware: str, engine: str, objective: str, folder: Path | None = None) -> NoiseFloor | None:
    """The floor that was kept, or None where this was never calibrated; raises StorageError for a broken file."""
    path = (folder or state_folder()) / FILE
    found = _read(path)["floors"].get(f"{hardware} {engine} {objective}")
    if found is None:
        return None
    try:
        return NoiseFloor(**found)
    except TypeError as error:
        raise StorageError("measure.calibration_file", path=path, reason=error) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        parts = (known["floors"], known["clients"])
        if known["schema_version"] != SCHEMA_VERSION or not all(isinstance(part, dict) for part in parts):
            raise StorageError("measure.calibration_file", path=path, reason=f"schema {known['schema_version']}")
    except FileNotFoundError:
        return {"schema_version": SCHEMA_VERSION, "floors": {}, "clients": {}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError("measure.calibration_file", path=path, reason=error) from None
    return dict(known)
