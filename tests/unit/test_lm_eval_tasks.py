"""The bridge to lm-evaluation-harness: against a stand-in package always, against the real one where it is named."""

import os
import sys
import textwrap
from pathlib import Path

import pytest

from llmopt.errors import DataError
from llmopt.measure.quality import score
from llmopt.paths import Workspace
from llmopt.records import AnswerStatus, Sample
from llmopt.workload import lm_eval_tasks
from llmopt.workload.datasets import load_dataset
from llmopt.workload.lm_eval_tasks import INTERPRETER_VARIABLE, bridge_to, named_task
from llmopt.workload.prompts import forms_for, render

REAL = os.environ.get(INTERPRETER_VARIABLE)

# a package that behaves as lm_eval does where the bridge touches it, and prints where it should not
STAND_IN = """
from dataclasses import dataclass, field

print("noise on standard output")

@dataclass
class Request:
    doc: dict
    arguments: tuple
    task_name: str
    doc_id: int
    idx: int = 0
    resps: list = field(default_factory=list)
    filtered_resps: dict = field(default_factory=dict)

class Last:
    def apply(self, requests):
        for request in requests:
            request.filtered_resps["last"] = request.resps[0].split()[-1] if request.resps[0].split() else "[invalid]"

class Task:
    OUTPUT_TYPE = "generate_until"
    _filters = [Last()]
    def __init__(self, name, docs, metric="exact_match"):
        self.name, self.docs, self.metric = name, docs, metric
    def build_all_requests(self, *, limit, apply_chat_template, fewshot_as_multiturn, chat_template, tokenizer_name):
        self.instances = [
            Request(doc, (chat_template([{"role": "user", "content": doc["q"]}]), {"until": ["STOP"], "max_gen_toks": 16}),
                    self.name, n)
            for n, doc in enumerate(self.docs[:limit])
        ]
    def doc_to_target(self, doc):
        return doc["a"]
    def process_results(self, doc, results):
        if doc["q"] == "crash":
            raise RuntimeError("scoring broke")
        return {self.metric: float(results[0] == doc["a"])}

class Choice(Task):
    OUTPUT_TYPE = "multiple_choice"
    def build_all_requests(self, *, limit, apply_chat_template, **_):
        assert not apply_chat_template
        self.instances = [
            Request(doc, (doc["q"], " " + text), self.name, n, idx=idx)
            for n, doc in enumerate(self.docs[:limit]) for idx, text in enumerate((doc["a"], "none"))
        ]
    def process_results(self, doc, results):
        assert all(isinstance(log, float) and isinstance(greedy, bool) for log, greedy in results)
        return {"acc": float(results[0][0] > results[1][0])}

DOCS = [{"q": "capital?", "a": "Seoul"}, {"q": "river?", "a": "Han"}, {"q": "crash", "a": "x"}]
TASKS = {
    "capitals": {"capitals": Task("capitals", DOCS)},
    "choices": {"choices": Choice("choices", DOCS)},
    "group": {"capitals": Task("capitals", DOCS), "choices": Choice("choices", DOCS)},
    "odd": {"odd": Task("odd", DOCS, metric="bleu_tuple")},
}

class TaskManager:
    def __init__(self, include_path=None):
        self.include_path = include_path
        self.all_tasks = sorted(TASKS)
    def load(self, name):
        if name == "odd":
            TASKS["odd"]["odd"].process_results = lambda doc, results: {"bleu_tuple": (1, 2)}
        return {"tasks": TASKS[name]}
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    package = tmp_path / "site" / "lm_eval"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tasks.py").write_text(textwrap.dedent(STAND_IN))
    info = tmp_path / "site" / "lm_eval-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 9.9\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv(INTERPRETER_VARIABLE, sys.executable)
    bridge_to.cache_clear()
    yield Workspace(root=tmp_path)
    bridge_to(sys.executable).close()
    bridge_to.cache_clear()


def answered(item, text):
    return score(item, Sample(item_id=item.id, planned_s=0, sent_s=0, ended_s=1, text=text, finish_reason="stop"))


def refused(source, workspace):
    with pytest.raises(DataError) as caught:
        load_dataset(source, workspace=workspace)
    assert caught.value.what
    assert caught.value.next_step
    return caught.value


def test_a_task_is_put_and_scored_as_the_harness_does(stand_in):
    dataset = load_dataset("lm_eval:capitals", workspace=stand_in)
    first = next(item for item in dataset.items if item.id == "capitals/0")
    assert first.answers == ("Seoul",)
    assert first.meta["max_tokens"] == 16
    assert render(first, "zero_shot", dataset) == ({"role": "user", "content": "capital?"},)
    assert forms_for(dataset) == ("zero_shot",)
    found = answered(first, "it is Seoul")
    assert (found.value, found.extracted, found.rule) == (1.0, "Seoul", "last:exact_match")
    assert answered(first, "it is Busan").value == 0.0
    assert answered(first, "it is Seoul STOP or Busan").value == 1.0  # the task's stop string ends the answer


def test_an_invalid_extraction_is_no_answer(stand_in):
    dataset = load_dataset("lm_eval:capitals", workspace=stand_in)
    assert answered(dataset.items[0], "STOP").status is AnswerStatus.NO_ANSWER


def test_a_stored_run_is_scored_by_a_new_bridge(stand_in):
    dataset = load_dataset("lm_eval:capitals", workspace=stand_in)
    bridge_to(sys.executable).close()
    bridge_to.cache_clear()
    first = next(item for item in dataset.items if item.id == "capitals/1")
    assert answered(first, "the Han").value == 1.0


def test_likelihood_tasks_bring_their_pairs_and_are_scored_by_them(stand_in):
    dataset = load_dataset("lm_eval:choices", workspace=stand_in)
    first = next(item for item in dataset.items if item.id == "choices/0")
    assert first.meta["likelihood"] == [["capital?", " Seoul"], ["capital?", " none"]]
    assert answered(first, "[[-1.5, true], [-9.0, false]]").value == 1.0
    found = answered(first, "[[-9.5, true], [-9.0, false]]")
    assert (found.value, found.extracted, found.rule) == (0.0, "1", "likelihood:acc")


def test_an_unknown_task_names_near_ones(stand_in):
    error = refused("lm_eval:capitalss", stand_in)
    assert error.key == "data.lm_eval_unknown"
    assert "capitals" in error.values["near"]


def test_what_a_tasks_own_code_raises_is_one_clear_error(stand_in):
    dataset = load_dataset("lm_eval:capitals", workspace=stand_in)
    broken = next(item for item in dataset.items if item.id == "capitals/2")
    with pytest.raises(DataError) as caught:
        answered(broken, "x")
    assert caught.value.key == "data.lm_eval_failed"
    assert "scoring broke" in str(caught.value)
    assert answered(next(i for i in dataset.items if i.id == "capitals/0"), "Seoul").value == 1.0


def test_a_metric_that_is_no_share_is_refused(stand_in):
    dataset = load_dataset("lm_eval:odd", workspace=stand_in)
    with pytest.raises(DataError) as caught:
        answered(dataset.items[0], "Seoul")
    assert caught.value.key == "data.lm_eval_metric"


def test_a_bridge_that_dies_is_one_clear_error(stand_in, tmp_path):
    broken = tmp_path / "site" / "lm_eval" / "tasks.py"
    broken.write_text("import os; os._exit(3)")
    error = refused("lm_eval:capitals", stand_in)
    assert (error.key, error.values["status"]) == ("data.lm_eval_died", 3)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv(INTERPRETER_VARIABLE, raising=False)
    monkeypatch.setattr(lm_eval_tasks.importlib.util, "find_spec", lambda name: None)
    error = refused("lm_eval:gsm8k", Workspace(root=tmp_path))
    assert error.key == "data.no_lm_eval"
    assert "llmopt[lm-eval]" in error.next_step


def test_a_wrong_interpreter_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(INTERPRETER_VARIABLE, str(tmp_path / "none"))
    assert refused("lm_eval:gsm8k", Workspace(root=tmp_path)).key == "data.lm_eval_python"


def test_names_of_tasks(tmp_path):
    (tmp_path / "own.yaml").write_text("include: base\ntask: my_task\n")
    (tmp_path / "nameless.yaml").write_text("group: x\n")
    assert named_task("korean_qa") is None
    assert named_task("lm_eval:gsm8k") == ("gsm8k", "")
    assert named_task(f"lm_eval:{tmp_path}/my_task") == ("my_task", str(tmp_path))
    assert named_task(f"lm_eval:{tmp_path}/own.yaml") == ("my_task", str(tmp_path))
    for name, key in (("nameless.yaml", "data.lm_eval_no_task"), ("none.yaml", "data.no_file")):
        with pytest.raises(DataError) as caught:
            named_task(f"lm_eval:{tmp_path}/{name}")
        assert caught.value.key == key


TASK = """
task: made_capitals
dataset_path: json
dataset_kwargs: {{data_files: {data}}}
test_split: train
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 32, do_sample: false}}
metric_list:
  - {{metric: exact_match, ignore_case: true, ignore_punctuation: true}}
