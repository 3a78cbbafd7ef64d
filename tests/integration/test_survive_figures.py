"""The figures on errors, input and storage, by the scripts that measure them: short runs here, full ones on request.

Full: ``python benchmarks/survive.py --out FOLDER`` (or ``nox -s figures``); the last one is in docs/measurements.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str) -> dict[str, Any]:
    """The script's result; fails with all it said where a figure was missed."""
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_failures_are_recognised() -> None:
    result = run("failure_catalogue.py")
    assert result["all"]["precision"]["n"] >= 2 * result["rows_in_catalogue"]


def test_leaks_are_told_from_noise() -> None:
    assert run("leak_watch.py", "--repeats", "60")["worst_detection"] >= 0.9


def test_broken_files_are_refused() -> None:
    result = run("input_fuzz.py", "--files", "500", "--headers", "200")
    assert sum(kind["n"] for kind in result["files"].values()) == 500
    assert all(kind["ended"].get("refused", 0) > 0 for kind in result["files"].values())  # the changes do bite
    assert sum(kind["n"] for kind in result["headers"].values()) == 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts")
@pytest.mark.parametrize("fault", ["disk_full", "read_only", "clock_jump", "locked", "power_loss"])
def test_storage_that_fails_costs_nothing_that_was_finished(fault: str) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "storage_faults.py"), "--only", fault],
        capture_output=True,
        text=True,
        check=False,
    )
    result = json.loads(done.stdout)
    if any("not_done" in row for row in result["faults"][fault]):
        pytest.skip(f"no mount of our own here: {result['faults'][fault]}")
    assert result["missed"] == [], result


def test_kills_change_no_decision_and_no_answer() -> None:
    result = run("kill_and_resume.py", "--engine", "fake", "--kills", "3", "--trials", "6")
    assert result["kills"] == 3
    assert result["compared_answers"] >= 16


def test_the_full_run_knows_every_piece(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("survive", FOLDER / "survive.py")
    assert spec is not None
    assert spec.loader is not None
    survive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(survive)
    for words in survive.pieces().values():
        assert words[0] == "-m" or (FOLDER / words[0]).exists()
    calls = tmp_path / "calls"
    again = tmp_path / "again.py"
    again.write_text(
        f"import sys, pathlib; p = pathlib.Path({str(calls)!r}); n = len(p.read_text()) if p.exists() else 0; "
        "p.write_text('x' * (n + 1)); sys.exit(3 if n < 2 else 0)",
        encoding="utf-8",
    )
    found = survive.run("piece", [str(again)], tmp_path)
    assert found["code"] == 0
    assert calls.read_text(encoding="utf-8") == "xxx"
