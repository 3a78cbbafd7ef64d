"""Instructions of the IFEval family: each rule with replies that follow it and replies that do not."""

import pytest

from llmopt.measure.quality import score
from llmopt.records import Item, Sample

CASES = [
    ({"id": "keywords:existence", "keywords": ["바다", "산"]}, "바다와 산", "바다만"),
    ({"id": "keywords:forbidden_words", "forbidden_words": ["눈"]}, "비가 온다", "눈이 온다"),
    ({"id": "keywords:frequency", "keyword": "꽃", "frequency": 2, "relation": "at least"}, "꽃과 꽃", "꽃 하나"),
    ({"id": "keywords:frequency", "keyword": "꽃", "frequency": 2, "relation": "less than"}, "꽃 하나", "꽃 꽃"),
    ({"id": "keywords:letter_frequency", "letter": "가", "let_frequency": 2, "let_relation": "at least"}, "가가", "가"),
    ({"id": "language:response_language", "language": "ko"}, "안녕하세요", "hello there"),
    ({"id": "language:response_language", "language": "en"}, "hello there", "안녕하세요"),
    ({"id": "length_constraints:number_sentences", "num_sentences": 2, "relation": "at least"}, "하나. 둘.", "하나."),
    ({"id": "length_constraints:number_words", "num_words": 3, "relation": "less than"}, "두 낱말", "낱말 셋 이상"),
    ({"id": "length_constraints:number_letters", "num_letters": 5, "relation": "at least"}, "다섯 글자다", "네 글자"),
    ({"id": "length_constraints:number_paragraphs", "num_paragraphs": 2}, "하나\n***\n둘", "하나\n\n둘"),
    (
        {"id": "length_constraints:nth_paragraph_first_word", "num_paragraphs": 2, "nth_paragraph": 2, "first_word": "둘째"},
        "처음이다.\n\n둘째, 이어진다.",
        "처음이다.\n\n셋째 이어진다.",
    ),
    ({"id": "detectable_content:number_placeholders", "num_placeholders": 2}, "[이름]과 [주소]", "[이름]"),
    ({"id": "detectable_content:postscript", "postscript_marker": "P.S."}, "끝.\nP.S. 덧붙임", "끝. 추신 없음"),
    ({"id": "detectable_format:number_bullet_lists", "num_bullets": 2}, "* 하나\n* 둘", "* 하나"),
    ({"id": "detectable_format:constrained_response"}, "제 대답은 예.", "글쎄"),
    ({"id": "detectable_format:number_highlighted_sections", "num_highlights": 1}, "이것은 *강조* 이다", "강조 없음"),
    ({"id": "detectable_format:multiple_sections", "section_spliter": "SECTION", "num_sections": 2}, "SECTION 1\nㄱ\nSECTION 2\nㄴ", "SECTION 1"),
    ({"id": "detectable_format:json_format"}, '```json\n{"a": 1}\n```', "a는 1"),
    ({"id": "detectable_format:title"}, "<<제목>>\n글", "제목\n글"),
    ({"id": "combination:two_responses"}, "하나\n******\n둘", "하나\n******\n하나"),
    ({"id": "combination:repeat_prompt", "prompt_to_repeat": "봄을 말하라"}, "봄을 말하라\n봄은 온다", "봄은 온다"),
    ({"id": "startend:end_checker", "end_phrase": "이상입니다."}, "끝. 이상입니다.", "이상입니다. 끝"),
    ({"id": "startend:quotation"}, '"인용"', "인용"),
    ({"id": "change_case:capital_word_frequency", "capital_frequency": 1, "capital_relation": "at least"}, "WOW yes", "wow"),
    ({"id": "change_case:english_capital"}, "ALL BIG", "Not big"),
    ({"id": "change_case:english_lowercase"}, "all small", "Not small"),
    ({"id": "punctuation:no_comma"}, "쉼표 없이", "쉼표, 있음"),
]  # fmt: skip


def judged(text, *rules):
    item = Item(id="i", question="쓰세요.", kind="instructions", meta={"instructions": list(rules)})
    return score(item, Sample(item_id="i", planned_s=0, sent_s=0, ended_s=1, text=text), language="-")


@pytest.mark.parametrize(("rule", "good", "bad"), CASES)
def test_each_rule(rule, good, bad):
    assert judged(good, rule).value == 1.0
    assert judged(bad, rule).value == 0.0


def test_all_must_be_followed_and_the_rule_says_how_many_were():
    comma, title = {"id": "punctuation:no_comma"}, {"id": "detectable_format:title"}
    found = judged("쉼표 없이 제목도 없이", comma, title)
    assert (found.value, found.rule) == (0.0, "followed 1/2")
    assert judged("<<제목>> 쉼표 없이", comma, title).rule == "followed 2/2"


def test_a_rule_nobody_wrote_is_left_out():
    found = judged("쉼표 없이", {"id": "punctuation:no_comma"}, {"id": "poetry:rhyme"})
    assert (found.value, found.rule) == (1.0, "followed 1/1")
    assert judged("무엇이든", {"id": "poetry:rhyme"}).value == 0.0
