"""An engine and an evaluator in a package of their own, installed by pip, work without a change here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests" / "fixtures" / "sample_plugin"
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
