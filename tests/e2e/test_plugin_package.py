"""An engine and an evaluator in a package of their own, installed by pip, work without a change here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests" / "fixtures" / "sample_plugin"
FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.02"}
API = """
import asyncio
from config.model_config import ModelConfig, ModelType
from core.improved_optimizer import SafeOptimizer
from llmopt.measure.evaluators.registry import load_evaluator

async def main():
    assert ModelType("parrot").value == "parrot"
    model = ModelConfig(name="bird", model_path="a/bird", model_type=ModelType("parrot"))
    assert model.validate()
    items = [{"question": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(8)]
    found = await SafeOptimizer().optimize_parameters(model, items, load_evaluator("calm"))
    print(found.best_score)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """The sample package installed into a folder, with nothing from a network."""
    folder = tmp_path_factory.mktemp("plugins")
    source = shutil.copytree(SAMPLE, folder / "source")  # building leaves files behind
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation",
         "--target", str(folder / "site"), str(source)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": str(folder / "site")}


def test_the_engine_is_listed_examined_and_optimised(cli, plugins):
    listed = {row["engine"]: row for row in json.loads(cli.run("engines", "--json", env=plugins).out)}
    assert listed["parrot"]["available"]
    assert listed["parrot"]["version"] == "1.0"
    examined = cli.run("engines", "doctor", "parrot", "--json", env=plugins)
    assert examined.code == 0, examined.err
    assert json.loads(examined.out)[0]["findings"][0]["id"] == "fine"

    arguments = ("--engine", "parrot", "--model", "a/bird", "--dataset", "korean_math_easy", "--samples", "4")
    ran = cli.run("optimize", *arguments, "--trials", "3", "--name", "study", env=plugins)
    assert ran.code == 0, ran.err
    result = json.loads((cli.folder / "optimization_results" / "study" / "result.json").read_text("utf-8"))
    assert result["command"]["engine"] == "parrot"
    assert result["command"]["engine_version"] == "1.0"
    assert result["verdict"]["kind"] in {"better", "equivalent", "tie", "undecided"}
    assert all(trial["outcome"] in {"done", "raced_out"} for trial in result["trials"])


def test_without_the_package_its_engine_is_unknown(cli):
    ran = cli.run("optimize", "--engine", "parrot", "--model", "a/bird")
    assert ran.code == 2


def test_the_evaluator_is_loaded_by_name_and_asked(cli, plugins):
    path = f"{plugins['PYTHONPATH']}:{ROOT}"
    ran = subprocess.run(
        [sys.executable, "-c", API],
        check=False, capture_output=True, text=True, cwd=cli.folder, env={**cli.environment(), "PYTHONPATH": path},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout.split()[-1]) == 1.0, "its own best: temperature 0"


def test_the_evaluator_of_whole_runs_is_named_on_the_command_line(cli, plugins):
    rows = [{"question": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(8)]
    data = cli.folder / "items.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    wanted = ("optimize", "--model", "a/bird", "--dataset", str(data), "--evaluator", "calm", "--trials", "6")
    ran = cli.run(*wanted, "--name", "study", "--json", env=plugins)
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["best"]["score"] == 1.0, "its own best: temperature 0"
    assert not found["best"]["request"].get("temperature")
    shown = cli.run(*wanted, "--name", "shown", env={**plugins, "LLMOPT_LANG": "ko"})
    assert shown.code == 0, shown.err
    assert "calm" in shown.out
    assert cli.run(*wanted, "--name", "without").code == 2, "unknown without its package"


def test_the_scorer_of_single_answers_is_named_on_the_command_line(cli, plugins):
    wanted = ("--dry-run", "--dataset", "korean_math_easy", "--samples", "8", "--repeats", "1", "--json")
    ran = cli.run("benchmark", *wanted, "--evaluator", "last_digit", env={**plugins, **FAST})
    assert ran.code == 0, ran.err
    side = ran.events[-1]["result"]["sides"][0]
    assert side["quality_measure"] == "evaluator"
    again = json.loads(cli.run("rescore", "--evaluator", "last_digit", "--json", env=plugins).out)
    assert again["evaluator"] == "last_digit"
    assert [trial["changed"] for trial in again["trials"]] == [[]]
