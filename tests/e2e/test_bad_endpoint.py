"""Servers that cannot be measured: one clear sentence, the right code, in both languages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

from llmopt.engines.probing import worker

ASK = ("--dataset", "korean_math_easy", "--samples", "2", "--max-tokens", "8", "--repeats", "1")
HASTE = {"LLMOPT_REQUEST_TIMEOUT_S": "0.5", "LLMOPT_WARMUP_CAP_S": "0.5"}


@contextmanager
def serving(folder, script):
    """A server that somebody else runs, by a script; its address."""
    scenario = folder / "scenario.json"
    scenario.write_text(json.dumps(script))
    process = subprocess.Popen(
        [sys.executable, str(worker("fake_engine.py")), "--time-scale", "0.02", "--alias", "house", "--port", "0",
         "--scenario", str(scenario)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = next(line for line in process.stderr if "listening on" in line)
        yield re.search(r"listening on (http://\S+)", line)[1] + "/v1"
    finally:
        process.kill()
        process.communicate()


CASES = {
    "wrong model": ({}, "another", 5, {"en": "It serves: house", "ko": "제공하는 모델: house"}),
    "endless stream": ({"stream": ["endless"]}, "house", 5, {"en": "did not finish", "ko": "끝나지 않았습니다"}),
    "streams that break": ({"stream": ["early_eof"], "stream_at": 1}, "house", 5, {"en": "closed", "ko": "닫았습니다"}),
    "nothing said": ({"timing": {"at_ms": []}}, "house", 5, {"en": "None of", "ko": "하나도 없어"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_server_that_cannot_be_measured_is_one_sentence(inline, tmp_path, case):
    script, model, code, said = CASES[case]
    with serving(tmp_path, script) as url:
        for lang in ("en", "ko"):
            ran = inline.run(
                "benchmark", "--url", url, "--model", model, *ASK, "--name", f"b-{lang}", lang=lang, env=HASTE
            )
            assert ran.code == code, ran.err
            assert said[lang] in ran.err, ran.err
            assert "Traceback" not in ran.err
            assert not (inline.folder / "optimization_results" / f"b-{lang}" / "result.json").exists()
