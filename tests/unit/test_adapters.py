"""Published benchmarks, read from rows we wrote ourselves in each one's own schema; the hub is a fake, or silent."""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from llmopt.errors import DataError, WeightsError
from llmopt.measure.quality import score
from llmopt.paths import Workspace
from llmopt.records import Sample
from llmopt.workload.adapters import ADAPTERS, named_benchmark
from llmopt.workload.adapters.hub import choose_files
from llmopt.workload.datasets import dataset_names, load_dataset
from llmopt.workload.prompts import render

FIXTURES = Path(__file__).parents[1] / "fixtures" / "benchmarks"


@pytest.fixture
def workspace(tmp_path):
    return Workspace(root=tmp_path)


def load(name, workspace, **options):
    return load_dataset(name, workspace=workspace, **options)


def reply(item, text):
    return score(item, Sample(item_id=item.id, planned_s=0, sent_s=0, ended_s=1, text=text, finish_reason="stop"))


CASES = [
    # name with path, kind, a right and a wrong reply to the first row; each file keeps three rows
    ("hrm8k:hrm8k.csv", "numeric", "12 + 5 = 17\n정답: 17개입니다.", "정답: 16"),
    ("kmmlu/Law:kmmlu-test.csv", "choice", "정답: B", "정답: C"),
    ("kobest/boolq:kobest-boolq.jsonl", "choice", "A. 아니오", "예"),
    ("kobest/copa:kobest-copa.jsonl", "choice", "정답: A", "정답: B"),
    ("kobest/wic:kobest-wic.jsonl", "choice", "다르다", "같다"),
    ("kobest/hellaswag:kobest-hellaswag.jsonl", "choice", "A", "B"),
    ("kobest/sentineg:kobest-sentineg.jsonl", "choice", "긍정", "부정"),
    ("haerae/rare_words:haerae.csv", "choice", "(A)", "(B)"),
    ("click:click.jsonl", "choice", "정답: 세배", "정답: 씨름"),
    ("korquad:korquad.json", "qa", "정답: 두솔강입니다.", "정답: 가람강"),
    ("klue_mrc:klue_mrc.jsonl", "qa", "4월에", "5월"),
    ("ifeval_ko:ifeval_ko.jsonl", "instructions", "봄은 따뜻하다.", "봄은, 따뜻하다."),
    ("gsm8k:gsm8k-test.jsonl", "numeric", "The answer is 12.", "The answer is 13."),
    ("mmlu:mmlu.jsonl", "choice", "Answer: B", "Answer: A"),
]


@pytest.mark.parametrize(("name", "kind", "right", "wrong"), CASES, ids=[case[0] for case in CASES])
def test_rows_of_each_schema_become_items_that_can_be_put_and_scored(workspace, name, kind, right, wrong):
    head, _, file = name.partition(":")
    dataset = load(f"{head}:{FIXTURES / file}", workspace)
    measured = [item for item in dataset.items if item.split != "examples"]
    assert len(measured) == 3
    assert {item.kind for item in dataset.items} == {kind}
    first = measured[0]
    assert reply(first, right).value == 1.0
    assert reply(first, wrong).value == 0.0
    text = render(first, "zero_shot", dataset)[-1]["content"]
    assert first.question in text
    assert any(key == "data.protocol" for key, _ in dataset.notes)


def test_every_adapter_is_tried_here_and_is_a_name():
    tried = {name.split(":")[0].split("/")[0] for name, *_ in CASES}
    assert tried == set(ADAPTERS)
    assert set(ADAPTERS) < set(dataset_names())


def test_five_options_are_all_readable(workspace):
    dataset = load(f"click:{FIXTURES / 'click.jsonl'}", workspace)
    fifth = next(item for item in dataset.items if item.id == "made_3")
    assert "E. 다섯" in render(fifth, "zero_shot", dataset)[-1]["content"]
    assert reply(fifth, "정답: E").value == 1.0
    assert ("data.not_askable", {"count": 1}) in dataset.notes


def test_options_a_query_lists_itself_are_not_listed_twice(workspace):
    dataset = load(f"haerae:{FIXTURES / 'haerae.csv'}", workspace)
    text = render(dataset.items[0], "zero_shot", dataset)[-1]["content"]
    assert text.count("한낮") == 1
    other = render(dataset.items[1], "zero_shot", dataset)[-1]["content"]
    assert "A. 누리집" in other


