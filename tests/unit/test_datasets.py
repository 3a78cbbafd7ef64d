"""Datasets by name, path and rows: drawn by seed, split by hash, refused in one clear sentence."""

import json
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import DataError
from llmopt.paths import MARKER, Workspace
from llmopt.records import Item
from llmopt.workload.columns import guess_columns, resolve_columns
from llmopt.workload.datasets import GENERATED, dataset_names, load_dataset, read_generated, subset, view_columns
from llmopt.workload.splits import assign_splits, draw
from llmopt.workload.user_data import option_letter


@pytest.fixture
def workspace(tmp_path):
    return Workspace(root=tmp_path)


def load(source, workspace, **options):
    return load_dataset(source, workspace=workspace, **options)


def refused(source, workspace, **options):
    with pytest.raises(DataError) as caught:
        load(source, workspace, **options)
    assert caught.value.what
    assert caught.value.next_step
    return caught.value


def rows(count, **extra):
    return [{"question": f"{n} 더하기 1은?", "answer": str(n + 1), **extra} for n in range(count)]


# ── generated sets ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [name for name in GENERATED if name not in {"korean_qa_16k", "korean_qa_all"}])
def test_a_generated_set_is_written_once_and_read_back_the_same(workspace, name):
    first = load(name, workspace, size=16)
    files = [path for path in workspace.data.iterdir() if path.name != MARKER]
    assert len(files) == 1
    assert (workspace.data / MARKER).exists()
    stamp = files[0].stat().st_mtime_ns
    again = load(name, workspace, size=16)
    assert again == first
    assert files[0].stat().st_mtime_ns == stamp
    measured = [item for item in first.items if item.split != "examples"]
    assert len(measured) == 16
    assert all(first.split(side) for side in ("search", "confirm", "examples"))


def test_another_seed_or_size_is_another_set(workspace):
    prints = {load("korean_qa", workspace, seed=s, size=n).fingerprint for s, n in ((0, 20), (1, 20), (0, 21))}
    assert len(prints) == 3


def test_templates_of_the_splits_are_apart(workspace):
    for name in ("korean_math", "korean_qa"):
        dataset = load(name, workspace, size=80)
        sides = [{item.cluster for item in dataset.split(side)} for side in ("search", "confirm", "examples")]
        assert not sides[0] & sides[1]
        assert not sides[2] & (sides[0] | sides[1])


def test_the_file_says_what_it_is_and_no_prompt_holds_its_canary(workspace):
    dataset = load("korean_qa", workspace, size=8)
    header = json.loads(Path(dataset.source).read_text(encoding="utf-8").split("\n", 1)[0])
    assert header["llmopt_dataset"] == "korean_qa"
    guid = header["canary"].rsplit(" ", 1)[1]
    assert all(guid not in json.dumps(item.meta) + item.question for item in dataset.items)


