"""Scores and statuses from stored text alone, and what is made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.errors import DataError, UsageError
from llmopt.measure import quality
from llmopt.measure.answers.choice import read_choice
from llmopt.measure.answers.status import hangul_share, is_korean
from llmopt.measure.evaluators.base import Evaluator, Scorer
from llmopt.measure.evaluators.builtin import Agreement
from llmopt.measure.evaluators.registry import evaluator_names, load_evaluator, scorer_for
from llmopt.measure.judging import judge_for
from llmopt.records import AnswerStatus, Dataset, Item, Sample, Score

NUMBER = Item(id="n", question="6 더하기 7은 얼마입니까?", answers=("13",), kind="numeric")
PLACE = Item(id="p", question="수도는 어디입니까?", answers=("서울",), kind="qa")
LETTER = Item(id="c", question="고르세요.", answers=("B",), kind="choice", options=("가위", "바위", "보"))
LONG = "이 문제를 차근차근 풀어 보면 다음과 같은 과정을 거치게 됩니다. "
ENGLISH = "Let us look at the passage carefully and find out which city is meant here. 정답: 서울"


def sample(text, *, item="n", **rest):
    return Sample(item_id=item, planned_s=0.0, sent_s=0.0, ended_s=1.0, text=text, **rest)


@pytest.mark.parametrize(
    ("item", "text", "rest", "status", "value"),
    [
        (NUMBER, "6 + 7 = 13\n정답: 13", {}, "ok", 1.0),
        (NUMBER, "정답: 14", {}, "ok", 0.0),
        (NUMBER, "", {}, "empty", 0.0),
        (NUMBER, " \n ", {}, "empty", 0.0),
        (NUMBER, "<think>음…</think>", {}, "empty", 0.0),
        (NUMBER, "잘 모르겠습니다.", {}, "no_answer_found", 0.0),
        (NUMBER, LONG, {"finish_reason": "length"}, "truncated", 0.0),
        (NUMBER, "<think>6 + 7은 13", {}, "truncated", 0.0),
        # a number in passing is no answer where the reply was cut off; a stated answer is
        (NUMBER, "먼저 6에 7을 더하면 13", {"finish_reason": "length"}, "truncated", 0.0),
        (NUMBER, "정답: 13\n설명을 덧붙이면", {"finish_reason": "length"}, "truncated", 1.0),
        (NUMBER, "13", {"error": "timed_out"}, "request_error", 0.0),
        (PLACE, "정답: 서울", {}, "ok", 1.0),
        (PLACE, ENGLISH, {}, "wrong_language", 1.0),
        (PLACE, "죄송하지만 그 질문에는 답변을 드릴 수 없습니다.", {}, "refused", 0.0),
        (PLACE, "I'm sorry, but I can't help with that.", {}, "refused", 0.0),
        (PLACE, LONG * 3, {}, "no_answer_found", 0.0),
        (LETTER, "정답: B", {}, "ok", 1.0),
        (LETTER, "정답: A", {}, "ok", 0.0),
        (LETTER, "글쎄요", {}, "no_answer_found", 0.0),
    ],
)
def test_every_status(item, text, rest, status, value):
    found = quality.score(item, sample(text, item=item.id, **rest))
    assert (found.status.value, found.value) == (status, value)
    assert found.counted is (status != "request_error")
    assert (found.extracted is None) <= (found.value == 0.0)


def test_all_statuses_occur_above():
    marks = [mark for mark in test_every_status.pytestmark if mark.name == "parametrize"]
    assert {case[3] for case in marks[0].args[1]} == {status.value for status in AnswerStatus}


@pytest.mark.parametrize(
    ("text", "korean"),
    [
        ("정답은 서울입니다", True),
        ("Seoul", True),  # too few letters to judge
        ("The capital of the country is Seoul of course", False),
        ("首都是首尔,这个答案来自文章的第一段落,请参考原文内容吧朋友", False),
        ("`a = compute_everything(argument)` 이렇게 계산하면 됩니다", True),
        (r"\(x + y = \text{many Latin letters here indeed}\) 이므로 답은 열입니다", True),
        ("답은 https://example.org/a/very/long/address/indeed 에 있습니다", True),
    ],
)
def test_the_hangul_rule(text, korean):
    assert is_korean(text) is korean


def test_the_items_own_foreign_words_do_not_count():
    item = Item(id="x", question="Transformer Architecture Optimization 팀의 장은?", answers=("Alexandra",))
    text = "Transformer Architecture Optimization 팀의 장은 Alexandra 입니다"
    assert is_korean(text, beside=item)
    assert not is_korean(text)


@given(st.text())
def test_the_share_is_a_share(text):
    share, letters = hangul_share(text)
    assert 0 <= share <= 1
    assert letters >= 0


OPTIONS = ("사과나무", "배나무", "감나무", "밤나무")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B. 배나무", "B"),
        ("Ｂ", "B"),
        ("②", "B"),
        ("2번", "B"),
        ("2", "B"),
        ("정답: B", "B"),
        ("정답은 B입니다.", "B"),
        ("정답: (B) 배나무", "B"),
        ("정답: 배나무", "B"),
        ("배나무입니다.", "B"),
        ("배나무", "B"),
        ("글을 보면 감나무가 아니라 배나무이다.\n정답: B", "B"),
        ("A는 아니고 C도 아니다.\n정답: B", "B"),
        (r"\boxed{B}", "B"),
        ("정답: A\n다시 보니\n정답: B", "B"),
        ("The answer is (B).", "B"),
        ("보기 가운데 B 를 고르겠습니다", "B"),
        ("옵션 2", "B"),
        ("보기 B", "B"),
        ("Ⓑ", "B"),
        ("정답은B", "B"),
        ("정답 - B", "B"),
        ("A는 틀리고 B가 맞다.", "B"),
        ("A가 정답이 아니라 ②번이 정답입니다.", "B"),
        ("정답은 두 번째 보기인 배나무입니다.", "B"),
        ("A와 B 중 하나입니다", None),
        ("정답: A 또는 B", None),
        ("정답: A, B", None),
        ("정답은 1번과 2번입니다", None),
        ("정답: 배나무 또는 감나무", None),
        ("The answer isolated here", None),
        ("정답: E", None),
        ("정답: 9번", None),
        ("모르겠습니다", None),
        ("Apple", None),
    ],
)
def test_letters_are_read(text, letter):
    assert read_choice(text, OPTIONS)[0] == letter


def test_the_rule_of_a_letter_is_named():
    assert read_choice("정답: B", OPTIONS)[1] == "marker"
    assert read_choice("B", OPTIONS)[1] == "first_line"
    assert read_choice("저는 B 를 고릅니다", OPTIONS)[1] == "only_letter"


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def dataset(*items, language="ko"):
    return Dataset(name="d", items=tuple(items), fingerprint="f", language=language)


def scored(name, value, status=AnswerStatus.OK):
    return Score(item_id=name, value=value, status=status)


def test_a_stored_run_is_scored_again_without_generating():
    samples = [sample("정답: 13"), sample("정답: 서울", item="p")]
    judge = judge_for(dataset(NUMBER, PLACE))
    scores = judge.scores({"n": NUMBER, "p": PLACE}, samples)
    assert [(s.item_id, s.value) for s in scores] == [("n", 1.0), ("p", 1.0)]
    assert scores == judge.scores({"n": NUMBER, "p": PLACE}, samples)


def test_repeats_are_averaged_by_item_first_and_failures_left_out():
    scores = [scored("a", 1.0), scored("a", 0.0), scored("b", 1.0), scored("b", 0.0, AnswerStatus.REQUEST_ERROR)]
    assert quality.by_item(scores) == {"a": 0.5, "b": 1.0}
    found = quality.quality([Item(id="a", question="?"), Item(id="b", question="?")], scores)
    assert found["accuracy"].value == 0.75
    assert found["accuracy"].n == 2
    assert quality.quality([], [scored("a", 0.0, AnswerStatus.REQUEST_ERROR)]) == {}


def test_status_rates_add_up():
    rates = quality.status_rates([scored("a", 1), scored("b", 0, AnswerStatus.EMPTY), scored("c", 0), scored("d", 0)])
    assert rates["empty"] == 0.25
    assert sum(rates.values()) == 1
    assert set(rates) == {status.value for status in AnswerStatus}
    assert sum(quality.status_rates([]).values()) == 0


# ── evaluators ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "kind", ["numeric", "qa", "exact", "char_f1", "choice", "json", "instructions", "open", "lm_eval"]
)
def test_built_in_scorers_keep_the_protocol(kind):
    scorer = scorer_for(kind)
    assert isinstance(scorer, Scorer)
    assert scorer.name == kind
    assert kind in evaluator_names()


def test_graded_and_exact_kinds():
    exact = Item(id="x", question="?", answers=("서울",), kind="exact")
    graded = Item(id="x", question="?", answers=("서울시",), kind="char_f1")
    assert quality.score(exact, sample("서울")).value == 1.0
    assert quality.score(exact, sample("서울입니다")).value == 0.0
    assert quality.score(graded, sample("서울")).value == pytest.approx(0.8)


def test_an_unknown_kind_names_near_ones():
    with pytest.raises(UsageError) as caught:
        scorer_for("nummeric")
    assert "numeric" in caught.value.values["near"]
    assert caught.value.what
    assert caught.value.next_step


class Half:
    name = "half"

    def read(self, item, reply, sample):
        from llmopt.measure.answers.reply import Reading

        return Reading(0.5, reply.text, "half")


class Judge:
    async def evaluate(self, model, dataset, params):
        return 0.7


def test_scorers_of_other_packages(monkeypatch):
    from importlib import metadata

    from llmopt.measure.evaluators import registry

    points = [
        metadata.EntryPoint("half", f"{__name__}:Half", "llmopt.evaluators.v1"),
        metadata.EntryPoint("judge", f"{__name__}:Judge", "llmopt.evaluators.v1"),
    ]
    monkeypatch.setattr(metadata.EntryPoint, "load", lambda self: {"half": Half, "judge": Judge}[self.name])
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    scorer_for.cache_clear()
    assert quality.score(Item(id="x", question="?", kind="half"), sample("무엇")).value == 0.5
    assert isinstance(load_evaluator("judge"), Evaluator)
    with pytest.raises(UsageError) as caught:
        scorer_for("judge")
    assert caught.value.key == "quality.not_a_scorer"
    scorer_for.cache_clear()


def test_agreement_with_a_reference_run():
    items = [Item(id=str(n), question="쓰세요.", kind="open") for n in range(4)]
    reference = {"0": sample("가을 하늘이 높고 푸르다", item="0"), "1": sample("눈이 온다", item="1")}
    scorer = Agreement(reference)
    same = quality.score(items[0], sample("가을 하늘이 높고 푸르다.", item="0"), scorer=scorer)
    near = quality.score(items[0], sample("가을 하늘이 푸르고 높다", item="0"), scorer=scorer)
    far = quality.score(items[0], sample("봄비가 내려 꽃이 피었다", item="0"), scorer=scorer)
    assert same.value == 1.0 > near.value > 0.3 > far.value
    missing = quality.score(items[2], sample("무엇이든", item="2"), scorer=scorer)
    assert (missing.status, missing.counted) == (AnswerStatus.OK, False)


# ── structured output ───────────────────────────────────────────────────────────────────────────────────────────────

SCHEMA = {
    "type": "object",
    "properties": {"이름": {"type": "string", "minLength": 1}, "나이": {"type": "integer", "minimum": 0}},
    "required": ["이름", "나이"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "value", "rule"),
    [
        ('{"이름": "가람", "나이": 3}', 1.0, "whole"),
        ('```json\n{"이름": "가람", "나이": 3}\n```', 1.0, "fenced"),
        ('결과는 다음과 같습니다. {"이름": "가람", "나이": 3} 입니다.', 1.0, "embedded"),
        ('{"이름": "가람"}', 0.0, "whole"),
        ('{"이름": "가람", "나이": "셋"}', 0.0, "whole"),
        ('{"이름": "가람", "나이": 3, "키": 1}', 0.0, "whole"),
        ('{"이름": "가람", "나이": true}', 0.0, "whole"),
    ],
)
def test_json_is_checked_against_its_schema(text, value, rule):
    item = Item(id="j", question="JSON으로", kind="json", meta={"schema": SCHEMA})
    found = quality.score(item, sample(text, item="j"))
    assert (found.value, found.rule) == (value, rule)


def test_json_without_json_is_no_answer():
    item = Item(id="j", question="JSON으로", kind="json", meta={"schema": SCHEMA})
    assert quality.score(item, sample("이름은 가람입니다", item="j")).status is AnswerStatus.NO_ANSWER


def test_json_with_a_gold_answer_must_equal_it():
    item = Item(id="j", question="?", kind="json", answers=('{"a": 1}',), meta={"schema": {"type": "object"}})
    assert quality.score(item, sample('{"a": 1.0}', item="j")).value == 1.0
    assert quality.score(item, sample('{"a": 2}', item="j")).value == 0.0


def test_a_schema_we_cannot_check_is_refused():
    item = Item(id="j", question="?", kind="json", meta={"schema": {"unevaluatedItems": False}})
    with pytest.raises(DataError) as caught:
        quality.score(item, sample("{}", item="j"))
    assert caught.value.values["keyword"] == "unevaluatedItems"


OPEN = Item(id="o", question="가을에 대해 쓰세요.", kind="open")


def test_an_open_question_without_a_reference_only_tells_how_it_ended():
    found = quality.score(OPEN, sample("가을 하늘이 높다.", item="o"))
    assert (found.status, found.counted) == (AnswerStatus.OK, False)
    cut = quality.score(OPEN, sample("가을 하늘이", item="o", finish_reason="length"))
    assert (cut.status, cut.counted) == (AnswerStatus.TRUNCATED, False)
    estimates = quality.quality([OPEN], [found, cut])
    assert set(estimates) == {"truncated"}


def test_the_judge_of_a_dataset_is_its_gold_answers_an_evaluator_or_a_reference():
    assert judge_for(dataset(NUMBER)).measure == "gold"
    named = judge_for(dataset(PLACE), evaluator="char_f1")
    graded = named.scores({"p": PLACE}, [sample("서울시", item="p")])[0]
    assert (named.measure, graded.value) == ("evaluator", pytest.approx(0.8))
    judge = judge_for(dataset(NUMBER, OPEN))
    assert (judge.measure, judge.needs_reference) == ("agreement", True)
    items, samples = {"n": NUMBER, "o": OPEN}, [sample("정답: 13"), sample("가을 하늘이 높다.", item="o")]
    assert [one.counted for one in judge.scores(items, samples)] == [True, False]
    ready = judge.with_reference({"o": sample("가을 하늘이 높고 푸르다.", item="o")})
    gold, agreement = ready.scores(items, samples)
    assert gold.value == 1.0
    assert agreement.counted
    assert 0.5 < agreement.value < 1.0


def test_a_cut_off_open_answer_agrees_with_a_cut_off_reference():
    cut = sample("가을 하늘이 높고", item="o", finish_reason="length")
    judge = judge_for(dataset(OPEN)).with_reference({"o": cut})
    found = judge.scores({"o": OPEN}, [cut])[0]
    assert (found.status, found.value, found.counted) == (AnswerStatus.TRUNCATED, 1.0, True)


@pytest.mark.parametrize(
    ("text", "rest", "value"),
    [
        ("가을 하늘이 높다.", {}, 1.0),
        ("가을 하늘이", {"finish_reason": "length"}, 0.0),
        ("", {}, 0.0),
        ("The autumn sky is high and blue, and leaves are falling down.", {}, 0.0),
        ("죄송하지만 그 질문에는 답변을 드릴 수 없습니다.", {}, 0.0),
    ],
)
def test_creative_answers_are_judged_by_how_they_ended(text, rest, value):
    judge = judge_for(dataset(OPEN), creative=True)
    assert judge.measure == "ended_well"
    assert judge.scores({"o": OPEN}, [sample(text, item="o", **rest)])[0].value == value


@pytest.mark.parametrize(
    ("item", "text", "status"),
    [
        (
            Item(id="e", question="2 + 3 = ?", answers=("5",)),
            "Adding the two numbers together gives five. Answer: 5",
            "ok",
        ),
        (Item(id="j", question="JSON으로 쓰세요.", kind="json"), '{"first_name": "Garam", "family_name": "Kim"}', "ok"),
        (Item(id="k", question="수도는?", answers=("서울",), kind="qa"), ENGLISH, "wrong_language"),
    ],
)
def test_the_language_is_that_of_the_question_where_it_matters(item, text, status):
    assert quality.score(item, sample(text, item=item.id)).status.value == status
