"""Greedy answers of compared configurations, in pairs; nothing is said where chance had a hand."""

from dataclasses import replace

from llmopt.records import Configuration, InferenceParams, Sample
from llmopt.report.notes import match_notes
from llmopt.study.token_match import paired_matches

GREEDY = Configuration(engine="fake", launch={"cache_type": "f16"}, request=InferenceParams(temperature=0.0))


def answers(*texts):
    return [
        Sample(item_id=f"i{n}", planned_s=0, sent_s=0, ended_s=1, text=text, finish_reason="stop")
        for n, text in enumerate(texts)
    ]


def test_every_greedy_pair_and_only_those():
    warm = replace(GREEDY, request=InferenceParams(temperature=0.7))
    default = replace(GREEDY, request=InferenceParams())
    found = paired_matches(
        {"a": GREEDY, "warm": warm, "b": replace(GREEDY, launch={"cache_type": "q4"}), "default": default, "c": GREEDY},
        {name: answers("가나다라", "답: 12") for name in ("a", "warm", "default", "c")}
        | {"b": answers("가나 다라", "답: 12")},
    )
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
    assert paired_matches({"a": GREEDY, "b": GREEDY}, {"a": answers("가"), "b": []}) == []
    assert match_notes({}) == []
