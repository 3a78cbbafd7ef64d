"""The figures on processes, by the script that measures them: a short run always, the full one on request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "process_faults.py"


def run(*arguments: str) -> dict[str, dict[str, object]]:
    """The script's result; fails with all of it where a figure was missed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, dict[str, object]] = json.loads(done.stdout)
    return result


def test_cycles_leave_nothing() -> None:
    cycles = run("--cycles", "20")["cycles"]
    assert cycles["cycles"] == 20
    assert len(cycles["outcomes"]) >= 15  # every kind of misbehaviour was met


def test_kills_at_random_moments_leave_nothing() -> None:
    assert sum(run("--kills", "6")["kills"]["kills"].values()) == 6


def test_stolen_ports_are_replaced() -> None:
    assert run("--thefts", "4")["thefts"]["new_ports_needed"] == {"1": 2, "2": 2}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("figure", ["--cycles=200", "--kills=200", "--thefts=100"])
def test_the_figures_in_full(figure: str) -> None:
    run(*figure.split("="))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("figure", ["--cycles=30", "--kills=20"])
def test_the_figures_with_a_real_engine(figure: str, demo_model: Path) -> None:
    run("--engine", "llamacpp", "--model", str(demo_model), *figure.split("="))
