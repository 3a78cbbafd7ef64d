"""A launch that runs out of memory in a real run: infeasible, and tried smaller as a trial derived from it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress

DRY = ("optimize", "--dry-run", "--dataset", "korean_math_easy", "--samples", "4", "--name", "study")


def rows(cli):
    """Trials as any program would read them."""
    path = cli.folder / "optimization_results" / "llmopt.db"
    found = []
    if path.exists():
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            found = [dict(row) for row in db.execute("SELECT * FROM trials ORDER BY number")]
    return found


def derived(cli, outcomes=("done", "raced_out")):
    return [row for row in rows(cli) if row["derived_from"] is not None and row["outcome"] in outcomes]


def test_out_of_memory_is_recovered_from_by_a_derived_trial(cli, inside, wait_for, tmp_path):
    scenario = tmp_path / "scenario.json"
    scenario.write_text("{}", encoding="utf-8")
    environment = {"LLMOPT_FAKE_TIME_SCALE": "0.02", "LLMOPT_FAKE_SCENARIO": str(scenario)}
    process = cli.start(*DRY, "--trials", "10", "--method", "random", env=environment)
    wait_for(lambda: any(row["outcome"] == "done" for row in rows(cli)) or process.poll() is not None)
    scenario.write_text(json.dumps({"memory_limit_mib": 100}), encoding="utf-8")  # less than any launch takes
    wait_for(lambda: any(row["failure"] for row in rows(cli)) or process.poll() is not None)
    notice = "warning: no usable GPU found, --gpu-layers option will be ignored"
    scenario.write_text(json.dumps({"load_log": [notice]}), encoding="utf-8")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    numbers = {row["number"]: row for row in rows(cli)}
    child = derived(cli)[0]
    assert "failures.OK-006.what" in json.loads(child["measurement"])["warnings"]
    parent = numbers[child["derived_from"]]
    assert parent["outcome"] == "infeasible"
    assert child["origin"] == "recovery"
    assert json.loads(child["configuration"])["launch"] != json.loads(parent["configuration"])["launch"]
    failure = json.loads(parent["failure"])
    assert failure["done"]
    assert failure["advice"]["launch"] == json.loads(child["configuration"])["launch"]
    errors = json.loads(inside.run("list", "--type", "errors", "--json").out)
    assert failure["id"] in {row["id"] for row in errors}
    assert any(row["done"] and row["remedy"] for row in errors)
    cli.wait_until_clean()
