"""Short Korean answers: 120 cases of our own, the adversarial ones among them, and the official measures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.measure.answers import qa
from llmopt.measure.answers.reply import read_reply
from llmopt.measure.evaluators.registry import scorer_for
from llmopt.records import Item, Sample

RIGHT = [
    # the bare answer, with punctuation, quotes, markdown and spacing of its own
    ("서울", "서울"),
    ("서울", "서울."),
    ("서울", " '서울' "),
    ("서울", "「서울」"),
    ("서울", "**서울**"),
    ("서울", "- 서울"),
    ("부산광역시", "부산 광역시"),
    ("레오나르도 다빈치", "레오나르도다빈치"),
    ("Python", "python"),
    ("ＡＢＣ", "abc"),
    ("3·1 운동", "3.1 운동"),
    ("별하 국화 축제", "별하 국화축제"),
    # marked in the ways models mark
    ("서울", "정답: 서울"),
    ("서울", "정답 : 서울"),
    ("서울", "정답：서울"),
    ("서울", "**정답:** 서울"),
    ("서울", "**정답**: 서울"),
    ("서울", "답: 서울입니다."),
    ("서울", "최종 답: 서울"),
    ("서울", "최종 정답은 서울입니다."),
    ("서울", "따라서 정답은 서울이다."),
    ("서울", "정답은 '서울'입니다."),
    ("서울", "정답은 **서울**입니다."),
    ("서울", "정답:\n서울"),
    ("서울", "정답은 다음과 같습니다: 서울"),
    ("서울", "답변: 서울"),
    ("서울", "Answer: 서울"),
    ("Seoul", "The answer is Seoul."),
    ("Seoul", "the final answer is: Seoul"),
    ("서울", r"\boxed{서울}"),
    ("서울", r"답은 \boxed{\text{서울}} 이다"),
    ("서울", "글을 보면 부산도 나오지만 수도는 따로 적혀 있다.\n정답: 서울"),
    ("서울", "정답: 부산\n아니다, 다시 보면\n정답: 서울"),
    ("서울", "정답: 서울 (대한민국의 수도)"),
    ("서울", "정답: 서울. 글의 첫 문장에 나온다."),
    ("서울", "<think>부산일까? 정답: 부산</think>\n정답: 서울"),
    ("서울", "부산은 아니고…</think>정답: 서울"),
    # particles and copulas after the answer, by its last sound
    ("서울", "서울입니다."),
    ("서울", "서울이다"),
    ("서울", "서울이에요."),
    ("제주", "제주예요"),
    ("제주", "제주입니다"),
    ("서울", "서울이라고 합니다."),
    ("제주", "제주라고 한다"),
    ("서울", "서울에서"),
    ("3층", "3층에서"),
    ("3층", "3층까지입니다"),
    ("김서연", "김서연이에요"),
    ("김서연", "김서연이"),
    ("한도영 부장", "한도영 부장입니다."),
    ("박하늘", "박하늘이었습니다"),
    ("이나라", "이나라였습니다."),
    ("강가", "강가로"),
    ("가을", "가을로"),
    ("부산", "부산으로"),
    ("서울", "서울로"),
    ("고양이", "고양이입니다."),
    ("회의", "회의입니다"),
    ("바나나", "바나나예요"),
    ("제주도", "제주도입니다"),
    ("학생", "학생이라고 할 수 있습니다."),
    ("달", "달입니다."),
    ("철", "정답: 철입니다"),
    ("원", "원이에요"),
    # the answer as the predicate of a sentence
    ("3층", "회의 장소는 3층입니다."),
    ("김서연", "이 회의를 주관하는 사람은 김서연입니다."),
    ("부산", "열차가 도착하는 곳은 부산입니다."),
    ("가람호", "가장 먼저 출발하는 열차는 가람호이다."),
    ("오후 3시 5분", "출발 시각은 오후 3시 5분입니다."),
    ("김서연", "김서연 씨입니다."),
    ("김서연", "김서연 선생님이에요"),
    # aliases
    (("세종대왕", "세종", "이도"), "세종입니다"),
    (("서울", "서울특별시"), "정답: 서울특별시"),
    (("H2O", "H₂O"), "H₂O"),
    (("12개월", "12", "열두 달"), "열두 달입니다."),
    # quantities and moments written in another way
    ("35명", "정답: 35 명"),
    ("35명", "정답: 서른다섯 명"),
    ("35명", "35명입니다."),
    (("35명", "35"), "정답: 35"),
    ("12,000원", "12000원"),
    ("12,000원", "1만 2천 원입니다"),
    ("5,900만 원", "정답: 5900만 원"),
    ("1,200개", "천이백 개"),
    ("2시간", "정답: 120분"),
    ("3월 14일", "정답: 3월14일"),
    ("3월 14일", "3/14"),
    ("3월 14일", "2025년 3월 14일입니다."),
    ("2025년 3월 14일", "2025-03-14"),
    ("2025년 3월 14일", "2025. 3. 14."),
    ("3월 14일", "3월 14일(금)"),
    ("3월 14일", "정답: 3월 14일 금요일"),
    ("오후 3시 5분", "15:05"),
    ("오후 3시 5분", "15시 5분"),
    ("오후 3시 5분", "3:05 PM"),
    ("오전 9시", "9시 정각"),
    ("오후 3시 30분", "오후 3시 반입니다"),
    ("오후 12시 20분", "낮 12시 20분"),
    ("3월 14일", "삼월 십사일입니다."),
    ("6월 20일", "유월 이십일"),
    ("10월 11일", "시월 십일일"),
    ("오후 3시 5분", "오후 세 시 오 분"),
    ("오후 11시 20분", "오후 열한 시 이십 분입니다"),
    ("오후 3시 5분", "PM 3:05"),
    ("오후 3시 5분", "15:05:00"),
    ("오후 12시", "정오입니다."),
    # the answer among words that lead in, confirm or label it
    ("서울", "서울이 정답입니다."),
    ("제주", "제주가 맞습니다."),
    ("서울", "글에 따르면 서울입니다."),
    ("서울", "네, 서울입니다."),
    ("서울", "A: 서울"),
    ("서울", "장소: 서울"),
    ("서울", "정답 - 서울"),
    ("서울", "정답: 서울 😊"),
    ("서울", "서울이라고 적혀 있습니다."),
    ("제주", "제주로 보입니다."),
    ("서울", "서울인 것 같습니다."),
    # unanswerable
    ("알 수 없음", "주어진 글만으로는 알기 어렵습니다."),
    ("알 수 없음", "모름"),
    ("알 수 없음", "정답: 알 수 없음"),
    ("알 수 없음", "알수없음"),
    ("알 수 없음", "글에 나와 있지 않습니다."),
    ("알 수 없음", "혈액형에 대한 정보가 없습니다."),
    ("알 수 없음", "주어진 글만으로는 확인할 수 없습니다."),
    ("알 수 없음", "죄송하지만 글에 언급되지 않아 답변할 수 없습니다."),
    ("알 수 없음", "모르겠습니다"),
    ("알 수 없음", "The passage does not say; unknown."),
]

WRONG = [
    # a shorter noun hidden in a longer one, and the other way round
    ("고양", "고양이", ()),
    ("고양이", "고양", ()),
    ("회", "회의", ()),
    ("회의", "회", ()),
    ("바나나", "바나", ()),
    ("종", "종로", ()),
    ("가", "가을", ()),
    ("마", "마을", ()),
    ("나", "나이", ()),
    ("경기", "경기도", ()),
    ("제주도", "제주", ()),
    ("국", "국가", ()),
    ("사", "사과", ()),
    ("시", "시인", ()),
    ("대", "대만", ()),
    ("불", "불만", ()),
    ("보", "보고", ()),
    ("태", "태도", ()),
    ("고양", "고양이입니다.", ()),
    ("고양", "정답: 고양이예요", ()),
    ("제주", "제주도입니다", ()),
    ("회", "회의입니다", ()),
    ("바나", "바나나예요", ()),
    ("경기", "경기도이다", ()),
    ("마음", "마음씨", ()),
    ("아가", "아가씨입니다", ()),
    # a particle that does not fit the last sound is part of another word
    ("김하", "김하은", ()),
    ("박서", "박서은", ()),
    ("이도", "이도을", ()),
    ("한솔", "한솔가", ()),
    ("정민", "정민는", ()),
    # a distractor of the same passage
    ("가람", "가람이", ("가람이",)),
    ("새미도", "새미도의", ("새미도의",)),
    # plainly another answer
    ("서울", "부산", ()),
    ("서울", "서울 또는 부산", ()),
    ("서울", "서울, 부산", ()),
    ("서울", "서울이 아닙니다", ()),
    ("서울", "정답은 서울이 아니라 부산입니다.", ()),
    ("서울", "수도는 서울이 아니라 부산입니다.", ()),
    ("서울", "정답: 서울\n아니, 정답: 부산", ()),
    ("서울", "서울은 아름다운 도시이고 사람이 많으며 볼거리가 많아서 해마다 많은 여행자가 찾습니다.", ()),
    ("35명", "정답: 36명", ()),
    ("35명", "정답: 35개월", ()),
    ("35,000원", "정답: 3,500원", ()),
    ("3월 14일", "4월 13일", ()),
    ("2025년 3월 14일", "2024년 3월 14일", ()),
    ("오후 3시 5분", "오전 3시 5분", ()),
    ("오후 3시 5분", "3시 5분", ()),
    ("오후 12시", "오전 12시", ()),
    ("오후 12시", "자정", ()),
    ("3월 14일", "삼월 십오일", ()),
    ("오후 3시 5분", "오후 네 시 오 분", ()),
    ("서울", "장소: 서울이 아님", ()),
    ("서울", "서울이 아니라 부산이 맞습니다.", ()),
    ("서울", "부산이 정답입니다.", ()),
    ("서울", "알 수 없음", ()),
    ("알 수 없음", "정답: 서울", ()),
    ("알 수 없음", "정답: 서울\n", ()),
    ("학생", "학생이 아니다", ()),
    ("서울", "", ()),
]


def read(golds, reply, distractors=()):
    item = Item(id="x", question="무엇인가요?", answers=golds, kind="qa", meta={"distractors": list(distractors)})
    sample = Sample(item_id="x", planned_s=0, sent_s=0, ended_s=1, text=reply)
    return scorer_for("qa").read(item, read_reply(reply), sample)


def as_tuple(golds):
    return golds if isinstance(golds, tuple) else (golds,)


@pytest.mark.parametrize(("golds", "reply"), RIGHT)
def test_right_answers_are_right(golds, reply):
    assert read(as_tuple(golds), reply).value == 1.0


@pytest.mark.parametrize(("gold", "reply", "distractors"), WRONG)
def test_wrong_answers_stay_wrong(gold, reply, distractors):
    assert read((gold,), reply, distractors).value == 0.0


def test_words_that_only_repeat_the_question_are_no_part_of_the_answer():
    asked = "최주솔 의사가 속한 진료과의 수간호사는 누구인가요?"
    item = Item(id="x", question=asked, answers=("신규아",), kind="qa", meta={"distractors": ["수간호사보"]})
    for reply, value in (
        ("최주솔 의사가 속한 진료과의 수간호사는 수간호사 신규아입니다.", 1.0),
        ("최주솔 의사가 속한 진료과의 수간호사는 수간호사보 신규아입니다.", 0.0),
        ("최주솔 의사가 속한 진료과의 수간호사는 백은하 신규아입니다.", 0.0),
    ):
        sample = Sample(item_id="x", planned_s=0, sent_s=0, ended_s=1, text=reply)
        assert scorer_for("qa").read(item, read_reply(reply), sample).value == value


def test_there_are_at_least_a_hundred_cases_of_each_kind_together():
    assert len(RIGHT) + len(WRONG) >= 140
    assert len(WRONG) >= 40


def test_the_rule_that_fired_is_named():
    assert read(("서울",), "정답: 서울").rule == "marker"
    assert read(("서울",), r"\boxed{서울}").rule == "boxed"
    assert read(("서울",), "서울").rule == "whole"
    assert read(("3층",), "장소는 3층입니다").rule == "predicate"
    assert read(("35명",), "정답: 서른다섯 명").rule == "marker+value"


@pytest.mark.parametrize(
    ("predicted", "golds", "exact", "f1"),
    [
        ("서울", ["서울"], 1.0, 1.0),
        ("서울은", ["서울"], 0.0, 2 * (2 / 3) * 1 / (2 / 3 + 1)),
        ("《토지》", ["토지"], 1.0, 1.0),
        ("The Cat!", ["the cat"], 1.0, 1.0),
        ("부산 서울", ["서울"], 0.0, 2 * 0.5 * 1 / 1.5),
        ("서울", ["부산", "서울"], 1.0, 1.0),
        ("대구", ["서울"], 0.0, 0.0),
        ("", ["서울"], 0.0, 0.0),
        ("가나다", ["다나가"], 0.0, 1.0),
    ],
)
def test_official_measures(predicted, golds, exact, f1):
    assert qa.em(predicted, golds) == exact
    assert qa.f1_char(predicted, golds) == pytest.approx(f1)


hangul = st.text(alphabet=st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1, max_size=6)


@given(hangul)
def test_an_answer_equals_itself_and_itself_with_a_copula(gold):
    assert qa.same_answer(gold, gold)
    assert qa.same_answer(gold + "입니다.", gold)


@given(hangul, hangul)
def test_a_different_beginning_is_never_the_same(one, two):
    if not two.startswith(one):
        assert not qa.same_answer(two, one)


@given(st.text(max_size=80))
def test_any_text_can_be_read(text):
    candidates, _ = qa.read_answer(text)
    assert all(rule for _, rule in candidates)
    assert 0 <= qa.f1_char(text, ["서울"]) <= 1