def test_a_folder_is_searched_for_its_splits_and_gives_examples(workspace, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("gsm8k-test.jsonl", "gsm8k-train.jsonl"):
        (folder / name).write_bytes((FIXTURES / name).read_bytes())
    dataset = load(f"gsm8k:{folder}", workspace)
    assert len(dataset.split("examples")) == 2
    assert dataset.language == "en"
    messages = render(dataset.split("search")[0], "examples", dataset)
    assert messages[1]["content"].endswith("Answer: 5")
    assert "<<" not in messages[1]["content"]


def test_an_unanswerable_question_wants_to_be_told_so(workspace):
    dataset = load(f"klue_mrc:{FIXTURES / 'klue_mrc.jsonl'}", workspace)
    item = next(item for item in dataset.items if item.id == "k2")
    assert reply(item, "글에 나와 있지 않습니다.").value == 1.0
    assert reply(item, "5,000원").value == 0.0


def test_unknown_subsets_are_named_with_near_ones():
    with pytest.raises(DataError) as caught:
        named_benchmark("kobest/hellaswagg")
    assert caught.value.values["near"] == "hellaswag"
    assert named_benchmark("nothing") is None
    assert named_benchmark("kmmlu/Public-Safety").subset == "Public-Safety"


def test_a_column_that_is_missing_is_named_with_near_ones(workspace, tmp_path):
    path = tmp_path / "kmmlu.csv"
    path.write_text("question,answr,A,B,C,D\n무엇?,1,가,나,다,라\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load(f"kmmlu:{path}", workspace)
    assert caught.value.key == "data.no_column"
    assert caught.value.values["near"] == "answr"


@pytest.mark.parametrize(
    ("names", "subset", "split", "chosen"),
    [
        (["README.md", "Law-test.csv", "Law-dev.csv", "Math-test.csv"], "Law", "test", ["Law-test.csv"]),
        (["data/test.jsonl", "data/train.jsonl"], "", "test", ["data/test.jsonl"]),
        (["boolq/test.jsonl", "copa/test.jsonl"], "copa", "test", ["copa/test.jsonl"]),
        (["OMNI_MATH/test.csv", "MATH/test.csv"], "OMNI_MATH", "test", ["OMNI_MATH/test.csv"]),
        (["latest/notes.txt", "testimony.csv"], "", "test", []),
    ],
)
def test_files_of_a_repository_are_chosen_by_whole_words(names, subset, split, chosen):
    assert choose_files(names, subset, split) == chosen


def test_the_hub_is_asked_once_and_its_files_are_kept(workspace, monkeypatch):
    asked = []

    def listing(repo, **options):
        asked.append(repo)
        return ["main/test.jsonl", "main/train.jsonl"]

    def download(repo, name, *, local_dir, **options):
        target = Path(local_dir) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((FIXTURES / f"gsm8k-{target.stem}.jsonl").read_bytes())
        return str(target)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *a, **k: None)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", listing)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    first = load("gsm8k", workspace)
    assert len(first.split("search")) + len(first.split("confirm")) == 3
    monkeypatch.setattr(huggingface_hub, "list_repo_files", None)
    assert load("gsm8k", workspace).fingerprint == first.fingerprint
    assert asked == ["openai/gsm8k", "openai/gsm8k"]


def test_a_hub_that_does_not_answer_is_one_clear_sentence(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from llmopt.errors import WeightsError\n"
        "from llmopt.paths import Workspace\n"
        "from llmopt.workload.datasets import load_dataset\n"
        "try:\n"
        "    load_dataset('kobest', workspace=Workspace(root=pathlib.Path(sys.argv[1])))\n"
        "except WeightsError as problem:\n"
        "    print(problem.key, problem.exit_code, problem.what, problem.next_step)\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "LANG": "C", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("data.hub_silent 6 ")
    assert "http://127.0.0.1:9" in done.stdout
    assert "kobest:PATH" in done.stdout


def test_a_repository_without_the_files_says_what_to_do(workspace, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *a, **k: None)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *a, **k: ["README.md"])
    with pytest.raises(WeightsError) as caught:
        load("click", workspace)
    assert caught.value.key == "data.hub_files"
