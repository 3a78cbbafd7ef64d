"""How small a difference can be told from chance here: the noise floor, from measuring the same thing again (A/A).

Kept in the workspace by hardware, engine and model, so that repeats are derived from it and not guessed; beside it how
far our own client is from the truth on this machine, by number of streams.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmopt.errors import StorageError
from llmopt.measure.stats.paired import pairs_needed
from llmopt.measure.stats.special import t_quantile
from llmopt.paths import ensure, write_whole

__all__ = ["Calibration", "NoiseFloor", "noise_from"]

SCHEMA_VERSION = 2
FILE = "calibration.json"
MOST = 1_000


@dataclass(frozen=True, kw_only=True)
class NoiseFloor:
    """How much one launch differs from the next, all else equal: ``spread`` is the deviation of a pair's log ratio."""

    objective: str
    spread: float
    pairs: int
    """How many A/A pairs it was estimated from."""
    requests: int
    """Requests of each launch; fewer of them vary more."""
    load: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """The 95 % interval of ``spread``: m · s² / σ² is χ² with m degrees of freedom (m pairs, known mean)."""
        from scipy.stats import chi2  # noqa: PLC0415 - a third of a second, only where a floor is shown

        low, high = (self.spread * math.sqrt(self.pairs / float(chi2.ppf(p, self.pairs))) for p in (0.975, 0.025))
        return low, high

    def at(self, requests: int) -> NoiseFloor:
        """The floor of launches with ``requests`` requests: wider for fewer by the square root, never narrower.

        As if all noise came from request to request, which is the worst case for fewer of them.
        """
        if requests >= self.requests or requests < 1:
            return self
        wider = self.spread * math.sqrt(self.requests / requests)
        return NoiseFloor(**{**asdict(self), "spread": wider, "requests": requests})

    def resolves(self, pairs: int = 4) -> float:
        """The smallest relative difference that ``pairs`` pairs tell from chance (half of the 95 % interval)."""
        if pairs < 2:  # noqa: PLR2004 - one pair has no spread
            return math.inf
        return math.expm1(t_quantile(0.975, pairs - 1) * self.spread / math.sqrt(pairs))

    def pairs_for(self, difference: float, *, power: float = 0.8) -> int:
        """Pairs that find a true relative ``difference`` with ``power``; at least 4."""
        return pairs_needed(self.spread, math.log1p(difference), power=power)

    def knows(self, launches: int) -> float:
        """Half of the 95 % interval of the mean of ``launches`` launches of one configuration, relative."""
        if launches < 2:  # noqa: PLR2004 - one launch has no spread
            return math.inf
        return t_quantile(0.975, launches - 1) * self.spread / math.sqrt(2 * launches)

    def launches_for(self, precision: float) -> int:
        """The fewest launches whose mean is known to ``precision`` (relative half-width); at least 3."""
        return next((n for n in range(3, MOST) if self.knows(n) <= precision), MOST)


def noise_from(values: Sequence[float], *, objective: str, requests: int, load: str = "") -> NoiseFloor:
    """The floor from A/A values in the order they were measured: neighbours are pairs, so slow drift drops out.

    The true mean of an A/A log ratio is 0, so no degree of freedom is spent on it. Raises ValueError below two pairs.
    """
    logs = [math.log(a / b) for a, b in zip(values[::2], values[1::2], strict=False)]
    if len(logs) < 2:  # noqa: PLR2004 - one pair has no spread
        raise ValueError("a noise floor needs at least two pairs")
    spread = math.sqrt(statistics.fmean(x * x for x in logs))
    return NoiseFloor(objective=objective, spread=spread, pairs=len(logs), requests=requests, load=load)


class Calibration:
    """What was calibrated on one machine, in a file of ``folder``; reading raises StorageError for a broken file."""

    def __init__(self, folder: Path, *, hardware: str) -> None:
        self.path = folder / FILE
        self._hardware = hardware

    def noise(self, *, engine: str, model: str, objective: str) -> NoiseFloor | None:
        """The floor that was kept, or None where this was never calibrated."""
        found = self._read()["floors"].get(self._key(engine, model, objective))
        if found is None:
            return None
        try:
            return NoiseFloor(**found)
        except TypeError as error:
            raise StorageError("measure.calibration_file", path=self.path, reason=error) from None

    def client_error_ms(self, streams: int) -> float | None:
        """The p99 of our TTFT error at the fewest calibrated streams that are at least ``streams``, else the most."""
        found = self._read()["clients"].get(self._hardware)
        try:
            errors = {int(number): float(error) for number, error in (found or {}).items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise StorageError("measure.calibration_file", path=self.path, reason=error) from None
        if not errors:
            return None
        return errors[min((number for number in errors if number >= streams), default=max(errors))]

    def keep_noise(self, floor: NoiseFloor, *, engine: str, model: str) -> None:
        """Keep a floor; raises StorageError."""
        known = self._read()
        known["floors"][self._key(engine, model, floor.objective)] = asdict(floor)
        self._write(known)

    def keep_client(self, errors_ms: Mapping[int, float]) -> None:
        """Keep the p99 of our own TTFT error by number of streams (see ``self_check``); raises StorageError."""
        known = self._read()
        known["clients"][self._hardware] = {str(streams): error for streams, error in errors_ms.items()}
        self._write(known)

    def _key(self, engine: str, model: str, objective: str) -> str:
        return f"{self._hardware} {engine} {model} {objective}"

    def _read(self) -> dict[str, Any]:
        path = self.path
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

    def _write(self, known: Mapping[str, Any]) -> None:
        path = self.path
        try:
            ensure(path.parent)
            write_whole(path, json.dumps(known, indent=1))
        except OSError as error:
            raise StorageError("measure.calibration_unwritable", path=path, reason=error.strerror or error) from None