@pytest.mark.parametrize(
    "damage", [lambda s: s[: len(s) // 2], lambda s: s.replace("question", "query"), lambda s: "{}\n"]
)
def test_a_damaged_file_is_refused(workspace, damage):
    dataset = load("korean_qa", workspace, size=8)
    text = Path(dataset.source).read_text(encoding="utf-8")
    Path(dataset.source).write_text(damage(text), encoding="utf-8")
    error = refused("korean_qa", workspace, size=8)
    assert error.key in {"data.generated_damaged", "data.json"}


def test_an_edited_file_has_another_fingerprint(workspace):
    dataset = load("korean_qa", workspace, size=8)
    text = Path(dataset.source).read_text(encoding="utf-8")
    changed = text.replace("무엇인가요", "무엇입니까").replace("누구인가요", "누구입니까")
    Path(dataset.source).write_text(changed, encoding="utf-8")
    assert load("korean_qa", workspace, size=8).fingerprint != dataset.fingerprint
    assert len(read_generated(Path(dataset.source))) == len(dataset.items)


# ── users' rows ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given_rows", "kind"),
    [
        ([{"question": "2+3?", "answer": "5"}, {"question": "값?", "answer": "35,000원"}], "numeric"),
        ([{"question": "2+3?", "answer": 5}, {"question": "값?", "answer": "3만 5천"}], "numeric"),
        ([{"question": "몇 명?", "answer": "스무 명"}, {"question": "얼마?", "answer": "7/2"}], "numeric"),
        ([{"question": "몇 개?", "answer": "열일곱 개"}, {"question": "얼마?", "answer": "약 3분의 2"}], "numeric"),
        ([{"질문": "수도?", "정답": "서울"}, {"질문": "2+3?", "정답": "5"}], "qa"),
        ([{"질문": "과일?", "정답": "사과"}, {"질문": "나라?", "정답": "일본"}, {"질문": "새?", "정답": "백조"}], "qa"),
        ([{"질문": "언제?", "정답": "오후 3시 5분"}, {"질문": "언제?", "정답": "15:05"}], "qa"),
        ([{"질문": "언제?", "정답": "3월 14일"}], "qa"),
        ([{"instruction": "시를 쓰세요."}, {"instruction": "편지를 쓰세요."}], "open"),
        ([{"question": "고르세요", "choices": ["가", "나"], "answer": "나"}], "choice"),
        ([{"question": "고르세요", "options": '["가", "나"]', "answer": 2}], "choice"),
        ([{"prompt": "JSON으로", "schema": {"type": "object"}}], "json"),
        ([{"prompt": "JSON으로", "schema": '{"type": "object"}'}], "json"),
    ],
)
def test_kinds_are_recognised(workspace, given_rows, kind):
    dataset = load(given_rows, workspace)
    assert {item.kind for item in dataset.items} == {kind}
    assert len(dataset.items) == len(given_rows)


def test_several_accepted_answers(workspace):
    dataset = load(
        [{"question": "임금?", "answers": ["세종", "세종대왕"]}, {"question": "강?", "answers": '["한강"]'}], workspace
    )
    assert {item.answers for item in dataset.items} == {("세종", "세종대왕"), ("한강",)}


def test_all_columns_find_their_place(workspace):
    row = {
        "문제": "몇 원?",
        "정답": "5",
        "지문": "글",
        "난이도": "3",
        "묶음": "t1",
        "단위": "원",
        "해설": "2 + 3 = 5",
        "번호": "q-1",
    }
    item = load([row], workspace).items[0]
    assert (item.id, item.level, item.cluster, item.unit) == ("q-1", 3, "t1", "원")
    assert item.meta["context"] == "글"
    assert item.meta["solution"] == "2 + 3 = 5"


def test_columns_by_argument(workspace):
    data = [{"내용": "수도?", "맞는 말": "서울", "question": "안 쓰는 열"}]
    item = load(data, workspace, columns={"question": "내용", "answer": "맞는 말"}).items[0]
    assert (item.question, item.answers) == ("수도?", ("서울",))


def test_unnamed_rows_get_ids_by_content(workspace):
    one = load(rows(30), workspace)
    two = load(rows(30)[::-1], workspace)
    assert {i.id: i.split for i in one.items} == {i.id: i.split for i in two.items}


def test_rows_without_question_or_answer_are_left_out_and_told(workspace):
    data = [*rows(4), {"question": "", "answer": "3"}, {"question": "빈 답?", "answer": ""}, rows(1)[0]]
    dataset = load(data, workspace)
    assert len(dataset.items) == 4
    assert dict(dataset.notes) == {
        "data.repeated": {"count": 1},
        "data.no_question_rows": {"count": 1},
        "data.unanswered": {"count": 1},
    }


def test_a_declared_kind_of_each_row(workspace):
    data = [{"question": "수?", "answer": "5", "kind": "numeric"}, {"question": "말?", "answer": "5", "kind": "qa"}]
    assert [item.kind for item in load(data, workspace).items] == ["numeric", "qa"]


def test_declared_splits_are_kept(workspace):
    data = [
        {"question": str(n), "answer": "1", "split": side} for n, side in enumerate(("search", "confirm", "examples"))
    ]
    assert [item.split for item in load(data, workspace).items] == ["search", "confirm", "examples"]


def test_worked_examples_from_a_file(workspace, tmp_path):
    path = tmp_path / "shots.jsonl"
    path.write_text('{"question": "1+1?", "answer": "2", "solution": "1 + 1 = 2"}\n', encoding="utf-8")
    dataset = load(rows(40), workspace, examples=path)
    assert [item.question for item in dataset.split("examples")] == ["1+1?"]
    assert len(dataset.split("search")) + len(dataset.split("confirm")) == 40


def test_a_file_in_the_data_folder_goes_by_its_name(workspace):
    workspace.data.mkdir()
    (workspace.data / "회사문제.csv").write_text("질문,정답\n수도?,서울\n", encoding="cp949")
    assert load("회사문제", workspace).items[0].answers == ("서울",)


@pytest.mark.parametrize(
    ("source", "options", "key"),
    [
        ("korean_maht", {}, "data.unknown"),
        ("none/such.csv", {}, "data.no_file"),
        ("such.csv", {}, "data.no_file"),
        ("", {}, "data.is_folder"),
        ("korean_qa", {"size": 0}, "data.size"),
        ([], {}, "data.empty"),
        (["text"], {}, "data.not_an_object"),
        ([{"qestion": "?", "answer": "1"}], {}, "data.no_question"),
        (rows(2), {"columns": {"question": "qestion"}}, "data.no_column"),
        (rows(2), {"columns": {"frage": "question"}}, "data.unknown_field"),
        (rows(2), {"kind": "numbers"}, "data.unknown_kind"),
        ([{"question": "수?", "answer": "다섯시쯤 아닐까"}], {"kind": "numeric"}, "data.not_a_number"),
        ([{"question": "수?", "answer": "사과"}], {"kind": "numeric"}, "data.not_a_number"),
        ([{"question": "수?", "answer": "일본"}], {"kind": "numeric"}, "data.not_a_number"),
        ([{"question": "?", "options": ["가", "나"], "answer": "다"}], {}, "data.not_an_option"),
        ([{"question": "?", "options": ["가", "나"], "answer": "3"}], {}, "data.not_an_option"),
        ([{"question": "", "answer": "1"}], {}, "data.nothing_usable"),
        (
            [{"id": 1, "question": "가?", "answer": "1"}, {"id": 1, "question": "나?", "answer": "2"}],
            {},
            "data.duplicate_id",
        ),
    ],
)
def test_bad_input_is_one_clear_sentence(workspace, source, options, key):
    assert refused(source, workspace, **options).key == key


def test_near_names_are_offered(workspace):
    assert "korean_math" in refused("korean_maht", workspace).values["near"]
    assert refused([{"qestion": "?"}], workspace).values["near"] == "qestion"
    assert refused(rows(1), workspace, columns={"question": "quesion"}).values["near"] == "question"
    assert refused(rows(1), workspace, kind="nummeric").values["near"] == "numeric"


def test_the_line_of_a_wrong_gold_is_named(workspace, tmp_path):
    path = tmp_path / "gold.csv"
    path.write_text("question,answer\n1?,1\n2?,둘쯤 된다\n", encoding="utf-8")
    error = refused(path, workspace, kind="numeric")
    assert (error.values["line"], error.values["value"]) == (3, "둘쯤 된다")


def test_a_duplicate_id_names_both_lines(workspace, tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("id,question,answer\na,1?,1\nb,2?,2\na,3?,3\n", encoding="utf-8")
    error = refused(path, workspace)
    assert (error.values["id"], error.values["first"], error.values["second"]) == ("a", 2, 4)


# ── drawing and splitting ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_large_set_is_drawn_by_seed_with_memory_that_does_not_grow(workspace):
    def stream(count):
        return ({"id": str(n), "question": f"{n}?", "answer": str(n)} for n in range(count))

    peaks = []
    for count in (20_000, 80_000):
        tracemalloc.start()
        dataset = load(stream(count), workspace, size=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(dataset.items) == 100
        assert ("data.drawn", {"size": 100, "total": count, "seed": 0}) in dataset.notes
    assert peaks[1] < 1.5 * peaks[0]
    again, other = load(stream(2000), workspace, size=50), load(stream(2000), workspace, size=50, seed=1)
    assert again == load(stream(2000), workspace, size=50)
    assert {i.id for i in again.items} != {i.id for i in other.items}


def test_without_a_size_a_thousand_rows_are_drawn(workspace):
    assert len(load(rows(1500), workspace).items) == 1000


@given(st.lists(st.integers(0, 60), max_size=80), st.integers(0, 30), st.integers(0, 5))
def test_a_draw_depends_on_the_set_of_ids_only(numbers, size, seed):
    pairs = [(str(n), n) for n in dict.fromkeys(numbers)]
    shuffled = random.Random(3).sample(pairs, len(pairs))
    drawn = [name for name, _ in draw(pairs, size, seed)][:size]
    assert drawn == [name for name, _ in draw(shuffled, size, seed)][:size]
    assert len(drawn) == min(size, len(pairs))


@given(st.integers(1, 120), st.integers(1, 30), st.booleans())
def test_clusters_never_span_splits(count, clusters, examples):
    items = [Item(id=str(n), question="?", cluster=f"c{n % clusters}") for n in range(count)]
    split = assign_splits(items, examples=examples)
    sides = {}
    for item in split:
        assert sides.setdefault(item.cluster, item.split) == item.split
    if not examples:
        assert "examples" not in sides.values()


@pytest.mark.parametrize("count", [2, 5, 16, 39, 40, 200, 1000])
def test_halves_are_nearly_even(count):
    split = assign_splits([Item(id=f"i{n}", question="?") for n in range(count)], examples=True)
    sides = [sum(item.split == side for item in split) for side in ("search", "confirm")]
    assert min(sides) >= 0.3 * max(sides)


def test_growing_a_large_set_moves_no_item_to_the_other_half():
    items = [Item(id=f"i{n}", question="?") for n in range(400)]
    small = {i.id: i.split for i in assign_splits(items[:200], examples=False)}
    large = {i.id: i.split for i in assign_splits(items, examples=False)}
    assert all(large[name] == side for name, side in small.items())


def test_a_subset_spreads_over_clusters(workspace):
    dataset = load("korean_qa", workspace, size=200)
    chosen = subset(dataset, "search", 30)
    assert len({item.cluster for item in chosen}) == 30
    assert chosen == subset(dataset, "search", 30)
    assert chosen[:10] == subset(dataset, "search", 10)
    assert chosen != subset(dataset, "search", 30, seed=1)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("나", "B"),
        ("B", "B"),
        ("(B)", "B"),
        ("b", "B"),
        ("②", "B"),
        ("2", "B"),
        ("2.", "B"),
        ("9", None),
        ("아니다", None),
    ],
)
def test_gold_options_in_every_spelling(answer, letter):
    assert option_letter(answer, ["가", "나", "다", "라"]) == letter


def test_an_option_that_is_itself_a_number_goes_by_its_text():
    assert option_letter("3", ["3", "4", "5"]) == "A"


def test_column_guesses():
    assert guess_columns(["ID", "Question ", "정답"]) == {"id": "ID", "question": "Question ", "answer": "정답"}
    assert guess_columns(["x", "y"]) == {}
    assert resolve_columns(["a", "b"], {"question": "a"}, source="x") == {"question": "a"}


def test_names_are_listed():
    assert {"korean_math", "korean_qa", "korean_knowledge", "kmmlu"} <= set(dataset_names())


def test_a_file_can_be_looked_at_before_its_columns_are_named(workspace, tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text("내용,맞는 말\n수도?,서울\n강?,한강\n산?,한라산\n들?,호남평야\n", encoding="cp949")
    view = view_columns(path, workspace=workspace)
    assert view.columns == ("내용", "맞는 말")
    assert view.guessed == {}
    assert len(view.rows) == 3
    with pytest.raises(DataError):
        view_columns(tmp_path / "none.csv", workspace=workspace)


@pytest.mark.parametrize("text", ["\\ud800", "9" * 5000])
def test_text_that_cannot_be_written_down_again_is_refused(tmp_path, text):
    rows = [f'{{"question": "q{n}", "answer": "{n}"}}' for n in range(3)]
    value = text if text[0] == "9" else f'"{text}"'
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([*rows, f'{{"question": {value}, "answer": "1"}}']), encoding="utf-8")
    with pytest.raises(DataError) as refused:
        load_dataset(path, workspace=Workspace(root=tmp_path))
    assert "4" in str(refused.value)
