"""The same weights on llama.cpp (wheel and native), transformers and vLLM: optimised and compared by the same commands.

Not part of the ordinary run: ``python -m pytest -m heavy tests/e2e/test_four_engines.py`` with the environments made by
``llmopt engines install transformers`` and ``… vllm`` and a ``llama-server`` on PATH (half an hour on two quiet cores).
``LLMOPT_FOUR_HOME`` keeps the workspace for a later, shorter run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINES = {"llamacpp", "llama-server", "transformers", "vllm"}


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_each_engine_is_optimised_and_all_stand_in_one_table(tmp_path):
    home = Path(os.environ.get("LLMOPT_FOUR_HOME") or tmp_path)
    listed = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "engines", "--json"],
        env={**os.environ, "LLMOPT_HOME": str(home)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    here = {row["engine"] for row in json.loads(listed.stdout) if row["available"]}
    if not here >= ENGINES:
        pytest.skip(f"not installed here: {', '.join(sorted(ENGINES - here))}")
    script = ROOT / "benchmarks" / "four_engines.py"
    subprocess.run([sys.executable, str(script), "--out", str(home)], check=True)
    told = json.loads((home / "four-engines.json").read_text(encoding="utf-8"))
    assert told["optimised"].keys() == ENGINES
    for one in told["optimised"].values():
        assert one["exit"] == 0, one
        assert one["outcomes"][0] == "done", one
    for name in ENGINES:
        assert f"engine={name}" in told["compared"]
