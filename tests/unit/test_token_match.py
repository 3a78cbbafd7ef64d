"""Greedy answers of compared configurations, in pairs; nothing is said where chance had a hand."""

from dataclasses import replace

from llmopt.records import AnswerStatus, Configuration, InferenceParams, Sample, Score
from llmopt.report.notes import match_notes
from llmopt.store.beside import write_answers
from llmopt.study.token_match import Answered, paired_matches, stored_answers

GREEDY = Configuration(engine="fake", launch={"cache_type": "f16"}, request=InferenceParams(temperature=0.0))


def answers(*texts):
    return [
        Sample(item_id=f"i{n}", planned_s=0, sent_s=0, ended_s=1, text=text, finish_reason="stop")
        for n, text in enumerate(texts)
    ]


def test_every_greedy_pair_and_only_those():
    warm = replace(GREEDY, request=InferenceParams(temperature=0.7))
    default = replace(GREEDY, request=InferenceParams())
    same, other = answers("가나다라", "답: 12"), answers("가나 다라", "답: 12")
    found = paired_matches([
        Answered("a", GREEDY, same), Answered("warm", warm, same),
        Answered("b", replace(GREEDY, launch={"cache_type": "q4"}), other),
        Answered("default", default, same), Answered("c", GREEDY, same),
    ])  # fmt: skip
    assert [(pair["before"], pair["after"]) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    by_pair = {(pair["before"], pair["after"]): pair for pair in found}
    assert by_pair["a", "c"]["rate"]["value"] == by_pair["a", "c"]["identical"]["value"] == 1.0
    assert by_pair["a", "b"]["rate"]["value"] == (2 / 5 + 1) / 2
    assert by_pair["a", "b"]["identical"]["value"] == 0.5
    assert by_pair["a", "b"]["rate"]["n"] == 2
    assert by_pair["a", "b"]["rate"]["low"] < 0.7 < by_pair["a", "b"]["rate"]["high"]
    notes = match_notes({"token_match": found}, {"a": "A"})
    assert notes[0].startswith("A → b")
    assert "70.0 %" in notes[0]


def test_nothing_answered_by_both_is_nothing_to_say():
    assert paired_matches([Answered("a", GREEDY, answers("가")), Answered("b", GREEDY, [])]) == []
    assert match_notes({}) == []


def test_a_stored_result_brings_its_answers_from_its_folder_or_none(tmp_path):
    kept = answers("가나다라", "답: 12")
    scores = [Score(item_id=one.item_id, value=1.0, status=AnswerStatus.OK) for one in kept]
    write_answers(tmp_path, 3, kept[:1], scores[:1])
    write_answers(tmp_path, 5, kept[1:], scores[1:])
    side = {"launches": [{"trial": 3}, {"trial": 5}]}
    assert stored_answers(side, tmp_path) == tuple(kept)
    assert stored_answers(side, tmp_path / "moved") == ()
    assert stored_answers({"launches": [{"trial": None}]}, tmp_path) == ()
    assert stored_answers({}, tmp_path) == ()
