"""The main job from end to end on the scripted engine: results, Ctrl-C, kill -9, resume."""

import json
import math
import signal
import sqlite3

from llmopt.hardware.probe import probe
from llmopt.measure.calibrate import Calibration, NoiseFloor

DRY = ("optimize", "--dry-run", "--dataset", "korean_math_easy", "--samples", "6", "--name", "study")
FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.02"}


def result(cli):
    return json.loads((cli.folder / "optimization_results" / "study" / "result.json").read_text(encoding="utf-8"))


def trials(cli, *columns):
    """Rows of the study's trials in order, read as any program would."""
    path = cli.folder / "optimization_results" / "llmopt.db"
    if not path.exists():
        return []
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        names = ", ".join(columns)
        rows = db.execute(f"SELECT {names} FROM trials ORDER BY number").fetchall()
    db.close()
    return rows


def finished(cli):
    """(number, key, measurement) of every search trial that ended with a measurement, in full or raced out."""
    try:
        rows = trials(cli, "number", "key", "measurement", "outcome", "phase")
    except sqlite3.OperationalError:
        return []
    return [row[:3] for row in rows if row[3] in {"done", "raced_out"} and row[4] != "confirm"]


def test_a_dry_run_ends_with_a_verdict_files_and_nothing_running(cli, inside):
    ran = cli.run(*DRY, "--trials", "8", "--price-per-hour", "2", env=FAST)
    assert ran.code == 0, ran.err
    assert "Verdict" in ran.out or "Undecided" in ran.out
    found = result(cli)
    assert {"schema_version", "baseline", "best", "verdict", "command", "hardware", "versions"} <= found.keys()
    assert "interval" in found["verdict"]
    for side in (found["baseline"], found["best"]):
        speed = (side["confirmed"] or side["search"]["estimates"])["answers_per_minute"]["value"]
        assert math.isclose(side["cost"]["cost_per_thousand_answers"]["value"], 2 / (speed * 60) * 1000)
    assert "cost of 1,000 answers" in ran.out
    assert len([t for t in found["trials"] if t["outcome"] in {"done", "raced_out"}]) == 8
    folder = cli.folder / "optimization_results" / "study"
    assert {"result.json", "report.ko.md", "report.en.md", "report.html", "samples"} <= {
        p.name for p in folder.iterdir()
    }
    cli.wait_until_clean()
    listed = inside.run("list", "--type", "results", "--json")
    assert [row["study"] for row in json.loads(listed.out)] == ["study"]


def test_the_final_takes_its_pairs_and_looks_from_what_was_calibrated(cli):
    kept = Calibration(cli.folder / ".cache", hardware=probe().fingerprint)
    noisy = NoiseFloor(objective="answers_per_minute", spread=0.05, pairs=6, requests=2)
    kept.keep_noise(noisy, engine="fake", model="smollm2-135m")
    ran = cli.run(*DRY, "--trials", "2", "--model", "smollm2-135m", env=FAST)
    assert ran.code == 0, ran.err
    looks = result(cli)["looks"]
    assert looks["planned"][0] == 4 < looks["planned"][-1] <= 12
    assert looks["stopped_at"] in looks["planned"]
    assert 0.95 <= looks["confidence"] < 1


def test_json_lines_only_on_standard_output(cli):
    ran = cli.run(*DRY, "--trials", "3", "--json", env=FAST)
    assert ran.code == 0, ran.err
    kinds = [event["event"] for event in ran.events]
    assert kinds[-1] == "ended"
    assert kinds.count("trial_ended") == 3
    assert ran.events[-1]["result"]["study"] == "study"


def test_a_time_limit_is_kept_with_a_result(cli):
    # an engine so slow that the time is up before a dozen trials without progress could end the search
    limit = ("--trials", "5000", "--method", "random", "--timeout", "40")
    ran = cli.run(*DRY, *limit, env={"LLMOPT_FAKE_TIME_SCALE": "0.7"})
    assert ran.code == 0, ran.err
    found = result(cli)
    assert found["stopped_by"] == "time"
    assert found["elapsed_s"] <= 40 * 1.1


def test_ctrl_c_prints_how_to_continue_and_the_continuation_repeats_nothing(cli, wait_for):
    process = cli.start(*DRY, "--trials", "8", env=FAST)
    wait_for(lambda: len(finished(cli)) >= 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "optimize --resume study" in out + err
    assert "Traceback" not in out + err
    cli.wait_until_clean()
    before = finished(cli)
    ran = cli.run("optimize", "--resume", env=FAST)
    assert ran.code == 0, ran.err
    after = finished(cli)
    assert after[: len(before)] == before
    assert len(after) == 8
    assert len({key for _, key, _ in after}) == 8


def test_a_second_measuring_run_is_refused_and_names_the_first(cli, wait_for):
    first = cli.start(*DRY, "--trials", "500", env=FAST)
    wait_for(lambda: len(finished(cli)) >= 1)
    second = cli.run("optimize", "--dry-run", "--dataset", "korean_math_easy", "--name", "other", env=FAST)
    assert second.code == 2
    assert str(first.pid) in second.err
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    cli.wait_until_clean()
