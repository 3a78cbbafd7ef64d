"""Quality without speed on the smallest real model: letters and likelihoods behind probes, answers asked only once."""

import json
import os
import sys
import textwrap

import pytest

FAST = {"LLMOPT_FAKE_TIME_SCALE": "0.02"}
# where lm_eval's package is touched for a task that is scored by likelihoods
STAND_IN = """
from dataclasses import dataclass

@dataclass
class Request:
    doc: dict
    arguments: tuple
    task_name: str
    doc_id: int
    idx: int

class Task:
    OUTPUT_TYPE = "multiple_choice"
    def build_all_requests(self, **_):
        docs = [("The capital of France is", [" Paris", " a banana"]), ("One, two, three,", [" purple", " four"])] * 4
        self.instances = [
            Request({"gold": n % 2}, (context, choice), "capitals", n, idx)
            for n, (context, choices) in enumerate(docs) for idx, choice in enumerate(choices)
        ]
    def doc_to_target(self, doc):
        return doc["gold"]
    def process_results(self, doc, results):
        return {"acc": float(max(range(len(results)), key=lambda n: results[n][0]) == doc["gold"])}

class TaskManager:
    def __init__(self, include_path=None):
        self.all_tasks = ["capitals"]
    def load(self, name):
        return {"tasks": {name: Task()}}
"""


@pytest.fixture
def lm_eval(cli):
    package = cli.folder / "site" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tasks.py").write_text(textwrap.dedent(STAND_IN))
    info = cli.folder / "site" / "lm_eval-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 9.9\n")
    path = os.pathsep.join(filter(None, [str(cli.folder / "site"), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "LLMOPT_LM_EVAL_PYTHON": sys.executable, **FAST}


def side(ran):
    assert ran.code == 0, ran.err
    return ran.events[-1]["result"]["sides"][0]


def phases(ran):
    return [event["phase"] for event in ran.events if event["event"] == "engine"]


@pytest.fixture
def letters(cli):
    path = cli.folder / "보기.jsonl"
    rows = [
        {"question": f"Which word is number {n}?", "options": ["stone", "river"], "answer": "river"} for n in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_letters_by_log_probabilities_and_every_answer_asked_once(cli, demo_model, letters):
    wanted = (
        "benchmark", "--model", str(demo_model), "--dataset", str(letters), "--samples", "4", "--quality-only",
        "--choices", "logprobs", "--json",
    )  # fmt: skip
    first = cli.run(*wanted, "--name", "one")
    found = side(first)
    assert phases(first), "an engine was started"
    assert found["statuses"] == {"ok": found["statuses"]["ok"]}, "every answer is a letter"
    assert found["figures"]["accuracy"]["n"] == 4
    assert "answers_per_minute" not in found["figures"]
    again = cli.run(*wanted, "--name", "two")
    assert phases(again) == [], "kept answers need no engine"
    assert side(again)["items"] == found["items"]


def test_likelihood_tasks_where_the_engine_proves_them(cli, demo_model, lm_eval):
    wanted = ("--dataset", "lm_eval:capitals", "--samples", "4")
    ran = cli.run("benchmark", "--model", str(demo_model), *wanted, "--quality-only", "--json", env=lm_eval)
    assert side(ran)["figures"]["accuracy"]["value"] == 1.0


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ("gives no log-likelihoods", "choose a task that generates answers", "scored by log-likelihoods")),
        ("ko", ("로그 가능도를 내지 못합니다", "답을 생성하는 과제를 고르세요", "로그 가능도로 채점")),
    ],
)
def test_likelihood_tasks_are_refused_on_an_engine_without_them(cli, lm_eval, language, said):
    what, next_step, untimed = said
    env = {**lm_eval, "LLMOPT_LANG": language}
    wanted = ("--dry-run", "--dataset", "lm_eval:capitals", "--samples", "4")
    refused = cli.run("benchmark", *wanted, "--quality-only", "--name", "refused", env=env)
    assert refused.code == 3
    assert what in refused.err
    assert next_step in refused.err
    timed = cli.run("optimize", *wanted, "--name", "timed", env=env)
    assert timed.code == 3
    assert untimed in timed.err
    assert "--quality-only" in timed.err
    assert "Traceback" not in refused.err + timed.err


def test_what_the_engine_cannot_do_is_refused(cli, letters):
    wanted = ("benchmark", "--dry-run", "--dataset", str(letters), "--samples", "4", "--choices", "logprobs")
    assert cli.run(*wanted, env=FAST).code == 2
    ran = cli.run(*wanted, "--quality-only", env=FAST)
    assert ran.code == 3
    assert "--choices generated" in ran.err
