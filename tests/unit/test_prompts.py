"""Prompt forms: what is asked, in which language, with which examples."""

import pytest

from llmopt.measure.quality import score
from llmopt.paths import Workspace
from llmopt.records import Dataset, Item, Sample
from llmopt.workload.datasets import load_dataset
from llmopt.workload.prompts import DEFAULT_FORM, PROMPT_FORMS, answer_label, forms_for, render


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    workspace = Workspace(root=tmp_path_factory.mktemp("w"))
    return {name: load_dataset(name, workspace=workspace, size=40) for name in ("korean_math", "korean_qa")}


def dataset(*items, language="ko"):
    return Dataset(name="d", items=items, fingerprint="f", language=language)


@pytest.mark.parametrize("name", ["korean_math", "korean_qa"])
@pytest.mark.parametrize("form", PROMPT_FORMS)
def test_every_form_ends_with_the_question(sets, name, form):
    for item in sets[name].split("search")[:8]:
        messages = render(item, form, sets[name])
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"]
        assert item.question in messages[-1]["content"]
        assert all(option in messages[-1]["content"] for option in item.options)
        assert str(item.meta.get("context", "")) in messages[-1]["content"]
        assert (len(messages) == 7) is form.startswith("examples")
        assert "solution" not in messages[-1]["content"]


@pytest.mark.parametrize("name", ["korean_math", "korean_qa"])
def test_the_shown_answers_are_right_by_our_own_scoring(sets, name):
    for item in sets[name].split("search")[:12]:
        messages = render(item, "examples", sets[name])
        shown = {e.question: e for e in sets[name].split("examples")}
        for question, answer in zip(messages[0:-1:2], messages[1::2], strict=True):
            example = next(e for text, e in shown.items() if text in question["content"])
            sample = Sample(item_id=example.id, planned_s=0, sent_s=0, ended_s=1, text=answer["content"])
            found = score(example, sample)
            assert (found.value, found.status.value, found.rule) == (1.0, "ok", "marker")


def test_examples_are_from_neither_measured_split(sets):
    for data in sets.values():
        measured = {item.question for side in ("search", "confirm") for item in data.split(side)}
        for item in data.split("search")[:10]:
            for message in render(item, "examples", data)[:-1]:
                assert not any(text in message["content"] for text in measured)


def test_examples_are_the_same_for_all_items_of_a_kind(sets):
    data = sets["korean_qa"]
    for kind in ("qa", "choice"):
        shown = {str(render(item, "examples", data)[:-1]) for item in data.split("search") if item.kind == kind}
        assert len(shown) == 1


def test_the_contract_is_asked_for_except_where_a_bare_answer_is(sets):
    item = sets["korean_math"].split("search")[0]
    texts = {form: render(item, form, sets["korean_math"])[-1]["content"] for form in PROMPT_FORMS}
    assert "정답: <값>" in texts["zero_shot"]
    assert "정답: <값>" in texts["step_by_step"]
    assert "한 단계씩" in texts["step_by_step"]
    assert "정답" not in texts["answer_only"]
    assert texts["examples"] == item.question
    assert len(set(texts.values())) == 4
    assert render(item, None, sets["korean_math"])[-1]["content"] == texts[DEFAULT_FORM]


def test_english_sets_are_asked_in_english():
    item = Item(id="1", question="What is 2 + 3?", answers=("5",))
    data = dataset(item, language="en")
    text = render(item, "zero_shot", data)[-1]["content"]
    assert "Answer: <value>" in text
    assert answer_label(data) == "Answer"
    assert text.isascii()


def test_a_system_message_comes_first():
    item = Item(id="1", question="2 + 3?", answers=("5",))
    messages = render(item, "zero_shot", dataset(item), system="짧게 답하세요.")
    assert messages[0] == {"role": "system", "content": "짧게 답하세요."}


def test_open_questions_are_put_as_they_are():
    item = Item(id="1", question="시를 쓰세요.", kind="open")
    assert render(item, "examples", dataset(item))[-1]["content"] == "시를 쓰세요."
    assert forms_for(dataset(item)) == (DEFAULT_FORM,)


def test_forms_a_dataset_cannot_fill_are_not_offered():
    bare = Item(id="1", question="2 + 3?", answers=("5",))
    shown = Item(id="2", question="1 + 1?", answers=("2",), split="examples")
    worked = Item(id="3", question="1 + 2?", answers=("3",), split="examples", meta={"solution": "1 + 2 = 3"})
    assert forms_for(dataset(bare)) == ("zero_shot", "answer_only", "step_by_step")
    assert forms_for(dataset(bare, shown)) == ("zero_shot", "answer_only", "examples", "step_by_step")
    assert forms_for(dataset(bare, shown, worked)) == PROMPT_FORMS
    assert forms_for(dataset(bare, shown, worked))[0] == DEFAULT_FORM


def test_an_example_without_working_shows_its_answer_alone():
    bare = Item(id="1", question="2 + 3?", answers=("5",))
    shown = Item(id="2", question="1 + 1?", answers=("2",), split="examples")
    assert render(bare, "examples", dataset(bare, shown))[1]["content"] == "정답: 2"


def test_without_examples_the_form_falls_back_to_the_contract():
    bare = Item(id="1", question="2 + 3?", answers=("5",))
    assert "정답: <값>" in render(bare, "examples", dataset(bare))[-1]["content"]


def test_an_unknown_form_is_a_programmers_error():
    item = Item(id="1", question="2 + 3?", answers=("5",))
    with pytest.raises(KeyError):
        render(item, "poem", dataset(item))


def test_reading_questions_say_what_to_do_where_the_text_is_silent(sets):
    item = next(i for i in sets["korean_qa"].split("search") if i.kind == "qa")
    assert "알 수 없음" in render(item, "zero_shot", sets["korean_qa"])[-1]["content"]
