"""The same weights on llama.cpp (wheel and native), transformers and vLLM: optimised and compared by the same commands.

Not part of the ordinary run: ``nox -s heavy`` (or ``python -m pytest -m heavy tests/e2e/test_four_engines.py``) with
``LLMOPT_FOUR_HOME`` naming a workspace in which ``llmopt engines install transformers`` and ``… vllm`` were run, and a
``llama-server`` on PATH; an engine that is not here is skipped. On two quiet cores a study takes 10 to 90 seconds where
nothing beats the baseline (where something does, confirming it takes eight launches or more), the comparison six
minutes. The workspace keeps what is done: a later run goes on, also with a study that was cut off.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "four_engines.py"
ENGINES = ("llamacpp", "llama-server", "transformers", "vllm")

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The workspace of all four."""
    given = os.environ.get("LLMOPT_FOUR_HOME")
    return Path(given) if given else tmp_path_factory.mktemp("four")


@pytest.fixture(scope="module")
def here(home):
    """The engines of this machine."""
    listed = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "engines", "--json"],
        env={**os.environ, "LLMOPT_HOME": str(home)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {row["engine"] for row in json.loads(listed.stdout) if row["available"]}


def run(home, *arguments):
    """The documented script in that workspace; what it summed up."""
    subprocess.run([sys.executable, str(SCRIPT), "--out", str(home), *arguments], check=True)
    return json.loads((home / "four-engines.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_optimised_by_the_same_command(home, here, name):
    if name not in here:
        pytest.skip(f"{name} is not installed here")
    told = run(home, "--engines", name, "--only", "optimise", "--trials", "2")
    one = told["optimised"][name]
    assert one["exit"] == 0, one
    assert one["outcomes"][0] == "done", one
    assert one["command"], "it says how to run what was found"


def test_all_of_them_stand_in_one_table(home, here):
    found = [name for name in ENGINES if name in here]
    if len(found) < len(ENGINES):
        pytest.skip(f"not installed here: {', '.join(sorted(set(ENGINES) - set(found)))}")
    compared = run(home, "--only", "compare")["compared"]
    assert [name for name in ENGINES if f"engine={name}" not in compared] == []