"""
REPLIES = ("서울", "서울.", "부산", "서울입니다", "", "The Han", "the han!", "hans", "도쿄 ", "도 쿄", "'도쿄'", "동경")


@pytest.mark.heavy
@pytest.mark.skipif(not REAL, reason=f"set {INTERPRETER_VARIABLE} to a Python with lm-eval")
def test_on_replayed_answers_our_exact_match_equals_lm_evals_item_by_item(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    data = tmp_path / "made.jsonl"
    gold = ("서울", "The Han", "도쿄")
    rows = [f'{{"question": "{n}?", "answer": "{answer}"}}\n' for n, answer in enumerate(gold)]
    data.write_text("".join(rows), encoding="utf-8")
    (tmp_path / "made.yaml").write_text(TASK.format(data=data), encoding="utf-8")
    workspace = Workspace(root=tmp_path)
    theirs = load_dataset(f"lm_eval:{tmp_path / 'made.yaml'}", workspace=workspace)
    ours = load_dataset(Path(data), workspace=workspace, kind="exact")
    by_question = {item.question: item for item in ours.items}
    compared = 0
    for item in theirs.items:
        for reply in REPLIES:
            mine = answered(by_question[item.question], reply)
            their = answered(item, reply)
            assert (mine.value, reply) == (their.value, reply)
            compared += 1
    assert compared == len(gold) * len(REPLIES)
    bridge_to(str(REAL)).close()
    bridge_to.cache_clear()
